"""An LM's endpoint that must begin to speak in time and must not fall silent, whichever endpoint it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any

from dspy.utils.exceptions import LMTimeoutError

from dspy_live.core.call import Call
from dspy_live.core.events import Completion, Reasoning, Restart, TextDelta
from dspy_live.core.service import Service
from dspy_live.core.sink import Sink, alive
from dspy_live.runtime.channel.reading import Readable
from dspy_live.runtime.http.silence import Silence
from dspy_live.runtime.http.transport import Timeouts


async def until_room(sink: Sink) -> None:
    """Wait until who takes the words has caught up."""
    ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    sink.on_room(lambda: None if ready.done() else ready.set_result(None))
    await ready


class Timely:
    """Limits an endpoint's silence. What keeps a connection open, such as a comment, says nothing.

    Args:
        service: the endpoint.
        first_token: seconds from the request to the first word, thought or tool call, or ``None``.
        idle: seconds between two of them after that, or ``None``. Time in which the reader has no room does not count.
        model: as the LM names it, for the message.

    Its calls raise DSPy's ``LMTimeoutError``, and the connection is closed.
    """

    def __init__(self, service: Service, first_token: float | None, idle: float | None, model: str) -> None:
        self.service = service
        self.limits = Timeouts(None, first_token, idle)
        self.model = model

    def open(self, call: Call) -> _Opened:
        """Open the endpoint; time runs while it is read."""
        return _Opened(self, call)

    def error(self, first: bool, limit: float) -> LMTimeoutError:
        """Return what a silence of ``limit`` seconds raises."""
        said = (
            f"no token came within {limit:g} s of the request; raise first_token_timeout=, or use a faster model"
            if first
            else f"the reply stopped for longer than {limit:g} s; raise idle_timeout=, or ask again"
        )
        return LMTimeoutError(said, model=self.model)


class _Opened(Readable):
    def __init__(self, timely: Timely, call: Call) -> None:
        self._timely = timely
        self._inside = timely.service.open(call)
        self._call = call
        self._reading = None
        self._late: LMTimeoutError | None = None

    async def __aenter__(self) -> _Opened:
        self._events: Any = await self._inside.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self._reading is not None:
                await self._reading.aclose()
        finally:
            await self._inside.__aexit__(kind, error, traceback)

    async def attach(self, sink: Sink) -> Any:
        """Read the reply as the endpoint's own receiver does, for as long as it is not silent too long."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(None) as scope:

                def fell_silent(first: bool, limit: float) -> None:
                    self._late = self._timely.error(first, limit)
                    scope.reschedule(loop.time())

                silence = Silence(loop, self._timely.limits, fell_silent)
                silence.start()
                try:
                    return await self._read(_Ear(sink, silence))
                finally:
                    silence.stop()
        except TimeoutError:
            if self._late is None or not scope.expired():
                raise
            raise self._late from None

    async def _read(self, ear: _Ear) -> Any:
        attach = getattr(self._events, "attach", None)
        if attach is not None:
            return await attach(ear)
        response = None
        while batch := await self._events.receive_many():
            room = True
            for event in batch:
                ear.alive()
                match event:
                    case TextDelta():
                        room = ear.text(event.text)
                    case Reasoning():
                        room = ear.reasoning(event.text)
                    case Restart():
                        ear.restart(event.reason)
                    case Completion():
                        response = event.response
            if not room:
                await until_room(ear)
        return response


class _Ear:
    """A sink that hears each piece, and leaves out the time in which the reader has no room."""

    __slots__ = ("_silence", "_sink", "alive", "restart")

    def __init__(self, sink: Sink, silence: Silence) -> None:
        self._sink = sink
        self._silence = silence
        self.alive = silence.heard
        self.restart = sink.restart

    def text(self, text: str) -> bool:
        self._silence.heard()
        return self._sink.text(text)

    def reasoning(self, text: str) -> bool:
        self._silence.heard()
        return self._sink.reasoning(text)

    def on_room(self, callback: Callable[[], object]) -> None:
        self._silence.stop()

        def go_on() -> None:
            self._silence.start()
            callback()

        self._sink.on_room(go_on)


class Aside:
    """A sink for what nobody reads, the completions after the first: it only keeps the one before it awake."""

    __slots__ = ("_sink",)

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def text(self, text: str) -> bool:
        alive(self._sink)
        return True

    def reasoning(self, text: str) -> bool:
        alive(self._sink)
        return True

    def alive(self) -> None:
        alive(self._sink)

    def on_room(self, callback: Callable[[], object]) -> None:
        callback()

    def restart(self, reason: str) -> None:
        alive(self._sink)
