"""Leaving, cancelling, waiting too long, and reading slowly: what the peer sees of it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import pytest
from tests.runtime.http.clock import Clock
from tests.runtime.http.deaf import Deaf, url_of
from tests.runtime.http.peer import CHUNKED, END, Peer, chunk, reply, until
from tests.support.until import BOUND

from dspy_live.runtime.http.transport import (
    ConnectionBroken,
    ConnectTimeout,
    FirstByteTimeout,
    HttpPool,
    IdleTimeout,
    Timeouts,
)


def stalls(wire: bytes) -> Any:
    """Read a request, send ``wire``, and wait for the client to leave."""

    async def script(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await peer.read(reader)
        writer.write(wire)
        await peer.see_close(reader)

    return script


STAGES = {"no reply": b"", "half a head": b"HTTP/1.1 200", "head": CHUNKED, "body": CHUNKED + chunk(b"x")}


@pytest.mark.parametrize("stage", STAGES)
async def test_the_peer_sees_a_cancellation_at_once(pool: HttpPool, peer: Any, stage: str) -> None:
    one = await peer(stalls(STAGES[stage]))

    async def ask() -> None:
        async with pool.exchange("POST", one.url, {}, b"{}", on_body=lambda data: None) as ex:
            await ex.done()

    task = asyncio.create_task(ask())
    await until(lambda: one.requests)
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await one.sees_close_at_once()
    counts = pool.statistics()
    assert (counts.idle, counts.exchanges) == (0, 0)


@pytest.mark.parametrize("stage", STAGES)
async def test_the_peer_sees_an_early_leave_at_once(pool: HttpPool, peer: Any, stage: str) -> None:
    one = await peer(stalls(STAGES[stage]))
    async with pool.exchange("POST", one.url, {}, b"{}"):
        await until(lambda: one.requests)
        await asyncio.sleep(0.01)
    assert await one.sees_close_at_once()


async def test_abort_ends_a_waiting_task_and_may_come_from_the_callback(pool: HttpPool, peer: Any) -> None:
    one = await peer(stalls(CHUNKED + chunk(b"x") + chunk(b"y")))
    async with pool.exchange("POST", one.url) as ex:
        got: list[bytes] = []

        def take(data: bytes) -> None:
            got.append(data)
            ex.abort()

        ex.on_body = take
        with pytest.raises(ConnectionBroken, match="aborted by us"):
            await ex.done()
        await one.closing()
        ex.abort()
        ex.pause()
        ex.resume()
    assert got == [b"xy"]


async def test_several_tasks_may_wait_and_one_of_them_may_be_cancelled(pool: HttpPool, peer: Any) -> None:
    gate = asyncio.Event()

    async def script(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await peer.read(reader)
        await gate.wait()
        writer.write(reply(b"x"))
        await peer.see_close(reader)

    one = await peer(script)
    async with pool.exchange("POST", one.url, on_body=lambda data: None) as ex:
        waiting = [asyncio.create_task(ex.headers_received()), *(asyncio.create_task(ex.done()) for _ in range(3))]
        await asyncio.sleep(0.005)
        waiting[1].cancel()
        gate.set()
        results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(r) for r in results] == [type(None), asyncio.CancelledError, type(None), type(None)]


async def test_cancelled_while_connecting(pool: HttpPool) -> None:
    """The listener's queue is full, so that the connection neither stands nor fails."""
    with Deaf() as address:
        url = url_of(address)

        async def ask() -> None:
            async with pool.exchange("POST", url, timeouts=Timeouts(connect=None)):
                pass

        task = asyncio.create_task(ask())
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    counts = pool.statistics()
    assert (counts.open, counts.exchanges) == (0, 0)


