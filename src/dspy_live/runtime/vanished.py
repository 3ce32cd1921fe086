"""How soon a machine that has vanished is noticed.

A machine that loses its power or its network says no farewell. Left to themselves, kernels give a connection up after
15 minutes where something is on its way to such a machine, and never where nothing is. Here is what is asked of them
instead. An answer that takes long is no matter: the kernel of the other machine answers for it.
"""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import parse_qs, urlsplit

ASK_AFTER, ASK_AGAIN, ASK_TIMES = 30, 10, 3
"""Seconds without a word before the other machine is asked for a sign of life, seconds between questions, and how many
of them may stay without an answer."""

TAKEN_IN = 60
"""Seconds within which the other machine takes in what was sent to it."""


def notice_silence(one: socket.socket) -> None:
    """End a connection, or those that come in on a listening socket, when a silent peer gives no sign of life.

    A peer that is there and reads nothing is waited for, for as long as it takes: ``tcp(7)``, ``SO_KEEPALIVE``.
    """
    if one.family not in (socket.AF_INET, socket.AF_INET6):
        return
    one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", ASK_AFTER), ("TCP_KEEPINTVL", ASK_AGAIN), ("TCP_KEEPCNT", ASK_TIMES)):
        _set(one, name, value)


def notice_what_is_not_taken_in(one: socket.socket) -> None:
    """As :func:`notice_silence`, and when what was sent is not taken in: for peers that always read.

    It counts for one that is there and does not read, too (``tcp(7)``, ``TCP_USER_TIMEOUT``).
    """
    notice_silence(one)
    if one.family in (socket.AF_INET, socket.AF_INET6):
        _set(one, "TCP_USER_TIMEOUT", TAKEN_IN * 1000)


def postgres_options(url: str, timeout: float) -> dict[str, Any]:
    """Return libpq's options for a database that may vanish, apart from those that ``url`` names itself.

    Args:
        url: ``postgresql://…``.
        timeout: seconds for a connection, and for the database's machine to take in what is sent.
    """
    seconds = max(1, int(timeout))
    options = {
        "connect_timeout": seconds,
        "keepalives_idle": seconds,
        "keepalives_interval": max(1, seconds // 3),
        "keepalives_count": 3,
        "tcp_user_timeout": seconds * 1000,
        "client_encoding": "UTF8",  # a database in SQL_ASCII gives bytes for text otherwise
    }
    named = parse_qs(urlsplit(url).query)
    return {name: value for name, value in options.items() if name not in named}


def _set(one: socket.socket, name: str, value: int) -> None:
    option = getattr(socket, name, None)  # Linux has them all, others some
    if option is not None:
        one.setsockopt(socket.IPPROTO_TCP, option, value)
