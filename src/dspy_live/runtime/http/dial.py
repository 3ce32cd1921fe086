"""A TCP connection to a host that may have several addresses, some of them dead (RFC 8305, "happy eyeballs").

Ours and not the loop's, because uvloop tries the addresses one after the other: a host with a dead
IPv6 address would cost a whole TCP timeout before its IPv4 address is tried.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import Sequence
from typing import Any, TypeAlias

Address: TypeAlias = tuple[int, int, int, str, Any]
"""What ``getaddrinfo`` gives: family, type, protocol, canonical name, socket address."""

STAGGER = 0.25
"""Seconds before the next address is tried as well, as the RFC recommends."""


async def dial(protocol: asyncio.Protocol, host: str, port: int, *, stagger: float = STAGGER) -> None:
    """Connect ``protocol`` to a host. Raises ``OSError``, of the first address where all of them fail.

    Cancelling it closes every socket that it has opened.
    """
    loop = asyncio.get_running_loop()
    if _is_literal(host):
        await loop.create_connection(lambda: protocol, host, port)
        return
    addresses = interleaved(await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    sock = await race(addresses, stagger=stagger)
    try:
        await loop.create_connection(lambda: protocol, sock=sock)
    except BaseException:
        sock.close()
        raise


def interleaved(addresses: Sequence[Address]) -> list[Address]:
    """Return the addresses with the families in turns, the first one's first, each otherwise in its order."""
    families: dict[int, list[Address]] = {}
    for address in addresses:
        families.setdefault(address[0], []).append(address)
    turns = itertools.zip_longest(*families.values())
    return [address for turn in turns for address in turn if address is not None]


async def race(addresses: Sequence[Address], *, stagger: float) -> socket.socket:
    """Return a socket that is connected to the first address that answers; the next one starts after
    ``stagger`` seconds, or at once when all before it have failed."""
    running: set[asyncio.Task[socket.socket]] = set()
    errors: list[OSError] = []
    try:
        for address in addresses:
            running.add(asyncio.ensure_future(_connect(address)))
            winner = await _first(running, errors, stagger)
            if winner is not None:
                return winner
        while running:
            winner = await _first(running, errors, None)
            if winner is not None:
                return winner
    finally:
        await _call_off(running)
    raise errors[0] if errors else OSError("the host has no address")


async def _first(
    running: set[asyncio.Task[socket.socket]], errors: list[OSError], limit: float | None
) -> socket.socket | None:
    """Wait for an end: of one that connected, of all, or of the time. Those that end are taken from ``running``."""
    loop = asyncio.get_running_loop()
    until = None if limit is None else loop.time() + limit
    while running:
        left = None if until is None else max(0.0, until - loop.time())
        done, _ = await asyncio.wait(running, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            return None
        for task in done:
            error = task.exception()
            if error is None:
                running.discard(task)
                return task.result()
        for task in done:
            running.discard(task)
            error = task.exception()
            if not isinstance(error, OSError):
                raise error or AssertionError
            errors.append(error)
    return None


async def _call_off(running: set[asyncio.Task[socket.socket]]) -> None:
    """Cancel the others; one of them may have connected in the meantime."""
    for task in running:
        task.cancel()
    if running:
        for result in await asyncio.gather(*running, return_exceptions=True):
            if isinstance(result, socket.socket):
                result.close()


async def _connect(address: Address) -> socket.socket:
    family, kind, protocol, _, target = address
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, target)
    except BaseException:
        sock.close()
        raise
    return sock


def _is_literal(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            socket.inet_pton(family, host)
            return True
    return False
