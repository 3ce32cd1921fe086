"""What sharing runs through a store costs the server that runs them: CPU per run and per token, beside no store.

``python bench/shared_runs.py`` starts a Redis and, for each way, a server of a program that gives tokens at a steady
pace and asks no LM; the figures are the server's CPU time, and ratios to the same work without a store.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

PREDICTIONS = 10
"""Requests of ``/predict`` in place of one stream."""


def serve(store: str, tokens: int, pace: float) -> None:
    """Serve until standard input ends; print the port."""
    from dspy_live.core.call import Call
    from dspy_live.core.events import Predicted, Result, Started, Token
    from dspy_live.core.schema import Field, Schema
    from dspy_live.core.sink import Sink
    from dspy_live.server import ServedProgram, create_app
    from dspy_live.server.runs.shared.shared_runs import SharedRuns
    from dspy_live.server.transport.address import listen
    from dspy_live.server.transport.serve import serve as run

    async def program(call: Call, sink: Sink) -> Result:
        if call.inputs["question"] == "now":
            return Predicted({"answer": "now"})
        sink.push(Started(call.id))
        loop = asyncio.get_running_loop()
        begin = loop.time()
        for number in range(tokens):
            if not sink.push(Token("word ", "answer", "predict", 1, number == tokens - 1)):
                await sink.room()
            await asyncio.sleep(max(0.0, begin + number * pace - loop.time()))
        return Predicted({"answer": "word " * tokens})

    schema = Schema("QA", (Field("question"),), (Field("answer"),))
    app = create_app(
        ServedProgram("qa", program, schema), shared_runs=SharedRuns(store) if store else None, keep_runs=5.0
    )
    listener = listen("127.0.0.1", 0)
    run(app, sockets=[listener], on_ready=lambda _: print(listener.getsockname()[1], flush=True))


@contextmanager
def server(store: str, options: argparse.Namespace) -> Iterator[tuple[int, int]]:
    """A server in a process of its own: its port and its process id."""
    command = [sys.executable, __file__, "--serve", store or "none", "--tokens", str(options.tokens)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline()), process.pid
    finally:
        process.terminate()
        process.wait()


def cpu(pid: int) -> float:
    """Return the seconds of CPU that all threads of a process have used."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


async def request(port: int, method: str, path: str, body: bytes = b"") -> bytes:
    """Return the whole reply to a request on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    reply = await reader.read()
    writer.close()
    return reply


async def one(port: int, reader_port: int, door: str, tokens: int) -> None:
    question = b'{"question": "why"}'
    if door == "predict":
        for _ in range(PREDICTIONS):
            assert b" 200 " in (await request(port, "POST", "/predict", b'{"question": "now"}'))[:20]
        return
    if door == "stream":
        events = await request(port, "POST", "/predict/stream", question)
    else:
        made = await request(port, "POST", "/runs", question)
        run = json.loads(made.partition(b"\r\n\r\n")[2])["run"]["id"]
        events = await request(reader_port, "GET", f"/runs/{run}/events")
    assert events.count(b"event: token\n") == tokens, events[-300:]


async def work(port: int, reader_port: int, door: str, options: argparse.Namespace) -> None:
    await asyncio.gather(*(one(port, reader_port, door, options.tokens) for _ in range(options.streams)))


def measure(options: argparse.Namespace) -> None:
    """Print the CPU of each way, in milliseconds per run, and its ratio to that without one: medians of the rounds.

    The ways take turns, so that a machine that is slower for a while is so for all.
    """
    from tests.support.databases import running_redis

    ways = [(door, shared, False) for door in ("predict", "stream", "runs") for shared in (False, True)]
    ways.append(("runs", True, True))
    used: dict[tuple[str, bool, bool], list[float]] = {way: [] for way in ways}
    of_redis: dict[tuple[str, bool, bool], list[float]] = {way: [] for way in ways}
    with running_redis() as redis, ExitStack() as servers:
        assert redis.process is not None
        store = f"redis://127.0.0.1:{redis.port}"
        alone, one, other = (servers.enter_context(server(url, options)) for url in ("", store, store))
        for number in range(options.rounds + 1):
            for way in ways:
                door, shared, elsewhere = way
                port, pid = one if shared else alone
                began = cpu(pid), cpu(redis.process.pid)
                asyncio.run(work(port, other[0] if elsewhere else port, door, options))
                if number:  # the first round warms up
                    used[way].append(cpu(pid) - began[0])
                    of_redis[way].append(cpu(redis.process.pid) - began[1])
    for way in ways:
        door, shared, elsewhere = way
        count = options.streams * (PREDICTIONS if door == "predict" else 1)
        how = ("read elsewhere" if elsewhere else "shared") if shared else "alone"
        ratio = median(mine / alone for mine, alone in zip(used[way], used[door, False, False], strict=True))
        print(f"{door:8} {how:15} {median(used[way]) / count * 1e3:6.3f} ms/run  x{ratio:.2f}  ", end="")
        print(f"(Redis {median(of_redis[way]) / count * 1e3:.3f} ms/run)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", default="")
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    if given.serve:
        serve("" if given.serve == "none" else given.serve, given.tokens, 0.02)
    else:
        measure(given)
