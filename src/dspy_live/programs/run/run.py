"""The running call: what the LM engine, the tools and the user's ``emit`` find when they ask where they are.

It travels in ``dspy.settings.context`` under :data:`KEY`, because DSPy copies its settings into the
threads of ``dspy.Parallel``, where a plain context variable would be lost.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Awaitable, Coroutine
from concurrent.futures import Future
from threading import get_ident
from typing import TYPE_CHECKING, Any, TypeVar

from dspy_live.core.call import Buffer, Call
from dspy_live.core.errors import Cancelled, DeadlineExceeded, LiveError, Stop
from dspy_live.core.events import SPOKEN, Custom, Event, Token
from dspy_live.core.outlet import Outlet, outlet_of
from dspy_live.core.sink import Pen, Sink, pen_of, pushing
from dspy_live.programs.internals import overrides
from dspy_live.runtime.execution.stop_signal import OnStop, StopSignal
from dspy_live.runtime.forks import process_lock
from dspy_live.runtime.runtime import Runtime
from dspy_live.runtime.scope import Scope, ended
from dspy_live.sansio.lifecycle import Lifecycle
from dspy_live.sansio.overflow import Blocking

if TYPE_CHECKING:
    from dspy_live.programs.fields.names import Names

KEY = "dspy_live_run"

T = TypeVar("T")

_making = process_lock()
"""Held where what a run rarely needs is made, on whatever thread."""


class Run:
    """The state of one call to one program. Nothing of it outlives the call.

    It is the sink of everything that the run's code and its LM calls tell, on whatever thread: what comes from the
    loop's own thread goes on at once, what comes from others when the loop gets to it.
    """

    __slots__ = (
        "__weakref__",
        "_asked",
        "_flusher",
        "_full",
        "_held",
        "_inbox",
        "_lifecycle",
        "_over",
        "_signal",
        "_sink",
        "_thread",
        "_waking",
        "_works",
        "call",
        "ending",
        "first",
        "formatted",
        "id",
        "invocations",
        "loop",
        "names",
        "numbers",
        "observers",
        "program",
        "runtime",
        "started",
        "status",
        "task",
        "thinking",
        "tracker",
        "worker",
    )

    def __init__(self, runtime: Runtime, call: Call, program: str, names: Names, sink: Sink) -> None:
        self.runtime = runtime
        self.call = call
        self.id = call.id
        self.program = program
        self.names = names
        self.observers = runtime.account.observers
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.worker: int | None = None
        self.task: asyncio.Task[Any] | None = None
        self.ending: asyncio.Future[None] | None = None
        """Of a run in a task of its own: done a turn of the loop before the callbacks of ``task``."""
        self.numbers = itertools.count(1)
        self.invocations: dict[int, Any] = {}
        self.formatted: dict[int, tuple[Any, Any, Any]] = {}
        self.thinking: dict[int, tuple[Any, str]] = {}
        self.status: Any = None
        self.tracker: Any = None
        self.started = time.monotonic()
        self.first: float | None = None
        self._sink = sink
        self._lifecycle = Lifecycle()
        self._thread = get_ident()
        self._signal = StopSignal(self.loop, self._thread)
        self._over = False
        self._full = False
        self._asked: dict[asyncio.Future[None], Scope] = {}
        # Events of other threads, from the first one on; above the sink's bound their tokens merge by field in `_held`.
        self._inbox: deque[Event] | None = None
        self._waking = False
        self._held: Blocking | None = None
        self._flusher: asyncio.Task[None] | None = None
        self._works: set[Future[None]] | None = None

    @property
    def works(self) -> set[Future[None]]:
        """The threads of LM engines that can't be stopped: the run has not ended before they have."""
        if self._works is None:
            with _making:
                self._works = self._works or set()
        return self._works

    # The sink of the run's own code.

    def push(self, event: Event) -> bool:
        """Tell an event, on any thread. One that a straggling thread sends after the end is dropped.

        False asks the source to wait for :meth:`room`; another thread than the loop's is never asked to.
        """
        if get_ident() != self._thread:
            if self._inbox is None:
                with _making:
                    self._inbox = deque() if self._inbox is None else self._inbox
            self._inbox.append(event)
            # No lock: the loop clears the flag before it empties the inbox, so that a thread which finds it set after
            # its append is sure to be seen. Two threads that both find it clear cost one wake-up more.
            if not self._waking:
                self._waking = True
                try:
                    self.loop.call_soon_threadsafe(self._take_inbox)
                except RuntimeError:
                    self._inbox.clear()  # the loop is closed, and nobody listens any more
            return True
        if self._inbox is not None:
            self._flush()  # what another thread has sent before comes before
        return self._send(event)

    def pen(self, token: Token) -> Pen:
        """Return a pen for the further text of the field of ``token``, which was pushed.

        The order of events allows such text until the field is complete. Where that, or anything else, is not as it
        was when the token was pushed, the text is pushed as an event.
        """
        if self._over or self._inbox or self._held is not None or get_ident() != self._thread:
            return pushing(self, token)  # the sink may not have the token yet
        write, lifecycle = pen_of(self._sink, token), self._lifecycle

        def write_text(text: str) -> bool:
            if (
                self._over
                or self._inbox
                or self._held is not None
                or (lifecycle.complete and (token.lm_call, token.field) in lifecycle.complete)
                or get_ident() != self._thread
            ):
                return pushing(self, token)(text)
            room = write(text)
            self._full = not room
            return room

        return write_text

    def outlet(self, token: Token | None) -> Outlet | None:
        """Return the outlet of the field of ``token``, which was pushed, where it is under way and all is in order."""
        if self._over or self._full or self._inbox or self._held is not None or token is None:
            return None
        if get_ident() != self._thread or (token.lm_call, token.field) in self._lifecycle.complete:
            return None
        return outlet_of(self._sink, token)

    @property
    def full(self) -> bool:
        """True where the sink had no room at the last event: whoever asks an LM waits for :meth:`room` before."""
        return self._full

    async def room(self) -> None:
        """Wait until the sink has room; on another loop than the run's it returns at once."""
        if self._full and asyncio.get_running_loop() is self.loop:
            await self._sink.room()
            self._full = False

    def _send(self, event: Event) -> bool:
        if self._over:
            return True
        self._lifecycle.check(event)
        if self.first is None and type(event) in SPOKEN:
            self.first = time.monotonic() - self.started
        room = self._sink.push(event)
        self._full = not room
        return room

    def _take_inbox(self) -> None:
        self._waking = False
        inbox = self._inbox
        try:
            while inbox:
                if self._held is None and not self._full:
                    self._send(inbox.popleft())
                    continue
                if self._held is None:
                    self._held = Blocking(Buffer())
                    self._flusher = self.loop.create_task(self._flush_when_there_is_room())
                self._held.put_merging(inbox.popleft())
        except LiveError as exc:  # in a callback of the loop nobody would hear of it
            self.stop(exc)

    def _flush(self) -> None:
        """Send on all that other threads have sent, room or no room."""
        held, self._held = self._held, None
        if held is not None:
            for event in held.take_all():
                self._send(event)
        inbox = self._inbox
        while inbox:
            self._send(inbox.popleft())

    async def _flush_when_there_is_room(self) -> None:
        await self._sink.room()
        self._full = False
        try:
            self._flush()
        except LiveError as exc:
            self.stop(exc)

    # Its end.

    @property
    def stopped(self) -> LiveError | None:
        """Why it was stopped, or ``None``; after its end there is always a reason."""
        error = self._signal.error
        return Cancelled("the run is over") if error is None and self._over else error

    def stop(self, error: LiveError) -> bool:
        """Stop it, for ``error``: LM connections close, and its code gets a ``Stop`` at its next LM or tool call.

        The first reason wins: False when there was one. May be called on any thread.
        """
        return not self._over and self._signal.stop(error)

    def on_stop(self, callback: OnStop) -> None:
        """Call ``callback(error)`` on the loop when it is stopped, or ends."""
        self._signal.on_stop(callback)
        if self._over and (stopped := self.stopped) is not None:
            self._signal.stop(stopped)

    def guard(self, callback: OnStop) -> None:
        """Call ``callback(error)`` when it is stopped, before all others: of the task that runs it, which then asks
        :meth:`check`."""
        self._signal.guard = callback

    def cancel(self, _: object = None) -> None:
        """Cancel its task."""
        if self.task is not None:
            self.task.cancel()

    def worked(self, _: object = None) -> None:
        """Its task is at its end."""
        if self.ending is not None and not (self.ending.done() or self.loop.is_closed()):
            self.ending.set_result(None)

    def forget(self, callback: OnStop) -> None:
        """Take a callback of :meth:`on_stop` back."""
        self._signal.forget(callback)

    def check(self) -> None:
        """Raise :class:`~dspy_live.core.errors.Stop` where it was stopped or its time is up. For any thread."""
        deadline = self.call.deadline
        if deadline is not None and self._signal.error is None and self.loop.time() >= deadline:
            # The deadline's own timer may be late, or never come while code blocks the loop.
            self.stop(self._left())
        if (self._over or self._signal.error is not None) and (stopped := self.stopped) is not None:
            raise Stop(stopped)

    def leave(self) -> None:
        """Its caller has left: stop it."""
        self.stop(self._left())

    def _left(self) -> LiveError:
        deadline = self.call.deadline
        if deadline is None or self.loop.time() < deadline:
            return Cancelled("the run was left before its end")
        return DeadlineExceeded("the run's deadline passed")

    def part(self, work: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
        """Return an LM call as a part of the run: a stop cancels it, and the run has not ended before it has.

        To be called where it is awaited, in the same task.
        """
        loop = asyncio.get_running_loop()
        if loop is not self.loop or asyncio.current_task(loop) is self.task:
            return work  # a stop cancels the run's own task, the bridge what is on another loop
        return self._part(work)

    async def _part(self, work: Awaitable[T]) -> T:
        over = self.loop.create_future()
        try:
            with Scope() as scope:
                self._asked[over] = scope
                return await work
        finally:
            self._asked.pop(over, None)
            over.set_result(None)

    async def close(self) -> None:
        """End it. LM calls that the program's own tasks have left behind (``gather`` lets siblings go on) end too."""
        try:
            if self._inbox is not None:
                self._flush()
        finally:
            self._over = True
            stopped = self.stopped if self._asked or self._signal.awaited else None
            if stopped is not None:
                for scope in self._asked.values():
                    scope.fail(Stop(stopped))
                self._signal.stop(stopped)  # threads of the program's own that are left behind
            if self._flusher is not None:
                self._flusher.cancel()
            self._signal.clear()
            # What they hold holds the run.
            self.task = None
            self.invocations.clear()
            self.formatted.clear()
            if self._asked:
                await ended(*self._asked)


def current_run() -> Run | None:
    """Return the run that this code is part of, or ``None`` outside of any."""
    run: Run | None = overrides().get(KEY)
    return run


def emit(name: str, data: Any = None) -> bool:
    """Send an event of the program's own to whoever reads this run.

    Args:
        name: what the reader tells such events apart by.
        data: anything that JSON can hold.

    Returns:
        True when the code is part of a run; outside of one nothing happens and it is False.

    Never blocks and may be called from any thread or task of the run.
    """
    run = current_run()
    if run is None:
        return False
    run.push(Custom(name, data))
    return True
