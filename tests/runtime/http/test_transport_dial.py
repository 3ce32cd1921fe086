"""A host with several addresses, some of them dead."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from tests.runtime.http.deaf import Deaf, at
from tests.runtime.http.peer import reply
from tests.support.ports import refusing_port
from tests.support.until import BOUND

from dspy_live.runtime.http.dial import dial, interleaved, race


def test_families_take_turns_and_the_first_stays_first() -> None:
    six = [(socket.AF_INET6, 1, 6, "", (f"::{n}", 1)) for n in range(3)]
    four = [at(1), at(2)]
    assert interleaved([*six, *four]) == [six[0], four[0], six[1], four[1], six[2]]
    assert interleaved([]) == []


async def test_a_refused_address_costs_no_time(peer: Any) -> None:
    one = await peer(reply())
    with refusing_port() as port:
        sock = await asyncio.wait_for(race([at(port), at(one.port)], stagger=1000), BOUND)
    with sock:
        assert sock.getpeername()[1] == one.port


async def test_a_deaf_address_costs_the_stagger_and_no_more(peer: Any) -> None:
    one = await peer(reply())
    with Deaf() as deaf:
        sock = await asyncio.wait_for(race([deaf, at(one.port)], stagger=0.02), BOUND)
    with sock:
        assert sock.getpeername()[1] == one.port


async def test_when_all_fail_the_first_error_is_said() -> None:
    with refusing_port() as one, refusing_port() as two, pytest.raises(ConnectionRefusedError):
        await race([at(one), at(two)], stagger=0.01)
    with pytest.raises(OSError, match="no address"):
        await race([], stagger=0.01)


async def test_cancelling_leaves_no_socket_open() -> None:
    """Warnings are errors here: a socket that is only collected would be one."""
    with Deaf() as one, Deaf() as two:
        task = asyncio.ensure_future(race([one, two], stagger=0.01))
        await asyncio.sleep(0.03)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert len(asyncio.all_tasks()) == 1


async def test_an_address_needs_no_name_service(monkeypatch: pytest.MonkeyPatch, peer: Any) -> None:
    one = await peer(reply())

    async def forbidden(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("asked for the addresses of an address")

    loop = asyncio.get_running_loop()
    made: list[asyncio.BaseTransport] = []

    class Made(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.append(transport)

    if isinstance(loop, asyncio.BaseEventLoop):  # uvloop's methods cannot be replaced
        monkeypatch.setattr(loop, "getaddrinfo", forbidden)
    await dial(Made(), "127.0.0.1", one.port)
    await dial(Made(), "127.0.0.1", one.port)
    assert len(made) == 2
    for transport in made:
        transport.abort()  # type: ignore[attr-defined]
    await asyncio.sleep(0)
