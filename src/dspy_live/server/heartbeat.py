"""A comment on a silent event stream, so that proxies keep it open and a dead peer is noticed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType


class Heartbeat:
    """Calls ``beat`` when the stream has been silent for ``interval`` seconds; a context manager.

    A busy stream pays nothing for it: each event only sets a flag, and the timer is looked at again
    once per interval. A beat never overlaps a write of the stream: :meth:`sending` waits for it.
    """

    __slots__ = ("_beat", "_busy", "_interval", "_loop", "_sent", "_task", "_timer")

    def __init__(self, interval: float, beat: Callable[[], Awaitable[None]]) -> None:
        self._interval = interval
        self._beat = beat
        self._busy = False
        self._sent = False
        self._task: asyncio.Task[None] | None = None

    async def sending(self) -> None:
        """Say that the stream is about to write."""
        self._busy = self._sent = True
        if self._task is not None:
            task, self._task = self._task, None
            await task

    def idle(self) -> None:
        """Say that the stream has written and waits again."""
        self._busy = False

    def __enter__(self) -> Heartbeat:
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(self._interval, self._due)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _due(self) -> None:
        if not self._sent and not self._busy and (self._task is None or self._task.done()):
            self._task = self._loop.create_task(self._run())
        self._sent = False
        self._timer = self._loop.call_later(self._interval, self._due)

    async def _run(self) -> None:
        await self._beat()
