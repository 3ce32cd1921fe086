"""A comment on a silent event stream, so that proxies keep it open and a dead peer is noticed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType


class Pulse:
    """The one timer behind all heartbeats of a server; it runs while there is a stream.

    It looks at every stream twice per ``interval`` (seconds), so that none is silent for longer.
    """

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self._streams: set[Heartbeat] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, stream: Heartbeat) -> None:
        """Look after a stream."""
        self._streams.add(stream)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.interval / 2, self._look)

    def discard(self, stream: Heartbeat) -> None:
        """Look after it no more."""
        self._streams.discard(stream)
        if not self._streams and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self.interval / 2, self._look)
        for stream in self._streams:
            stream.look()


class Heartbeat:
    """While entered, calls ``beat`` whenever its stream has been silent for too long.

    A busy stream pays two assignments per write for it: before it writes it sets ``busy`` and
    ``sent`` (and awaits :meth:`settle` when a beat is under way, so that the two never overlap), and
    afterwards it clears ``busy``.
    """

    __slots__ = ("_beat", "_pulse", "beating", "busy", "sent")

    def __init__(self, pulse: Pulse, beat: Callable[[], Awaitable[None]]) -> None:
        self._pulse = pulse
        self._beat = beat
        self.busy = False
        self.sent = False
        self.beating: asyncio.Task[None] | None = None

    async def settle(self) -> None:
        """Wait for the end of a beat that is under way."""
        if self.beating is not None:
            task, self.beating = self.beating, None
            await task

    def look(self) -> None:
        """Beat if nothing was written since the last look."""
        if not self.sent and not self.busy and (self.beating is None or self.beating.done()):
            self.beating = asyncio.get_running_loop().create_task(self._run())
        self.sent = False

    def __enter__(self) -> Heartbeat:
        self._pulse.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pulse.discard(self)
        if self.beating is not None:
            self.beating.cancel()

    async def _run(self) -> None:
        await self._beat()
