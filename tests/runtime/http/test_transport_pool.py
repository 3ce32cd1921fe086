"""Kept connections: reused, expired, found dead, closed with their loop."""

from __future__ import annotations

import asyncio
import errno
import gc
import threading
import weakref
from typing import Any

import pytest
import uvloop
from tests.runtime.http.peer import CHUNKED, END, Peer, chunk, reply, until
from tests.support.ports import refusing_port
from tests.support.until import BOUND

from dspy_live.runtime.http import connect
from dspy_live.runtime.http.transport import (
    ConnectFailed,
    ConnectionBroken,
    ConnectTimeout,
    HttpPool,
    PoolClosed,
    PoolRegistry,
    Timeouts,
    pool_for_running_loop,
)


async def post(pool: HttpPool, url: str, **kw: Any) -> bytes:
    async with pool.exchange("POST", url, {}, b"{}", **kw) as ex:
        return await ex.read()


async def test_one_connection_serves_one_exchange_after_another(pool: HttpPool, peer: Any) -> None:
    one = await peer(CHUNKED + chunk(b"x") + END)
    for number in range(5):
        async with pool.exchange("POST", one.url) as ex:
            assert await ex.read() == b"x"
            assert ex.reused == (number > 0)
    assert one.connections == 1
    counts = pool.statistics()
    assert (counts.open, counts.idle, counts.exchanges) == (1, 1, 0)
    assert (counts.connects, counts.reuses, counts.total_exchanges, counts.stale) == (1, 4, 5, 0)


async def test_the_connection_is_free_at_the_end_of_the_body_and_not_later(pool: HttpPool, peer: Any) -> None:
    one = await peer(reply(b"x"))
    async with pool.exchange("POST", one.url) as ex:
        await ex.done()
        await post(pool, one.url)
    assert one.connections == 1


