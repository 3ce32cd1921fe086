"""A service must begin to answer in time, and must not fall silent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from dspy_live.core.call import Call
from dspy_live.core.errors import ConfigurationError, FirstTokenTimeout, IdleTimeout
from dspy_live.core.events import SPOKEN, Event, Result, Token
from dspy_live.core.outlet import Outlet, outlet_of
from dspy_live.core.service import Service
from dspy_live.core.sink import Sink
from dspy_live.runtime.scope import Scope
from dspy_live.sansio.checks import positive

MakeError = Callable[[bool, float], Exception]
"""Given whether it was the first token that was late (else it was silence), and the limit in seconds."""


@dataclass(frozen=True, slots=True)
class TimeoutStatistics:
    """Calls that came; those whose first token was late; those that fell silent."""

    calls: int
    first_token: int
    idle: int


class Timeouts:
    """Fails a call with :class:`FirstTokenTimeout` or :class:`IdleTimeout` when its events are late.

    The time in which the caller has no room does not count: a slow reader is not the service's fault. Meant for an LM.
    Around a program, a tool that works in silence counts as silence. The call asks for a stream, else nothing would
    be heard before the end.

    Args:
        first_token: seconds until an LM has said something or begun to call a tool, or ``None``.
        idle: seconds between two events after that, or ``None``.
        error: makes the error, from whether the first token was late and the limit in seconds; those above by default.
    """

    kind: ClassVar[str] = "timeouts"

    def __init__(
        self, first_token: float | None = None, idle: float | None = None, *, error: MakeError | None = None
    ) -> None:
        if first_token is None and idle is None:
            raise ConfigurationError("Timeouts needs at least one of first_token and idle, in seconds")
        self.first_token = positive("first_token", first_token, "seconds") if first_token is not None else None
        self.idle = positive("idle", idle, "seconds") if idle is not None else None
        self._make_error = error if error is not None else _timed_out
        self._calls = 0
        self._late = 0
        self._silent = 0

    def __repr__(self) -> str:
        limits = {"first_token": self.first_token, "idle": self.idle}
        return f"Timeouts({', '.join(f'{name}={s:g}' for name, s in limits.items() if s is not None)})"

    def statistics(self) -> TimeoutStatistics:
        return TimeoutStatistics(self._calls, self._late, self._silent)

    def __call__(self, service: Service) -> Service:
        async def timed(call: Call, sink: Sink) -> Result:
            self._calls += 1
            if not call.stream:
                call = call.but(stream=True)
            with Scope() as scope:
                silence = _SilenceSink(sink, self, scope)
                try:
                    return await service(call, silence)
                finally:
                    silence.stop()

        return timed

    def error(self, first: bool) -> Exception:
        """Count a call that is too late and return its error."""
        self._late += first
        self._silent += not first
        limit = self.first_token if first else self.idle
        assert limit is not None
        return self._make_error(first, limit)


def _timed_out(first: bool, limit: float) -> Exception:
    if first:
        return FirstTokenTimeout(f"no token came within {limit:g} s; raise first_token=, or use a faster model")
    return IdleTimeout(f"the answer stopped for longer than {limit:g} s; raise idle=, or ask again")


class _SilenceSink:
    """A sink that measures the silence. One timer for the whole call: it is moved when it fires, not for every event.

    Before the first word the silence began with the call, whatever else is told; after it, with the last event.
    """

    # ``push`` is an attribute, so that it can be exchanged at the first word.
    __slots__ = (
        "_elsewhere",
        "_layer",
        "_loop",
        "_now",
        "_paused",
        "_paused_at",
        "_scope",
        "_since",
        "_sink",
        "_spoke",
        "_timer",
        "push",
    )

    def __init__(self, sink: Sink, layer: Timeouts, scope: Scope) -> None:
        self._sink = sink
        self._layer = layer
        self._scope = scope
        self._loop = asyncio.get_running_loop()
        self._now = self._loop.time
        self._since = self._now()
        self._spoke = False
        self._paused = 0
        self._paused_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._elsewhere: Callable[[], float] | None = None
        self.push = self._first
        self._set(layer.first_token)

    def _first(self, event: Event) -> bool:
        if type(event) not in SPOKEN:
            return self._sink.push(event)
        self._spoke = True
        self.stop()
        self._since = self._now()
        self._set(self._layer.idle)
        room = self._sink.push(event)
        self.push = self._next if self._layer.idle is not None else self._sink.push
        return room

    def _next(self, event: Event) -> bool:
        self._since = self._now()
        return self._sink.push(event)

    def outlet(self, token: Token | None) -> Outlet | None:
        outlet = outlet_of(self._sink, token) if self._spoke else None
        if outlet is not None and self._layer.idle is not None:
            outlet.watches.append(self)
        return outlet

    def heard_elsewhere(self, heard: Callable[[], float]) -> None:
        """See :class:`~dspy_live.core.outlet.Watch`."""
        self._elsewhere = heard

    def heard_at(self, when: float) -> None:
        """See :class:`~dspy_live.core.outlet.Watch`."""
        self._elsewhere = None
        self._since = max(self._since, when)

    async def room(self) -> None:
        """Wait for room, which is no silence. Several sources may wait at once."""
        if not self._paused:
            self._paused_at = self._now()
        self._paused += 1
        try:
            await self._sink.room()
        finally:
            self._paused -= 1
            if not self._paused:
                self._resume()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _resume(self) -> None:
        now = self._now()
        self._since = now if self._spoke else self._since + now - self._paused_at
        if self._timer is not None:
            self._timer.cancel()
            self._look()

    def _set(self, seconds: float | None) -> None:
        if seconds is not None:
            self._timer = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        """Fail the call where it has been silent for too long, else look again later."""
        if self._paused:
            return
        limit = self._layer.idle if self._spoke else self._layer.first_token
        assert limit is not None
        if self._elsewhere is not None:
            self._since = max(self._since, self._elsewhere())
        left = self._since + limit - self._now()
        if left > 0:
            self._set(left)
        else:
            self._scope.fail(self._layer.error(first=not self._spoke))
