"""Where a server listens, and who can reach it there."""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import Any

from dspy_live.core.errors import ConfigurationError
from dspy_live.runtime.vanished import notice_silence

BACKLOG = 4096
"""Connections that may wait to be accepted."""


def is_loopback(host: str) -> bool:
    """True for an address that only this machine reaches."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket, which child processes inherit; port 0 takes a free one.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` that says what is in the way.
    """
    family, address = resolved(host, port)
    try:
        listener = socket.create_server(address, family=family, backlog=BACKLOG)
    except OSError as exc:
        why = os.strerror(exc.errno) if exc.errno else exc
        raise ConfigurationError(f"can't listen on {host} port {port}: {why}; take another") from None
    notice_silence(listener)
    listener.set_inheritable(True)
    return listener


def resolved(host: str, port: int) -> tuple[socket.AddressFamily, Any]:
    """Return the family and the address of a host and a port to listen on."""
    if not 0 <= port <= 65_535:  # getaddrinfo takes what is left over
        raise ConfigurationError(f"a port is a number from 0 to 65535; got {port}")
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as exc:
        why = getattr(exc, "strerror", None) or exc
        raise ConfigurationError(f"{host!r} is no address to listen on: {why}") from None
    # localhost is two addresses, and not every client tries the second one.
    family, _, _, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    return family, address


def url_of(listener: socket.socket, *, tls: bool = False) -> str:
    """Return the URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