async def test_two_hundred_at_once_and_no_cap(pool: HttpPool, peer: Any) -> None:
    gate = asyncio.Event()

    async def script(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await peer.read(reader):
            writer.write(CHUNKED + chunk(request.body))
            await gate.wait()
            writer.write(chunk(b"!") + END)

    one = await peer(script)

    async def ask(number: int) -> bytes:
        async with pool.exchange("POST", one.url, {}, b"%d" % number) as ex:
            await ex.headers_received()
            return await ex.read()

    tasks = [asyncio.create_task(ask(n)) for n in range(200)]
    await until(lambda: len(one.requests) >= 200)
    assert (pool.statistics().open, pool.statistics().exchanges) == (200, 200)
    gate.set()
    assert await asyncio.gather(*tasks) == [b"%d!" % n for n in range(200)]
    assert pool.statistics().idle == 200
    assert await ask(7) == b"7!"
    assert one.connections == 200


async def test_an_unused_connection_expires(peer: Any) -> None:
    pool = HttpPool(keep=0.05, proxies={})

    async def script(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await peer.read(reader)
        writer.write(reply(b"x"))
        await peer.see_close(reader)

    one = await peer(script)
    began = asyncio.get_running_loop().time()
    await post(pool, one.url)
    await one.closing()
    assert asyncio.get_running_loop().time() - began >= 0.045
    await asyncio.sleep(0)
    counts = pool.statistics()
    assert (counts.open, counts.idle) == (0, 0)
    await pool.aclose()


async def test_the_servers_own_keep_alive_time_counts(pool: HttpPool, peer: Any) -> None:
    """With ``timeout=1`` a second is taken off for the way, and nothing is left to keep."""
    one = await peer(reply(b"x", keep_alive="timeout=1, max=100"))
    await post(pool, one.url)
    assert pool.statistics().idle == 0
    two = await peer(reply(b"x", keep_alive="timeout=600"))
    await post(pool, two.url)
    assert pool.statistics().idle == 1


def closes_after(answers: int, *, late: bool) -> Any:
    """Answer so many requests per connection, then close it: at once, or when the next request has come."""

    async def script(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(answers):
            if not await peer.read(reader):
                return
            writer.write(reply(b"x"))
        if late:
            await peer.read(reader)

    return script


async def test_a_connection_that_the_server_closed_while_idle_is_not_used_again(pool: HttpPool, peer: Any) -> None:
    one = await peer(closes_after(1, late=False))
    for _ in range(3):
        assert await post(pool, one.url) == b"x"
        await until(lambda: not pool.statistics().idle)
    assert one.connections == 3
    assert pool.statistics().stale == 0


async def test_a_connection_whose_end_is_known_but_not_yet_reported_is_not_used_again(
    pool: HttpPool, peer: Any
) -> None:
    one = await peer(reply(b"x"))
    await post(pool, one.url)
    for connection in pool._open:
        assert connection.transport is not None
        connection.transport.close()
    assert await post(pool, one.url) == b"x"
    assert (one.connections, pool.statistics().stale) == (2, 0)


async def test_a_kept_connection_that_dies_under_a_request_is_replaced_once(pool: HttpPool, peer: Any) -> None:
    one = await peer(closes_after(1, late=True))
    assert await post(pool, one.url) == b"x"
    async with pool.exchange("POST", one.url, {}, b"{}") as ex:
        assert await ex.read() == b"x"
        assert not ex.reused
    assert (one.connections, len(one.requests)) == (2, 3)
    assert pool.statistics().stale == 1


async def test_a_replacement_that_dies_too_is_an_error(pool: HttpPool, peer: Any) -> None:
    answers = [1, 0, 0]

    async def script(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await closes_after(answers.pop(0), late=True)(peer, reader, writer)

    one = await peer(script)
    await post(pool, one.url)
    with pytest.raises(ConnectionBroken, match="before it had replied") as caught:
        await post(pool, one.url)
    assert not caught.value.received
    assert one.connections == 2


async def test_a_replacement_that_cannot_connect_is_an_error(pool: HttpPool, peer: Any) -> None:
    one = await peer(closes_after(1, late=True))
    await post(pool, one.url)
    one._server.close()
    with pytest.raises(ConnectFailed):
        await post(pool, one.url)


async def test_when_the_task_that_replaces_a_connection_is_cancelled_another_does_it(
    pool: HttpPool, peer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await peer(closes_after(1, late=True))
    await post(pool, one.url)
    connect, asked = pool._connect, asyncio.Event()

    async def slowly(*args: Any) -> Any:
        if not asked.is_set():
            asked.set()
            await asyncio.get_running_loop().create_future()
        return await connect(*args)

    monkeypatch.setattr(pool, "_connect", slowly)
    async with pool.exchange("POST", one.url, {}, b"{}", on_body=lambda data: None) as ex:
        first = asyncio.create_task(ex.headers_received())
        second = asyncio.create_task(ex.done())
        await asked.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        await second
        assert ex.status == 200


async def test_a_fresh_connection_that_dies_is_not_tried_again(pool: HttpPool, peer: Any) -> None:
    one = await peer(closes_after(0, late=True))
    with pytest.raises(ConnectionBroken):
        await post(pool, one.url)
    assert one.connections == 1


async def test_a_kept_connection_that_dies_after_a_byte_is_not_tried_again(pool: HttpPool, peer: Any) -> None:
    async def script(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await peer.read(reader)
        writer.write(reply(b"x"))
        await peer.read(reader)
        writer.write(b"H")
        await writer.drain()

    one = await peer(script)
    await post(pool, one.url)
    with pytest.raises(ConnectionBroken) as caught:
        await post(pool, one.url)
    assert caught.value.received
    assert one.connections == 1


async def test_routes_do_not_share_connections(pool: HttpPool, peer: Any) -> None:
    one = await peer(reply(b"1"))
    two = await peer(reply(b"2"))
    for _ in range(2):
        assert await post(pool, one.url) == b"1"
        assert await post(pool, two.url + "/other") == b"2"
        assert await post(pool, one.url.replace("127.0.0.1", "localhost")) == b"1"
    assert (one.connections, two.connections) == (2, 1)


async def test_ipv6(pool: HttpPool, peer: Any) -> None:
    one = await peer(reply(b"6"), host="::1")
    assert await post(pool, one.url) == b"6"
    assert one.requests[0].headers["host"] == f"[::1]:{one.port}"
    one._server.close()
    await pool.aclose()
    again = HttpPool(proxies={})
    with pytest.raises(ConnectFailed, match=rf"\[::1\]:{one.port}"):
        await post(again, one.url)


async def test_a_name_with_one_dead_address_is_reached_at_the_other(pool: HttpPool, peer: Any) -> None:
    """``localhost`` has ::1 first here; the peer listens on 127.0.0.1 alone."""
    one = await peer(reply(b"x"))
    assert await post(pool, one.url.replace("127.0.0.1", "localhost")) == b"x"


async def test_no_connection(pool: HttpPool) -> None:
    with refusing_port() as port:
        with pytest.raises(ConnectFailed, match=f"127.0.0.1:{port}: .*refused") as caught:
            await post(pool, f"http://127.0.0.1:{port}/", timeouts=Timeouts(connect=BOUND))
    assert not caught.value.received
    with pytest.raises(ConnectFailed, match=r"no-such-host\.invalid:80: the host name cannot be resolved"):
        await post(pool, "http://no-such-host.invalid/")
    counts = pool.statistics()
    assert (counts.open, counts.exchanges) == (0, 0)


async def test_the_systems_own_timeout_is_a_failure_and_not_our_limit(
    pool: HttpPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def timed_out(*args: Any) -> None:
        raise TimeoutError(errno.ETIMEDOUT, "Connect call failed")

    monkeypatch.setattr(connect, "dial", timed_out)
    for limit in (None, 10):
        with pytest.raises(ConnectFailed, match=r"127\.0\.0\.1:80: Connection timed out") as caught:
            await post(pool, "http://127.0.0.1/", timeouts=Timeouts(connect=limit))
        assert not isinstance(caught.value, ConnectTimeout)


async def test_a_server_that_hangs_up_in_the_middle_of_a_large_request(pool: HttpPool, peer: Any) -> None:
    """It ends its side and reads no more; the rest of the request is never taken."""

    async def script(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write_eof()
        await asyncio.sleep(60)

    one = await peer(script)
    async with asyncio.timeout(BOUND):
        with pytest.raises(ConnectionBroken, match="before it had replied"):
            async with pool.exchange("POST", one.url, {}, b"x" * 50_000_000) as ex:
                await ex.done()


async def test_closing_the_pool_ends_running_exchanges_and_closes_idle_connections(peer: Any) -> None:
    async def script(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await peer.read(reader)
        writer.write(reply(b"x"))
        await peer.read(reader)
        await peer.see_close(reader)

    one = await peer(script)
    pool = HttpPool(proxies={})
    two = asyncio.create_task(post(pool, one.url))
    await two
    running = asyncio.create_task(post(pool, one.url))
    await asyncio.sleep(0.01)
    await pool.aclose()
    with pytest.raises(PoolClosed):
        await running
    await one.closing()
    assert pool.statistics().open == 0
    with pytest.raises(PoolClosed):
        await post(pool, one.url)
    await pool.aclose()


async def test_a_pool_is_of_one_loop(peer: Any) -> None:
    one = await peer(reply(b"x"))
    pool = HttpPool(proxies={})

    def elsewhere() -> str:
        try:
            asyncio.run(post(pool, one.url))
        except RuntimeError as exc:
            return str(exc)
        return "no error"

    assert "another event loop" in await asyncio.to_thread(elsewhere)
    await pool.aclose()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_each_loop_has_its_own_pool_which_ends_with_it(run: Any) -> None:
    """Warnings are errors here: a socket left open would be one."""
    registry = PoolRegistry()
    pools: list[HttpPool] = []
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def main() -> None:
        pool = registry.get()
        assert registry.get() is pool
        pools.append(pool)
        loops.append(weakref.ref(asyncio.get_running_loop()))
        one = Peer(reply(b"x"))
        await one.start()
        await post(pool, one.url)
        assert pool.statistics().idle == 1
        await one.stop()

    for _ in range(2):
        run(main())
    threads = [threading.Thread(target=run, args=(main(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, pools))) == 5
    assert all(p.closed and p.statistics().open == 0 for p in pools)
    assert len(registry) == 0
    pools.clear()
    gc.collect()
    assert [loop() for loop in loops] == [None] * 5


def test_a_loop_that_was_closed_without_its_generators_is_forgotten() -> None:
    registry = PoolRegistry()

    async def main() -> HttpPool:
        return registry.get()

    loop = asyncio.new_event_loop()
    pool = loop.run_until_complete(main())
    loop.close()
    assert len(registry) == 1
    other = asyncio.new_event_loop()
    assert other.run_until_complete(main()) is not pool
    assert len(registry) == 1
    other.run_until_complete(other.shutdown_asyncgens())
    other.close()
    assert len(registry) == 0


async def test_a_loops_pool_is_made_again_after_it_was_closed() -> None:
    pool = pool_for_running_loop()
    assert pool_for_running_loop() is pool
    await pool.aclose()
    assert pool_for_running_loop() is not pool
    await pool_for_running_loop().aclose()


def test_there_is_no_pool_without_a_loop() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        pool_for_running_loop()


async def test_each_request_has_its_own_headers_and_length_however_many_heads_are_remembered(
    pool: HttpPool, peer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dspy_live.runtime.http.pool._MOST_REMEMBERED", 3)
    one = await peer(reply(b"x"))
    sent = [(f"/{n % 5}", {"X-Number": str(n % 4)}, b"b" * (n % 7)) for n in range(40)]
    for path, headers, body in sent:
        async with pool.exchange("POST", one.url + path, headers, body) as ex:
            assert await ex.read() == b"x"
    for (path, headers, body), request in zip(sent, one.requests, strict=True):
        assert request.line == f"POST /v1/chat{path} HTTP/1.1"
        assert request.headers["x-number"] == headers["X-Number"]
        assert (request.headers["content-length"], request.body) == (str(len(body)), body)
    assert one.connections == 1
