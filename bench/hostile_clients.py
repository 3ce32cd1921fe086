"""Clients that mean no good, or have a bad line, against one server: what the others notice of them.

    python bench/hostile_clients.py [cuts] [slow] [loris] [--clients 1000]

``cuts``: runs of ``POST /runs`` whose readers are cut off after a random number of bytes and come back with
``Last-Event-ID``, so many times in all; every run must come out whole. ``slow``: so many clients that each stream two
megabytes and read next to nothing. ``loris``: so many connections that send a request's head byte by byte, and half as
many that never send their body. In the last two an ordinary client asks all the while.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import resource
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from dspy_live.core.call import Call
from dspy_live.core.events import Predicted, Result, Started, Token
from dspy_live.core.schema import Field, Schema
from dspy_live.core.sink import Sink
from dspy_live.server import ServedProgram, create_app
from dspy_live.server.transport.serve import serve

WORDS = 200
LARGE = "x" * 2_000
FLOOD = 1_000
SCHEMA = Schema("Bench", (Field("question"),), (Field("answer"),))


async def program(call: Call, sink: Sink) -> Result:
    """Answer with words, one for each turn of the loop, or with a flood of large tokens."""
    sink.push(Started(call.id))
    flood = call.inputs["question"] == "flood"
    if call.inputs["question"] == "quick":
        return Predicted({"answer": "at once"})
    pieces = [LARGE] * FLOOD if flood else [f"{call.inputs['question']}{i} " for i in range(WORDS)]
    for i, piece in enumerate(pieces):
        if not sink.push(Token(piece, "answer", "predict", 1, i == len(pieces) - 1)):
            await sink.room()
        await asyncio.sleep(0)
    return Predicted({"answer": "" if flood else "".join(pieces)})


class Server:
    """The server, in a process of its own."""

    def __init__(self) -> None:
        command = [sys.executable, __file__, "--serve"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline().rpartition(":")[2])

    def memory(self) -> float:
        """Resident memory, in MB."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1e6

    async def connect(self, **more: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, **more)

    async def ask(self, method: str, path: str, body: Any = None, *headers: str) -> tuple[int, bytes]:
        reader, writer = await self.connect()
        writer.write(request(method, path, body, "Connection: close", *headers))
        reply = await reader.read()
        writer.close()
        head, _, content = reply.partition(b"\r\n\r\n")
        return int(head.split()[1]), content

    async def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((await self.ask("GET", "/stats"))[1])
        return found


def request(method: str, path: str, body: Any = None, *headers: str) -> bytes:
    data = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(data)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


