"""A service must begin to answer in time, and must not fall silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from dspy_live.core.call import Call
from dspy_live.core.errors import ConfigurationError, FirstTokenTimeout, IdleTimeout, LiveError
from dspy_live.core.events import Event
from dspy_live.core.service import Receiver, Service
from dspy_live.core.sink import Sink
from dspy_live.layers._relay import Attach, Ear, Watched
from dspy_live.layers._wrap import Wrapped
from dspy_live.runtime.clock import LOOP_CLOCK, Clock
from dspy_live.runtime.scope import Guard, Scope
from dspy_live.sansio.checks import positive

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TimeoutStatistics:
    """Calls that were opened; those whose first token was late; those that fell silent."""

    calls: int
    first_token: int
    idle: int


class Timeouts:
    """Fails a call with :class:`FirstTokenTimeout` or :class:`IdleTimeout` when its events are late.

    Only the time counts in which the reader waits: a slow reader is not the service's fault. Meant for an LM. Around
    a program, a tool that works in silence counts as silence.

    Args:
        first_token: seconds from the opening until an LM has said something or begun to call a tool, or ``None``.
        idle: seconds between two events after that, or ``None``.
        clock: where the time comes from; the loop's by default.
    """

    kind: ClassVar[str] = "timeouts"

    def __init__(
        self, first_token: float | None = None, idle: float | None = None, *, clock: Clock = LOOP_CLOCK
    ) -> None:
        if first_token is None and idle is None:
            raise ConfigurationError("Timeouts needs at least one of first_token and idle, in seconds")
        self.first_token = positive("first_token", first_token, "seconds") if first_token is not None else None
        self.idle = positive("idle", idle, "seconds") if idle is not None else None
        self.clock = clock
        self._calls = 0
        self._late = 0
        self._silent = 0

    def __call__(self, service: Service) -> Service:
        return Wrapped(self, service)

    def statistics(self) -> TimeoutStatistics:
        return TimeoutStatistics(self._calls, self._late, self._silent)

    @asynccontextmanager
    async def _open(self, inner: Service, call: Call) -> AsyncIterator[Receiver[Event]]:
        self._calls += 1
        async with AsyncExitStack() as stack:
            entering = stack.enter_async_context(inner.open(call.but(stream=True)))
            began = self.clock.now()
            events = await (self._in_time(entering) if self.first_token is not None else entering)
            watch = _Watch(events, self, self.clock.now() - began)
            stack.callback(watch.stop)
            yield watch

    async def _in_time(self, entering: Awaitable[Receiver[Event]]) -> Receiver[Event]:
        """A service may already wait for the LM's first byte while it is opened."""
        assert self.first_token is not None
        scope = Scope(self.clock.now() + self.first_token, on_deadline=self._first_token_error(), now=self.clock.now)
        try:
            async with scope:
                return await entering
        finally:
            self._late += scope.cancelled

    def _error(self, answered: bool) -> LiveError:
        if answered:
            self._silent += 1
            return IdleTimeout(f"the answer stopped for longer than {self.idle:g} s; raise idle=, or ask again")
        self._late += 1
        return self._first_token_error()

    def _first_token_error(self) -> LiveError:
        return FirstTokenTimeout(
            f"no token came within {self.first_token:g} s; raise first_token=, or use a faster model"
        )


class _Watch(Watched):
    """One timer for the whole call: it is moved when it fires, not for every token."""

    def __init__(self, inner: Receiver[Event], layer: Timeouts, waited: float) -> None:
        super().__init__(inner)
        self._layer = layer
        self._clock = layer.clock
        self._loop = asyncio.get_running_loop()
        self._guard: Guard | None = None
        self.paused = False
        self._waited = waited
        self._since = 0.0
        self._error: LiveError | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._set(max(0.0, layer.first_token - waited) if layer.first_token is not None else None)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def heard(self) -> None:
        """Something came by the short way; from here on silence counts anew."""
        self._waited = 0.0
        self._since = self._clock.now()

    async def _next_batch(self) -> list[Event]:
        return await self._guarded(super()._next_batch())

    async def _attached(self, inner: Attach, sink: Sink) -> Any:
        return await self._guarded(super()._attached(inner, _Listener(sink, self)))

    async def _guarded(self, waiting: Coroutine[Any, Any, T]) -> T:
        if self._error is not None:
            waiting.close()
            raise self._error
        guard = self._guard = Guard(self._loop)
        self._since = self._clock.now()
        try:
            result = await waiting
        except BaseException as exc:
            ours = await guard.settle()
            if ours and guard.sent and isinstance(exc, asyncio.CancelledError) and self._error is not None:
                raise self._error from None
            raise
        finally:
            self._guard = None
            # Until the first token the reader's waits add up; after it each one counts alone.
            self._waited = 0.0 if self.answered else self._waited + self._clock.now() - self._since
        await guard.settle()  # for a service that swallowed our cancellation
        return result

    def _first_answer(self) -> None:
        self.stop()
        self._set(self._layer.idle)

    def _set(self, seconds: float | None) -> None:
        self._timer = self._loop.call_later(seconds, self._look) if seconds is not None else None

    def _look(self) -> None:
        limit = self._layer.idle if self.answered else self._layer.first_token
        assert limit is not None
        idle = self._guard is None or self.paused
        waited = self._waited + (0.0 if idle else self._clock.now() - self._since)
        if self._guard is None or self.paused or waited < limit:
            self._set(max(limit - waited, limit / 100))
            return
        self._timer = None
        self._error = self._layer._error(self.answered)
        self._guard.cancel(self._error)


class _Listener(Ear):
    """A sink that tells the watch of every piece, and of the time in which the reader has no room."""

    __slots__ = ("_watch",)

    def __init__(self, sink: Sink, watch: _Watch) -> None:
        super().__init__(sink, watch.heard)
        self._watch = watch

    def text(self, text: str) -> bool:
        self._watch.heard()
        return self._sink.text(text)

    def reasoning(self, text: str) -> bool:
        self._watch.heard()
        return self._sink.reasoning(text)

    def alive(self) -> None:
        self._watch.heard()
        self._watch._answer()
        super().alive()

    def on_room(self, callback: Callable[[], object]) -> None:
        self._watch.paused = True

        def go_on() -> None:
            self._watch.paused = False
            self._watch.heard()
            callback()

        self._sink.on_room(go_on)