async def test_cancelled_at_any_turn_of_the_loop_no_connection_stays_behind(pool: HttpPool, peer: Any) -> None:
    """One of these turns lies between the end of the connecting and the caller that hears of it."""
    closed: list[bool] = []

    async def note_close(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while await reader.read(1000):
                pass
        closed.append(True)

    one = await peer(note_close)

    async def ask() -> None:
        async with pool.exchange("POST", one.url, {}, b"{}", on_body=lambda data: None) as ex:
            await ex.done()

    for turns in range(30):
        task = asyncio.create_task(ask())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await until(lambda: one.connections and len(closed) == one.connections)
    assert pool.statistics().open == 0


async def test_connect_timeout(pool: HttpPool) -> None:
    with Deaf() as address:
        url = url_of(address)
        began = time.monotonic()
        with pytest.raises(ConnectTimeout, match=r"no connection within 0\.05 s"):
            async with pool.exchange("POST", url, timeouts=Timeouts(connect=0.05)):
                pass
        assert 0.04 < time.monotonic() - began < BOUND
    assert pool.statistics().exchanges == 0


async def test_silence_is_measured_by_the_loops_clock(pool: HttpPool, peer: Any) -> None:
    one = await peer(stalls(b""))
    began = time.monotonic()
    with pytest.raises(FirstByteTimeout, match=r"within 0\.1 s of the request"):
        async with pool.exchange("POST", one.url, timeouts=Timeouts(first_byte=0.1)) as ex:
            await ex.done()
    assert time.monotonic() - began >= 0.09
    await one.closing()


@pytest.mark.parametrize("stage", ["no reply", "half a head", "head"])
async def test_first_byte_timeout(pool: HttpPool, peer: Any, clock: Clock, stage: str) -> None:
    """The head is no sign of life: many LM servers send it before they think."""
    one = await peer(stalls(STAGES[stage]))
    async with pool.exchange("POST", one.url, timeouts=Timeouts(first_byte=60)) as ex:
        await until(lambda: one.requests)
        if stage == "head":
            await ex.headers_received()
        clock.pass_time(59)
        assert pool.statistics().exchanges == 1
        clock.pass_time(1)
        with pytest.raises(FirstByteTimeout, match="within 60 s of the request") as caught:
            await ex.done()
    assert caught.value.received == (stage == "head")
    await one.closing()


def drips(pieces: int, *, end: bool = True, go_on: asyncio.Semaphore | None = None) -> Any:
    """Send so many pieces, each when ``go_on`` lets it."""

    async def script(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await peer.read(reader)
        writer.write(CHUNKED)
        for _ in range(pieces):
            if go_on is not None:
                await go_on.acquire()
            writer.write(chunk(b"x"))
        if end:
            writer.write(END)
        await peer.see_close(reader)

    return script


async def test_idle_timeout(pool: HttpPool, peer: Any, clock: Clock) -> None:
    one = await peer(drips(3, end=False))
    got: list[bytes] = []
    timeouts = Timeouts(first_byte=100, idle=5)
    async with pool.exchange("POST", one.url, timeouts=timeouts, on_body=got.append) as ex:
        await until(lambda: b"".join(got) == b"xxx")
        clock.pass_time(4.9)
        assert pool.statistics().exchanges == 1
        clock.pass_time(0.1)
        with pytest.raises(IdleTimeout, match="nothing came for 5 s in the middle"):
            await ex.done()
    await one.closing()


async def test_a_slow_but_steady_stream_is_not_idle(pool: HttpPool, peer: Any, clock: Clock) -> None:
    """In all a minute, longer than either timeout."""
    go_on, got = asyncio.Semaphore(0), list[bytes]()
    one = await peer(drips(16, go_on=go_on))
    timeouts = Timeouts(first_byte=5, idle=5)
    async with pool.exchange("POST", one.url, timeouts=timeouts, on_body=got.append) as ex:
        for pieces in range(16):
            clock.pass_time(4)
            go_on.release()
            await until(lambda pieces=pieces: len(got) > pieces)
        await ex.done()
    assert b"".join(got) == b"x" * 16


async def test_time_while_paused_is_not_silence(pool: HttpPool, peer: Any, clock: Clock) -> None:
    one = await peer(drips(2))
    async with pool.exchange("POST", one.url, timeouts=Timeouts(first_byte=5, idle=5)) as ex:
        ex.pause()
        clock.pass_time(100)
        assert ex.status == 0
        ex.resume()
        await ex.headers_received()
        ex.pause()
        clock.pass_time(100)
        ex.resume()
        assert await ex.read() == b"xx"


async def test_after_a_pause_silence_counts_again(pool: HttpPool, peer: Any, clock: Clock) -> None:
    one = await peer(drips(1, end=False))
    got: list[bytes] = []
    async with pool.exchange("POST", one.url, timeouts=Timeouts(idle=5), on_body=got.append) as ex:
        await until(lambda: got)
        ex.pause()
        clock.pass_time(8)
        ex.resume()
        clock.pass_time(4.9)
        assert pool.statistics().exchanges == 1
        clock.pass_time(0.1)
        with pytest.raises(IdleTimeout):
            await ex.done()


def floods(total: int, written: list[int]) -> Any:
    block = b"z" * 65536

    async def script(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await peer.read(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % total)
        while written[0] < total:
            writer.write(block)
            written[0] += len(block)
            await writer.drain()
        await peer.see_close(reader)

    return script


async def settled(written: list[int]) -> int:
    """Wait until the peer's writes have stopped."""
    while True:
        before = written[0]
        await asyncio.sleep(0.03)
        if written[0] == before:
            return before


async def test_while_paused_the_peers_writes_stop_and_nothing_is_lost(pool: HttpPool, peer: Any) -> None:
    total, written = 64 << 20, [0]
    one = await peer(floods(total, written))
    got = [0]
    async with pool.exchange("POST", one.url) as ex:

        def take(data: bytes) -> None:
            got[0] += len(data)
            if got[0] > 1 << 20 and not paused:
                paused.append(True)
                ex.pause()

        paused: list[bool] = []
        ex.on_body = take
        await ex.headers_received()
        await until(lambda: paused)
        stopped = await settled(written)
        assert stopped < total // 2
        assert got[0] <= (1 << 20) + (512 << 10)
        ex.resume()
        await ex.done()
    assert got[0] == total


async def test_an_untaken_body_is_not_read(pool: HttpPool, peer: Any, clock: Clock) -> None:
    total, written = 64 << 20, [0]
    one = await peer(floods(total, written))
    async with pool.exchange("POST", one.url, timeouts=Timeouts(idle=0.3)) as ex:
        await ex.headers_received()
        assert await settled(written) < total // 2
        clock.pass_time(100)  # longer than any silence may be
        assert len(await ex.read()) == total


async def test_a_connection_that_was_paused_at_its_end_is_read_again_by_the_next(pool: HttpPool, peer: Any) -> None:
    one = await peer(reply(b"x" * 10))
    async with pool.exchange("POST", one.url) as ex:
        ex.on_body = lambda data: ex.pause()
        await ex.done()
    async with pool.exchange("POST", one.url) as ex:
        assert ex.reused
        assert await ex.read() == b"x" * 10


async def test_waiting_tells_a_pause_from_the_end(pool: HttpPool, peer: Any) -> None:
    go_on = asyncio.Event()

    async def script(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await peer.read(reader)
        writer.write(CHUNKED + chunk(b"one"))
        await go_on.wait()
        writer.write(chunk(b"two") + END)
        await peer.see_close(reader)

    one = await peer(script)
    got: list[bytes] = []
    async with pool.exchange("POST", one.url, {}, b"{}") as ex:

        def received(data: bytes) -> None:
            got.append(data)
            ex.pause()
            ex.pause()

        ex.on_body = received
        assert not await ex.wait()
        assert not await ex.wait(), "it is a level: paused until resumed"
        ex.resume()
        waiting = asyncio.create_task(ex.wait())
        await asyncio.sleep(0)
        assert not waiting.done()
        go_on.set()
        assert await waiting, "the pause at the very end holds nobody up"
    assert b"".join(got) == b"onetwo"


async def test_waiting_raises_the_error_that_broke_the_reply_while_it_was_paused(pool: HttpPool, peer: Any) -> None:
    async def script(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await peer.read(reader)
        writer.write(CHUNKED + chunk(b"one"))
        await peer.see_close(reader)

    one = await peer(script)
    async with pool.exchange("POST", one.url, {}, b"{}") as ex:
        ex.on_body = lambda data: ex.pause()
        assert not await ex.wait()
        ex.abort()
        with pytest.raises(ConnectionBroken):
            await ex.wait()
