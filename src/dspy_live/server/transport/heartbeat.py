"""A comment on a silent event stream, so that proxies keep it open and a peer that died is noticed."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Beating(Protocol):
    """A stream that can write a heartbeat."""

    def beat(self) -> None:
        """Write one if nothing was written since the last call."""


class Pulse:
    """The one timer behind all heartbeats of a server; it runs while there is a stream.

    It asks every stream twice per ``interval`` (seconds), so that none is silent for longer.
    """

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self._streams: set[Beating] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, stream: Beating) -> None:
        """Ask ``stream`` for heartbeats from now on."""
        self._streams.add(stream)
        if self._timer is None:
            self._wait()

    def remove(self, stream: Beating) -> None:
        """Ask it no more."""
        self._streams.discard(stream)
        if not self._streams and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self.interval / 2, self._beat)

    def _beat(self) -> None:
        self._wait()
        for stream in list(self._streams):
            stream.beat()
