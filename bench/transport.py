"""CPU per chunk of an LM stream, from the socket to parsed deltas: ours against aiohttp, side by side.

    python bench/transport.py [--streams 100] [--chunks 100] [--every 0.01] [--rounds 5]

A server in a process of its own sends chat-completions streams. Each round runs every client once, one after
the other, so that a busy machine disturbs all of them alike; the numbers are the best round's user and system
time of this process over the chunks that came, and the ratio to ours.

``paced`` sends one chunk per stream every ``--every`` seconds: a read per chunk, what a real LM gives.
``burst`` sends a whole stream at once. ``requests`` counts plain replies, one connection each asking again.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import multiprocessing
import resource
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from typing import Any

import aiohttp
import httptools
import orjson
import uvloop

from dspy_live.runtime.http.transport import HttpPool, Timeouts
from dspy_live.sansio.openai import StreamParser, parse_reply

Client = Callable[[str, int, int], Awaitable[int]]

BODY = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "x" * 500}], "stream": True})
HEADERS = {"Content-Type": "application/json", "Authorization": "Bearer key"}


def _event(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    data = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 17, "model": "m", "choices": [choice]}
    event = b"data: " + orjson.dumps(data) + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


FIRST = _event({"role": "assistant", "content": ""})
LAST = _event({}, "stop") + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
PLAIN = orjson.dumps(
    {
        "id": "chatcmpl-1",
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "x" * 300}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
)


class Upstream(asyncio.Protocol):
    """The fake LM server. The path says what to send: ``/paced``, ``/burst`` or ``/plain``."""

    def __init__(self, chunks: int, every: float) -> None:
        self._words = [_event({"content": f" word{n}"}) for n in range(chunks)]
        self._every = every
        self._path = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._path = url

    def on_message_complete(self) -> None:
        if self._path == b"/plain":
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(PLAIN), PLAIN))
        elif self._path == b"/burst":
            self._transport.write(HEAD + FIRST + b"".join(self._words) + LAST)
        else:
            self._transport.write(HEAD + FIRST)
            self._send(0)

    def _send(self, number: int) -> None:
        if self._transport.is_closing():
            return
        if number == len(self._words):
            self._transport.write(LAST)
        else:
            self._transport.write(self._words[number])
            asyncio.get_running_loop().call_later(self._every, self._send, number + 1)


def serve(pipe: Connection, chunks: int, every: float) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Upstream(chunks, every), "127.0.0.1", 0, backlog=4096)
        pipe.send(server.sockets[0].getsockname()[1])
        await loop.run_in_executor(None, pipe.poll, None)

    uvloop.run(main())


async def ours(url: str, streams: int, chunks: int) -> int:
    pool = HttpPool(proxies={})
    timeouts = Timeouts(first_byte=60, idle=60)

    async def one() -> int:
        parser = StreamParser()
        async with pool.exchange("POST", url, HEADERS, BODY, timeouts, parser.feed) as ex:
            await ex.done()
        parser.finish()
        parser.reply()
        return parser.chunks

    counts = await asyncio.gather(*(one() for _ in range(streams)))
    await pool.aclose()
    return sum(counts)


async def with_aiohttp(url: str, streams: int, chunks: int) -> int:
    timeout = aiohttp.ClientTimeout(total=None, sock_read=60)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:

        async def one() -> int:
            parser = StreamParser()
            async with session.post(url, headers=HEADERS, data=BODY) as reply:
                async for data in reply.content.iter_any():
                    parser.feed(data)
            parser.finish()
            parser.reply()
            return parser.chunks

        return sum(await asyncio.gather(*(one() for _ in range(streams))))


async def with_aiohttp_by_lines(url: str, streams: int, chunks: int) -> int:
    """As most clients are written: a line, then its JSON."""
    timeout = aiohttp.ClientTimeout(total=None, sock_read=60)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:

        async def one() -> int:
            texts: list[str] = []
            seen = 0
            async with session.post(url, headers=HEADERS, data=BODY) as reply:
                async for line in reply.content:
                    if line.startswith(b"data: {"):
                        seen += 1
                        chunk = orjson.loads(line[6:])
                        texts.append(chunk["choices"][0]["delta"].get("content") or "")
            return seen

        return sum(await asyncio.gather(*(one() for _ in range(streams))))


async def floor(url: str, streams: int, chunks: int) -> int:
    """Nothing but the loop and the socket: what no client in Python can undercut."""
    host, _, path = url.removeprefix("http://").partition("/")
    loop = asyncio.get_running_loop()

    class Reader(asyncio.Protocol):
        def __init__(self) -> None:
            self.ended = loop.create_future()

        def connection_made(self, transport: Any) -> None:
            transport.write(f"POST /{path} HTTP/1.1\r\ncontent-length: {len(BODY)}\r\n\r\n".encode() + BODY)

        def data_received(self, data: bytes) -> None:
            if data.endswith(b"0\r\n\r\n") and not self.ended.done():
                self.ended.set_result(None)

    async def one() -> int:
        transport, reader = await loop.create_connection(Reader, *host.split(":"))
        await reader.ended
        transport.abort()
        return chunks + 2

    return sum(await asyncio.gather(*(one() for _ in range(streams))))


async def ours_plain(url: str, streams: int, chunks: int) -> int:
    pool = HttpPool(proxies={})

    async def one() -> int:
        for _ in range(chunks):
            async with pool.exchange("POST", url, HEADERS, BODY, Timeouts(first_byte=60)) as ex:
                parse_reply(await ex.read())
        return chunks

    counts = await asyncio.gather(*(one() for _ in range(streams)))
    await pool.aclose()
    return sum(counts)


async def aiohttp_plain(url: str, streams: int, chunks: int) -> int:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def one() -> int:
            for _ in range(chunks):
                async with session.post(url, headers=HEADERS, data=BODY) as reply:
                    parse_reply(await reply.read())
            return chunks

        return sum(await asyncio.gather(*(one() for _ in range(streams))))


STREAMING: dict[str, Client] = {
    "ours": ours,
    "the socket alone": floor,
    "aiohttp": with_aiohttp,
    "aiohttp by lines": with_aiohttp_by_lines,
}
SCENARIOS: dict[str, dict[str, Client]] = {
    "paced": STREAMING,
    "burst": STREAMING,
    "plain": {"ours": ours_plain, "aiohttp": aiohttp_plain},
}


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measure(client: Client, url: str, streams: int, chunks: int) -> float:
    """Return microseconds of CPU per chunk, or per request."""
    gc.collect()
    began = cpu()
    count = uvloop.run(client(url, streams, chunks))  # type: ignore[arg-type]
    return (cpu() - began) / count * 1e6


def parser_alone(rounds: int) -> None:
    """The stream's parser without any socket: an event per call, all in one, and a pattern that never repeats."""
    plain = [_unframed(_event({"content": f" word{n}"})) for n in range(1000)]
    odd = [event.replace(b'"created":17', b'"created":17,"obfuscation":"%d"' % n) for n, event in enumerate(plain)]
    cases = {"an event a call": plain, "all in one call": [b"".join(plain)], "no pattern": odd}
    for name, pieces in cases.items():
        best = float("inf")
        for _ in range(rounds * 4):
            parser = StreamParser()
            began = time.process_time()
            for piece in pieces:
                parser.feed(piece)
            best = min(best, time.process_time() - began)
        print(f"parser {name:17} {best / 1000 * 1e6:7.2f} µs of CPU per chunk")


def _unframed(event: bytes) -> bytes:
    return event.partition(b"\r\n")[2].removesuffix(b"\r\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--chunks", type=int, default=100)
    parser.add_argument("--every", type=float, default=0.01)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    parser_alone(args.rounds)
    pipe, theirs = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs, args.chunks, args.every))
    server.start()
    port = pipe.recv()
    try:
        for scenario, clients in SCENARIOS.items():
            url = f"http://127.0.0.1:{port}/{scenario}"
            best = dict.fromkeys(clients, float("inf"))
            for _ in range(args.rounds):
                for name, client in clients.items():
                    best[name] = min(best[name], measure(client, url, args.streams, args.chunks))
            unit = "request" if scenario == "plain" else "chunk"
            for name, cost in best.items():
                print(f"{scenario:6} {name:17} {cost:7.2f} µs of CPU per {unit}, {cost / best['ours']:5.2f} × ours")
    finally:
        pipe.send(None)
        server.join(5)
        server.terminate()


if __name__ == "__main__":
    main()
