"""Our own HTTP client beside aiohttp's: CPU per LM request and per chunk of an LM's stream, and the ratio of the two.

    python bench/http_client.py [--rounds 9] [--seconds 1]

A fake LM in a process of its own answers. In each round every client does the same work once, in random order, so that
a busy machine disturbs all of them alike. Measured is user and system time of this process, which grows much less with
the load of others than time does; printed are medians over the rounds, and the median, least and greatest of the ratios
within a round.

    requests    32 connections, one JSON reply for each request
    burst       32 streams at a time, 100 chunks in one write
    paced       100 streams at a time, a chunk every 20 ms: a read for each chunk, as a real LM sends them

Both clients hand every piece of a stream to the same parser. ``socket`` is a bare asyncio protocol that parses nothing,
neither HTTP nor the stream: the floor of any client.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import http.client
import json
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import uvloop
from systems import free_port

from dspy_live.runtime.http.transport import HttpPool, Timeouts
from dspy_live.sansio.openai import StreamParser, parse_reply

CHUNKS = 100
HEADERS = {"Content-Type": "application/json", "Authorization": "Bearer key"}
MESSAGES = [{"role": "user", "content": "x" * 500}]

Ask = Callable[[], Awaitable[None]]
Client = Callable[[str, bytes, bool], AbstractAsyncContextManager[Ask]]


@asynccontextmanager
async def ours(url: str, body: bytes, stream: bool) -> AsyncIterator[Ask]:
    pool = HttpPool(proxies={})
    timeouts = Timeouts(first_byte=60, idle=60)

    async def ask() -> None:
        if not stream:
            async with pool.exchange("POST", url, HEADERS, body, timeouts) as exchange:
                parse_reply(await exchange.read())
            return
        parser = StreamParser()
        async with pool.exchange("POST", url, HEADERS, body, timeouts, parser.feed) as exchange:
            await exchange.done()
        finish(parser)

    yield ask
    await pool.aclose()


@asynccontextmanager
async def with_aiohttp(url: str, body: bytes, stream: bool) -> AsyncIterator[Ask]:
    timeout = aiohttp.ClientTimeout(total=None, sock_read=60)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=HEADERS) as session:

        async def ask() -> None:
            async with session.post(url, data=body) as reply:
                if not stream:
                    parse_reply(await reply.read())
                    return
                parser = StreamParser()
                async for data in reply.content.iter_any():
                    parser.feed(data)
                finish(parser)

        yield ask


@asynccontextmanager
async def with_socket(url: str, body: bytes, stream: bool) -> AsyncIterator[Ask]:
    """Writes the request and waits for the end of the reply, and does nothing else with it."""
    loop = asyncio.get_running_loop()
    host, _, path = url.removeprefix("http://").partition("/")
    request = f"POST /{path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
    idle: list[Bare] = []

    async def ask() -> None:
        bare = idle.pop() if idle else (await loop.create_connection(Bare, *host.split(":")))[1]
        await bare.ask(request, stream)
        idle.append(bare)

    yield ask
    for bare in idle:
        bare.transport.abort()


class Bare(asyncio.Protocol):
    """One connection that is asked again and again."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def ask(self, request: bytes, stream: bool) -> asyncio.Future[None]:
        self.end = b"0\r\n\r\n" if stream else b"}"  # a small reply comes in one piece
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self.ended

    def data_received(self, data: bytes) -> None:
        if data.endswith(self.end):
            self.ended.set_result(None)


def finish(parser: StreamParser) -> None:
    parser.finish()
    parser.reply()
    if parser.chunks < CHUNKS:
        raise RuntimeError(f"{parser.chunks} chunks of {CHUNKS} came")


CLIENTS: dict[str, Client] = {"ours": ours, "aiohttp": with_aiohttp, "socket": with_socket}


async def work(client: Client, url: str, scenario: str, seconds: float) -> float:
    """Return microseconds of CPU per request, or per chunk."""
    stream = scenario != "requests"
    body = orjson.dumps({"model": "bench", "messages": MESSAGES, "stream": stream})
    at_once = 100 if scenario == "paced" else 32
    async with client(url, body, stream) as ask:
        await asyncio.gather(*(ask() for _ in range(at_once)))  # connects, and warms up
        gc.collect()
        count, began, until = 0, cpu(), time.monotonic() + seconds
        while not count or time.monotonic() < until:
            if scenario == "requests":
                await asyncio.gather(*(repeat(ask, 10) for _ in range(at_once)))
                count += 10 * at_once
            else:
                await asyncio.gather(*(ask() for _ in range(at_once)))
                count += CHUNKS * at_once
        return (cpu() - began) / count * 1e6


async def repeat(ask: Ask, times: int) -> None:
    for _ in range(times):
        await ask()


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


@contextmanager
def lm(interval: float) -> Iterator[str]:
    """Run the fake LM and give its address."""
    port = free_port()
    words = ["--port", str(port), "--chunks", str(CHUNKS), "--interval", str(interval)]
    process = subprocess.Popen([sys.executable, str(Path(__file__).with_name("fake_lm.py")), *words])
    try:
        for _ in range(600):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
            try:
                connection.connect()
                break
            except OSError:
                time.sleep(0.05)
            finally:
                connection.close()
        yield f"http://127.0.0.1:{port}/v1/chat/completions"
    finally:
        process.terminate()
        process.wait(10)


def measure(scenario: str, rounds: int, seconds: float) -> dict[str, Any]:
    """Return the scenario's results: microseconds of CPU by client, and aiohttp's over ours."""
    found: dict[str, list[float]] = {name: [] for name in CLIENTS}
    with lm(0.02 if scenario == "paced" else 0.0) as url:
        for _ in range(rounds):
            for name in random.sample(list(CLIENTS), len(CLIENTS)):
                found[name].append(uvloop.run(work(CLIENTS[name], url, scenario, seconds)))
    ratios = [theirs / own for theirs, own in zip(found["aiohttp"], found["ours"], strict=True)]
    return {
        "scenario": scenario,
        "unit": "request" if scenario == "requests" else "chunk",
        **{f"{name}_us": round(statistics.median(values), 2) for name, values in found.items()},
        "ratio": round(statistics.median(ratios), 2),
        "ratio_min": round(min(ratios), 2),
        "ratio_max": round(max(ratios), 2),
    }


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", default="requests,burst,paced")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each client in each round")
    parser.add_argument("--json", action="store_true", help="print one JSON object per scenario")
    args = parser.parse_args()
    if not args.json:
        print("| scenario | CPU per | ours, µs | aiohttp, µs | socket, µs | aiohttp / ours (range) |")
        print("|---|---|---|---|---|---|")
    for scenario in args.scenarios.split(","):
        if scenario not in ("requests", "burst", "paced"):
            parser.error(f"no scenario {scenario!r}")
        row = measure(scenario, args.rounds, args.seconds)
        if args.json:
            print(json.dumps(row), flush=True)
        else:
            ratio = f"{row['ratio']:.2f} ({row['ratio_min']:.2f} – {row['ratio_max']:.2f})"
            cells = [scenario, row["unit"], row["ours_us"], row["aiohttp_us"], row["socket_us"], ratio]
            print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
