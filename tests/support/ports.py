"""Ports for servers that open them themselves, and ports on which nobody answers."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterator


def lasting_port() -> int:
    """Return a free port that no outgoing connection is given: for a server that opens it itself, or comes back to it.

    It may be taken meanwhile, but nobody else takes ports of this range by chance.
    """
    while True:
        port = random.randrange(15_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@contextlib.contextmanager
def refusing_port() -> Iterator[int]:
    """A port that refuses connections, and that nobody else can open for as long as the block."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        yield port
