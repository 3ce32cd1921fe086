"""The port of a server with several workers: taken by it alone, and listened on by each of its workers."""

from __future__ import annotations

import errno
import os
import socket
import sys

from dspy_live.core.errors import ConfigurationError
from dspy_live.runtime.vanished import notice_silence
from dspy_live.server.transport.address import resolved

BALANCED = sys.platform == "linux"
"""True where the kernel deals connections out to all sockets of a port that have ``SO_REUSEPORT``."""


def take_port(host: str, port: int) -> socket.socket:
    """Return a socket that is bound and never listens: it holds the port, for port 0 any free one.

    It is bound as any server's is, which fails where another one has the port, and gets ``SO_REUSEPORT`` after that.
    It gives ``SO_REUSEADDR`` up, so that nobody else can bind while no worker listens yet. So two servers never share
    a port, though they be started in the same moment.

    Raises :class:`ConfigurationError` that says what is in the way.
    """
    family, address = resolved(host, port)
    held = socket.socket(family, socket.SOCK_STREAM)
    try:
        _set(held, socket.SO_REUSEADDR, True)
        _only_v6(held)
        notice_silence(held)
        held.bind(address)
        if BALANCED:
            _set(held, socket.SO_REUSEADDR, False)
            _set(held, socket.SO_REUSEPORT, True)
    except OSError as exc:
        held.close()
        taken = "another server has it" if exc.errno == errno.EADDRINUSE else os.strerror(exc.errno or 0)
        raise ConfigurationError(f"can't listen on {host} port {port}: {taken}; take another port") from None
    return held


def socket_beside(held: socket.socket) -> socket.socket:
    """Return another socket of a held port, which is bound and does not listen yet.

    Where the kernel deals nothing out, it is the held one: all workers then accept from one queue.
    """
    if not BALANCED:
        return copy_of(held)
    beside = socket.socket(held.family, socket.SOCK_STREAM)
    try:
        _set(beside, socket.SO_REUSEADDR, True)  # else the closed connections of an earlier server would be in the way
        _set(beside, socket.SO_REUSEPORT, True)
        _only_v6(beside)
        notice_silence(beside)
        beside.bind(held.getsockname())
    except BaseException:
        beside.close()
        raise
    return beside


def copy_of(listener: socket.socket) -> socket.socket:
    """Return another descriptor of a socket. Not ``dup()``: that makes the socket block, in workers that have it too,
    and a loop whose ``accept`` blocks stands still.
    """
    return socket.socket(fileno=os.dup(listener.fileno()))


def _set(one: socket.socket, option: int, value: bool) -> None:
    one.setsockopt(socket.SOL_SOCKET, option, int(value))


def _only_v6(one: socket.socket) -> None:
    if one.family == socket.AF_INET6:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
