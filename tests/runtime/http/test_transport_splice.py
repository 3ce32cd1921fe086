"""What a splice does to the connection and the loop that it belongs to."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import resource
import socket
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.http.certificates import Authority
from tests.runtime.http.peer import CHUNKED, END, Peer, chunk, until
from tests.runtime.http.splice_reading import TEXT, WORDS, Pipe, Reading, falling_silent, lm, pool_and
from tests.server.splice_lm import FINISHED, compiled, event

from dspy_live.runtime.http import splice as splices
from dspy_live.runtime.http.connection import Connection
from dspy_live.runtime.http.errors import PoolClosed
from dspy_live.runtime.http.pool import HttpPool, Route
from dspy_live.runtime.http.splice import LoopSplicer
from dspy_live.runtime.http.tls import TlsOptions


@pytest.fixture
def pipe() -> Any:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield Pipe(ours.fileno())


async def test_a_kept_connection_holds_nothing_of_the_stream_that_was_spliced(pipe: Pipe) -> None:
    peer = lm()
    async with pool_and(peer) as pool:
        reading = Reading(pool, peer, pipe)
        assert await reading.read() == TEXT
        assert reading.splicer.passed > 10
        assert pool.statistics().idle == 1
        held = weakref.ref(reading.parser)
        gc.disable()
        try:
            del reading
            await asyncio.sleep(0)  # for what was to begin in this turn
            assert held() is None
        finally:
            gc.enable()


async def test_a_splice_that_was_just_ended_does_not_begin_before_what_it_has_read_is_used() -> None:
    """Two pieces may come in one turn of the loop, and somebody may want the socket back in the next."""
    begun = []

    class Wish:
        wanted = True

        def begin(self) -> None:
            if connection.descriptor() is not None:
                begun.append(1)
                connection.lend(self)  # type: ignore[arg-type]
                connection.returned()  # at once: somebody writes

    class Reader:
        def begin(self, *_: object) -> None: ...
        def received(self, data: bytes) -> None: ...

    class Socket:
        def fileno(self) -> int:
            return 3

    class Transport:
        def write(self, data: bytes) -> None: ...
        def pause_reading(self) -> None: ...
        def is_closing(self) -> bool:
            return False

        def get_extra_info(self, name: str) -> Any:
            return Socket() if name == "socket" else None

    connection = Connection(lambda _: None, Route("http", "lm", 80, None, TlsOptions()))
    connection.connection_made(Transport())  # type: ignore[arg-type]
    connection.start(Reader(), b"", b"")  # type: ignore[arg-type]
    connection.data_received(CHUNKED)
    connection.wish = Wish()  # type: ignore[assignment]
    connection.data_received(WORDS[0])
    connection.data_received(WORDS[1])
    await asyncio.sleep(0)
    assert begun == [1]
    connection.data_received(WORDS[2])
    await asyncio.sleep(0)
    assert begun == [1, 1]


async def test_a_loops_splicer_keeps_nothing_of_the_stream_that_was_first() -> None:
    class Held:
        pass

    variable: contextvars.ContextVar[Held] = contextvars.ContextVar("variable")
    pool = HttpPool()

    async def first() -> weakref.ref[Held]:
        held = Held()
        variable.set(held)
        assert pool.splicer() is not None
        return weakref.ref(held)

    with compiled(True):
        held = await asyncio.create_task(first())
    await asyncio.sleep(0)  # the task's last step has ended
    gc.collect()
    assert held() is None
    await pool.aclose()


async def test_with_no_descriptor_left_streams_go_on_through_python(
    pipe: Pipe, caplog: pytest.LogCaptureFixture
) -> None:
    peer = lm()
    async with pool_and(peer) as pool:
        assert await Reading(pool, peer, pipe).read() == TEXT  # the connection is there
        reading = Reading(pool, peer, pipe)
        passed = reading.splicer.passed
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        with caplog.at_level(logging.WARNING, "dspy_live"):
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
            try:
                assert await reading.read() == TEXT
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert reading.splicer.passed == passed
        assert pipe.borrower is None
    assert len([record for record in caplog.records if "spliced" in record.message]) == 1


async def test_so_many_streams_are_spliced_as_leave_descriptors_for_others(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = lm()
    monkeypatch.setattr(splices, "SHARE", 10**9)
    async with pool_and(peer) as pool:
        reading = Reading(pool, peer, pipe)
        assert reading.splicer.most == 1
        assert await reading.read() == TEXT
        assert reading.splicer.passed > 0
        lent = pipe.lent
        monkeypatch.setattr(LoopSplicer, "__len__", lambda _: 1)
        monkeypatch.setattr(LoopSplicer, "full", property(lambda _: True))
        assert await Reading(pool, peer, pipe).read() == TEXT
        assert pipe.lent == lent


async def test_an_lm_that_writes_much_at_once_and_then_waits_is_read_to_the_end(pipe: Pipe) -> None:
    """More than is read in one turn waits in the socket, and nothing more comes that would tell of it."""
    more = asyncio.Event()
    burst = chunk(event("x" * 500)) * 1000

    async def answer(peer: Peer, reader: Any, writer: Any) -> None:
        await peer.read(reader)
        for part in (CHUNKED, *WORDS[:10]):
            writer.write(part)
            await asyncio.sleep(0.001)
        await until(lambda: len(reading.splicer) == 1)
        writer.write(burst)
        await more.wait()
        writer.write(b"".join([*map(chunk, FINISHED), END]))

    peer = Peer(answer)
    async with pool_and(peer) as pool:
        reading = Reading(pool, peer, pipe)
        whole = asyncio.create_task(reading.read())
        # The client takes nothing of it: its splice ends, and the rest is read by Python.
        await until(lambda: reading.parser.chunks >= 10)
        more.set()
        assert len(await whole) == len("".join(f"word{n} " for n in range(10))) + 500_000


async def test_what_comes_encrypted_is_not_spliced(pipe: Pipe, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    peer = lm(tls=authority.server("127.0.0.1"))
    async with pool_and(peer) as pool:
        reading = Reading(pool, peer, pipe, tls=TlsOptions(ca=str(authority.file)))
        assert await reading.read() == TEXT
        assert reading.splicer.passed == 0


async def test_an_exchange_that_is_left_while_it_is_spliced_frees_both_sockets(pipe: Pipe) -> None:
    peer, said = falling_silent()
    async with pool_and(peer) as pool:
        reading = Reading(pool, peer, pipe)
        whole = asyncio.create_task(reading.read())
        await until(lambda: said.is_set() and len(reading.splicer) == 1)
        whole.cancel()
        assert await peer.sees_close_at_once()
        assert len(reading.splicer) == 0
        assert pipe.borrower is None


async def test_a_pool_that_closes_gives_all_streams_back(pipe: Pipe) -> None:
    peer, said = falling_silent()
    async with pool_and(peer) as pool:
        reading = Reading(pool, peer, pipe)
        whole = asyncio.create_task(reading.read())
        await until(lambda: said.is_set() and len(reading.splicer) == 1)
        await pool.aclose()
        with pytest.raises(PoolClosed):
            await whole
        assert len(reading.splicer) == 0
        assert pipe.borrower is None


def test_loops_of_several_threads_have_splicers_of_their_own() -> None:
    found: list[tuple[str, int]] = []

    def run(go: Any) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)

        async def main() -> None:
            peer = lm()
            await peer.start()
            pool = HttpPool()
            reading = Reading(pool, peer, Pipe(ours.fileno()))
            found.append((await reading.read(), reading.splicer.passed))
            await pool.aclose()
            await peer.stop()

        with ours, theirs:
            go.wait()
            asyncio.run(main())

    with compiled(True):
        go = threading.Barrier(4)
        threads = [threading.Thread(target=run, args=(go,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert [text for text, _ in found] == [TEXT] * 4
    assert all(0 < passed <= 40 for _, passed in found)
