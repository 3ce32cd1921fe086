"""What tests of shared layers see of their server, and how its silences are made to begin and to end."""

from __future__ import annotations

import signal
from typing import Any

import redis
from tests.support.databases import Server

from dspy_live.runtime.stores.line import Line

PATIENCE = 30.0
"""Seconds that a test's layer waits for a server that is there: the machine may stand still for a while."""


def row(raw: redis.Redis, key: str, line: Line) -> list[float]:
    """Return what the server keeps of one process: until when it is believed to live, and then its figures."""
    kept = raw.hget(key, f"h:{line.holder}")
    return [] if kept is None else [float(part) for part in kept.split()]


def settle(raw: redis.Redis, key: str) -> None:
    """End the time for which a server that came back empty grants nothing."""
    raw.hset(key, "settled", "0")


def freeze(server: Server, line: Line, timeout: float = 0.2) -> None:
    """Stop a server as behind a cut cable; from here on the line waits no longer than ``timeout`` for it."""
    with line._alone:  # nothing is under way
        pool: Any = line._client.connection_pool
        pool.connection_kwargs.update(socket_timeout=timeout, socket_connect_timeout=timeout)
        for connection in pool._available_connections:
            connection.socket_timeout = timeout
            connection.update_current_socket_timeout(timeout)
        line.timeout = timeout
        stop(server)


def stop(server: Server) -> None:
    """Let a server stand still."""
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)


def thaw(server: Server) -> None:
    """Let a server that stands still go on."""
    if server.process is not None:
        server.process.send_signal(signal.SIGCONT)
