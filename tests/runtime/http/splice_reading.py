"""One streamed reply of an LM, read over a pool and spliced to one end of a socket pair."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.runtime.http.peer import CHUNKED, END, Peer, chunk
from tests.server.splice_lm import FINISHED, compiled, event

from dspy_live.core.outlet import Outlet
from dspy_live.runtime.http.pool import HttpPool
from dspy_live.runtime.http.splice import Splice
from dspy_live.runtime.http.tls import TlsOptions
from dspy_live.sansio.openai import StreamParser

WORDS = [chunk(event(f"word{n} ")) for n in range(40)]


class Pipe:
    """A loan of one end of a socket pair."""

    before, middle, after, seq = b"", b"", b"\n", None

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.lent = 0
        self.borrower: Any = None

    def descriptor(self, borrower: Any) -> int:
        self.lent += 1
        self.borrower = borrower
        return self._descriptor

    def returned(self, frames: int, size: int, unsent: bytes) -> None:
        self.borrower = None


class Reading:
    """One streamed reply, read as an endpoint of an LM reads it."""

    def __init__(self, pool: HttpPool, peer: Peer, pipe: Pipe, tls: TlsOptions | None = None) -> None:
        self.parser = StreamParser()
        self.exchange = pool.exchange("POST", peer.url, tls=tls or TlsOptions())
        splicer = pool.splicer()
        assert splicer is not None
        self.splicer = splicer
        self.pipe = pipe

    def outlet(self) -> Outlet:
        return Outlet(self.pipe)

    async def read(self) -> str:
        async with self.exchange as exchange:
            await exchange.headers_received()
            exchange.on_body = self.parser.feed
            exchange.wish(Splice(self.splicer, exchange, self.parser, self.outlet))
            await exchange.done()
        self.parser.finish()
        text: str = self.parser.reply()["choices"][0]["message"]["content"]
        return text


def lm(tls: ssl.SSLContext | None = None) -> Peer:
    async def answer(peer: Peer, reader: Any, writer: Any) -> None:
        while await peer.read(reader):
            for part in (CHUNKED, *WORDS, *map(chunk, FINISHED), END):
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.001)

    return Peer(answer, tls=tls)


def falling_silent() -> tuple[Peer, asyncio.Event]:
    """An LM that says ten words and then waits for its client's leaving; the event is set after the words."""
    said = asyncio.Event()

    async def answer(peer: Peer, reader: Any, writer: Any) -> None:
        await peer.read(reader)
        for part in (CHUNKED, *WORDS[:10]):
            writer.write(part)
            await asyncio.sleep(0.001)
        said.set()
        await peer.see_close(reader)

    return Peer(answer), said


TEXT = "".join(f"word{n} " for n in range(40))


@asynccontextmanager
async def pool_and(peer: Peer) -> AsyncIterator[HttpPool]:
    """A pool with the compiled part; both are closed whatever comes."""
    await peer.start()
    pool = HttpPool()
    try:
        with compiled(True):
            yield pool
    finally:
        await pool.aclose()
        await peer.stop()
