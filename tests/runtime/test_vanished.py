"""Connections ask a silent peer for a sign of life; over real machines ``tests/network`` shows what comes of it."""

from __future__ import annotations

import socket

import pytest

from dspy_live.cli.workers.port import socket_beside, take_port
from dspy_live.runtime.http.transport import HttpPool
from dspy_live.runtime.vanished import ASK_AFTER, TAKEN_IN, postgres_options
from dspy_live.server.transport.address import listen
from dspy_live.simulator.server import Simulator


def _asks(one: socket.socket) -> bool:
    after = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
    return bool(one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)) and after == ASK_AFTER


@pytest.mark.parametrize("workers", [False, True])
def test_a_connection_that_a_server_accepts_asks_for_a_sign_of_life_and_waits_for_slow_readers(workers: bool) -> None:
    held = take_port("127.0.0.1", 0) if workers else listen("127.0.0.1", 0)
    with held, socket_beside(held) if workers else held as listener:
        listener.listen()
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
            assert _asks(accepted)
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0


async def test_a_connection_to_an_lm_ends_where_its_machine_takes_nothing_in() -> None:
    pool = HttpPool(proxies={})
    async with Simulator() as lm:
        async with pool.exchange("GET", f"{lm.url}/models", {}, b"") as exchange:
            await exchange.read()
        (connection,) = pool._open
        assert connection.transport is not None
        one = connection.transport.get_extra_info("socket")
        assert _asks(one)
        assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == TAKEN_IN * 1000
        await pool.aclose()


def test_what_the_url_of_a_database_says_itself_stays() -> None:
    options = postgres_options("postgresql://db/live?tcp_user_timeout=90000&sslmode=require", 5.0)
    assert options["connect_timeout"] == 5
    assert "tcp_user_timeout" not in options
    assert postgres_options("postgresql://db/live", 0.5)["tcp_user_timeout"] == 1000
