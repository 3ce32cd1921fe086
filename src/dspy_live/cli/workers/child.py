"""A worker's process as its supervisor sees it: started, heard, told, killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from multiprocessing.context import BaseContext
from typing import Any

from dspy_live.cli.serve_options import ServeOptions
from dspy_live.cli.workers.entry import enter
from dspy_live.cli.workers.place import Place

_END_SECONDS = 10.0
"""Longest time between the end of a worker's socket and that of its process."""


class Child:
    """One worker's process, with the socket that it listens on and the one that it is told by.

    The supervisor keeps the listening socket for a successor. It closes it as soon as the worker has ended, so that no
    connection waits for a dead one.

    Raises ``OSError`` or ``EOFError`` where no process can be started.
    """

    def __init__(self, context: BaseContext, options: ServeOptions, place: Place, listener: socket.socket) -> None:
        self.number = place.number
        self.listener = listener
        self.control, theirs = socket.socketpair()
        self.failure = ""
        self._heard = b""
        self.process = context.Process(  # type: ignore[attr-defined]
            target=enter, args=(options, place, listener, theirs), name=f"dspy-live worker {place.number}"
        )
        try:
            self.process.start()
        except BaseException:
            self.close()
            raise
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        """The id of its process."""
        pid: int = self.process.pid
        return pid

    @property
    def lives(self) -> bool:
        """True while its process is there, though the one that forked it has died."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def hear(self) -> list[dict[str, Any]] | None:
        """Return what it has told, ``None`` when it has ended."""
        try:
            data = self.control.recv(65_536)
        except ConnectionResetError:
            return None
        if not data:
            return None
        *lines, self._heard = (self._heard + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def tell(self, word: bytes) -> None:
        """Say a word to it; to one that has just ended, nothing."""
        with contextlib.suppress(OSError):
            self.control.sendall(word)

    def kill(self) -> None:
        """End it without its consent."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def end(self) -> str:
        """Let go of a worker that has ended. Returns how it did."""
        self.process.join(_END_SECONDS)
        code = self.process.exitcode
        self.close()
        if code is not None and code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return "ended" if code in (None, 0, 255) else f"ended with status {code}"

    def close(self) -> None:
        """Close its sockets."""
        self.control.close()
        self.listener.close()