def events(text: bytes) -> list[tuple[str, str, str]]:
    """The whole events of a stream that may be cut anywhere."""
    found = []
    for block in text.replace(b"\r\n", b"\n").split(b"\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.decode().split("\n") if ": " in line and line[0] != ":")
        if "event" in fields:
            found.append((fields["event"], fields["id"], fields["data"]))
    return found


async def cuts(server: Server, wanted: int) -> dict[str, Any]:
    """Read runs, with readers that are cut off, until so many were."""
    made, runs, wrong, draw = 0, 0, 0, random.Random(7)

    async def one(question: str) -> None:
        nonlocal made, runs, wrong
        _, body = await server.ask("POST", "/runs", {"question": question})
        where, got = json.loads(body)["events"], list[tuple[str, str, str]]()
        while not got or got[-1][0] != "done":
            reader, writer = await server.connect()
            after = [f"Last-Event-ID: {got[-1][1]}"] if got else []
            # Over HTTP/1.0 there is no framing between the bytes: a cut can be in any place of an event.
            writer.write(request("GET", where, None, *after).replace(b"HTTP/1.1", b"HTTP/1.0"))
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.split()[1] == b"200", head
            text = await some(reader, draw.randrange(1, 6_000))
            got += events(text)
            writer.transport.abort()
            made += got[-1:] == [] or got[-1][0] != "done"
        runs += 1
        text_of = "".join(json.loads(data)["text"] for name, _, data in got if name == "token")
        numbers = [int(ident.rpartition(":")[2]) for _, ident, _ in got]
        whole = text_of == "".join(f"{question}{i} " for i in range(WORDS))
        wrong += not whole or numbers != list(range(1, len(got) + 1))

    while made < wanted:
        await asyncio.gather(*(one(f"q{runs + i}-") for i in range(20)))
    return {"cuts": made, "runs": runs, "not whole": wrong}


async def some(reader: asyncio.StreamReader, most: int) -> bytes:
    """Read so many bytes, or what there is until the end."""
    text = b""
    while len(text) < most and (piece := await reader.read(most - len(text))):
        text += piece
    return text


async def asked_all_the_while(server: Server, work: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    """Do the work while an ordinary client asks every 20 ms; return what it returns with the client's times."""
    times: list[float] = []
    failed = 0

    async def ask() -> None:
        nonlocal failed
        while True:
            began = time.perf_counter()
            status, _ = await server.ask("POST", "/predict", {"question": "quick"})
            times.append((time.perf_counter() - began) * 1000)
            failed += status != 200
            await asyncio.sleep(0.02)

    asking = asyncio.create_task(ask())
    try:
        found = await work()
    finally:
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
    times.sort()
    others = {"asked": len(times), "failed": failed, "p50_ms": round(times[len(times) // 2], 1)}
    return {**found, **others, "p99_ms": round(times[len(times) * 99 // 100], 1)}


@contextlib.asynccontextmanager
async def many(count: int, open_one: Callable[[], Awaitable[asyncio.StreamWriter]]) -> AsyncIterator[list[Any]]:
    """Open so many connections, 50 at a time, and drop them at the end."""
    writers: list[asyncio.StreamWriter] = []
    for _ in range(0, count, 50):
        writers += await asyncio.gather(*(open_one() for _ in range(50)))
    try:
        yield writers
    finally:
        for writer in writers:
            writer.transport.abort()


async def slow(server: Server, count: int) -> dict[str, Any]:
    """Let so many clients stream two megabytes each and read almost nothing; ask when all of them are stuck."""

    async def open_one() -> asyncio.StreamWriter:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", server.port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=1024)
        writer.write(request("POST", "/predict/stream", {"question": "flood"}))
        await reader.read(100)
        return writer

    async def nothing() -> dict[str, Any]:
        await asyncio.sleep(10)
        return {}

    before, began = server.memory(), time.monotonic()
    async with many(count, open_one):
        tokens = -1
        while tokens != (tokens := (await server.stats())["tokens"]):
            await asyncio.sleep(0.5)
        stuck, held = time.monotonic() - began, server.memory()
        others = await asked_all_the_while(server, nothing)
        active = (await server.stats())["active"]
    left = time.monotonic()
    while (await server.stats())["active"]:
        await asyncio.sleep(0.02)
    ended = time.monotonic() - left
    found = {"slow readers": count, "runs under way": active, "all stuck after s": round(stuck, 1)}
    found |= {"kB for each": round((held - before) * 1000 / count, 1), "ended after s": round(ended, 2)}
    return found | others


async def loris(server: Server, count: int) -> dict[str, Any]:
    """Send heads byte by byte, and bodies never, until the server has closed all of these connections."""
    closed: list[float] = []

    async def dribble(head: bytes) -> None:
        reader, writer = await server.connect()
        began = time.monotonic()
        gone = asyncio.create_task(reader.read())
        for byte in head:
            writer.write(bytes([byte]))
            done, _ = await asyncio.wait([gone], timeout=1)
            if done:
                break
        await asyncio.wait([gone])
        closed.append(time.monotonic() - began)
        writer.transport.abort()

    async def work() -> dict[str, Any]:
        before = server.memory()
        head = b"GET /predict HTTP/1.1\r\nHost: x\r\n" + b"X-A: b\r\n" * 100
        no_body = request("POST", "/predict").replace(b"Content-Length: 0", b"Content-Length: 99")
        dribbling = [asyncio.create_task(dribble(head)) for _ in range(count)]

        async def wait_for_body() -> None:
            reader, writer = await server.connect()
            began = time.monotonic()
            writer.write(no_body)
            await reader.read()
            closed.append(time.monotonic() - began)
            writer.transport.abort()

        dribbling += [asyncio.create_task(wait_for_body()) for _ in range(count // 2)]
        await asyncio.sleep(10)
        kb = round((server.memory() - before) * 1000 / len(dribbling), 1)
        await asyncio.gather(*dribbling)
        return {"connections": len(closed), "kB for each": kb, "all closed after s": round(max(closed), 1)}

    return await asked_all_the_while(server, work)


async def main(parts: list[str], count: int) -> None:
    """Run the parts, each against a server of its own, and print a line of JSON for each."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    for part in parts:
        server = Server()
        try:
            began = time.monotonic()
            found = await {"cuts": cuts, "slow": slow, "loris": loris}[part](server, count)
            print(json.dumps({"part": part, **found, "seconds": round(time.monotonic() - began, 1)}), flush=True)
        finally:
            server.process.terminate()
            server.process.wait(30)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=["cuts", "slow", "loris", []], default=[])
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
        app = create_app(ServedProgram("bench", program, SCHEMA), grace=30)
        serve(app, port=0, drain=0, on_ready=lambda url: print(url, flush=True))
    else:
        asyncio.run(main(chosen.parts or ["cuts", "slow", "loris"], chosen.clients))
