"""A run's lifetime: until when it may go on, and why it was stopped."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

from dspy_live.core.errors import DeadlineExceeded, LiveError, Stop
from dspy_live.sansio.checks import positive

OnCancel = Callable[[LiveError], object]


class Scope:
    """The deadline of a piece of work and the reason of its cancellation.

    As an async context manager it guards the task that enters it: cancelling the scope cancels the
    task, and on the way out that cancellation, and only that one, becomes :attr:`error`. A cancellation that
    somebody else sent goes through untouched, ours is taken back from the task's count. A scope that was cancelled
    never ends well, even when the code inside swallowed the cancellation.

    It can be used without entering: what runs in threads looks at :meth:`check` and :meth:`on_cancel`.
    Make it on the loop's own thread; :meth:`cancel`, :meth:`check` and the properties are for any thread.

    Args:
        deadline: a time on ``now``'s clock in seconds, or ``None``. One that has passed cancels at once.
        parent: a scope whose cancellation and deadline hold for this one too.
        on_deadline: the reason when the deadline passes; by default a :class:`DeadlineExceeded` that says how long
            the scope had.
        loop: the loop that runs the callbacks; the running one by default.
        now: the clock; ``loop.time`` by default.
    """

    __slots__ = (
        "__weakref__",
        "_callbacks",
        "_error",
        "_guard",
        "_leave",
        "_lock",
        "_loop",
        "_move_on",
        "_next",
        "_now",
        "_on_deadline",
        "_started",
        "_thread",
        "_timer",
        "deadline",
    )

    def __init__(
        self,
        deadline: float | None = None,
        *,
        parent: Scope | None = None,
        on_deadline: LiveError | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        now: Callable[[], float] | None = None,
    ) -> None:
        self._loop = loop if loop is not None else asyncio.get_running_loop()
        self._now = now if now is not None else self._loop.time
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self._callbacks: dict[int, OnCancel] = {}
        self._next = 0
        self._error: LiveError | None = None
        self._on_deadline = on_deadline
        self._timer: asyncio.TimerHandle | None = None
        self._guard: Guard | None = None
        self._move_on = False
        self._leave: Callable[[], None] | None = None
        self._started = self._now()
        self.deadline = deadline
        if parent is not None:
            if parent.deadline is not None and (deadline is None or parent.deadline < deadline):
                # The parent's own timer fires for it; here it only shows in remaining().
                self.deadline = parent.deadline
                deadline = None
            self._leave = parent.on_cancel(self.cancel)
        if deadline is not None:
            self._look_at_the_clock(deadline)

    @property
    def error(self) -> LiveError | None:
        """Why it was cancelled, or ``None``."""
        return self._error

    @property
    def cancelled(self) -> bool:
        """True once :meth:`cancel` was called or the deadline has passed."""
        return self._error is not None

    def remaining(self) -> float | None:
        """Seconds until the deadline, never below 0; ``None`` when there is none."""
        if self.deadline is None:
            return None
        return max(0.0, self.deadline - self._now())

    def check(self) -> None:
        """Raise :class:`~dspy_live.core.errors.Stop` with the reason when it was cancelled or its time is up."""
        if self._error is None and self.deadline is not None and self._now() >= self.deadline:
            # The timer may be late, or never come while code blocks the loop.
            self.cancel(self._late(self.deadline))
        if self._error is not None:
            raise Stop(self._error)

    def cancel(self, error: LiveError) -> bool:
        """Cancel this scope and its children, for ``error``. The first reason wins: False when there was one.

        The reason shows at once in every thread. Tasks are cancelled and callbacks run before this
        returns when it is called on the loop's thread, else soon, on the loop.
        """
        with self._lock:
            if self._error is not None:
                return False
            self._error = error
        self._tell_on_loop()
        return True

    def on_cancel(self, callback: OnCancel) -> Callable[[], None]:
        """Call ``callback(error)`` once, on the loop, when it is cancelled; at once if it was already.

        Returns a function that takes it back. May be called from any thread.
        """
        with self._lock:
            number = self._next
            self._next += 1
            self._callbacks[number] = callback
            late = self._error is not None
        if late:
            self._tell_on_loop()
        return lambda: self._callbacks.pop(number, None) and None

    def child(self, deadline: float | None = None, *, on_deadline: LiveError | None = None) -> Scope:
        """Return a scope that ends with this one, or before; :meth:`close` it, or enter and leave it."""
        return Scope(deadline, parent=self, on_deadline=on_deadline, loop=self._loop, now=self._now)

    def close(self) -> None:
        """The work has ended: stop the timer and leave the parent. A reason that was given stays."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._leave is not None:
            self._leave()
            self._leave = None
        # They hold the task, whose context holds the run, which holds this scope.
        self._callbacks.clear()

    async def __aenter__(self) -> Scope:
        if self._error is not None and not self._move_on:
            self.close()
            raise self._error
        if self._guard is not None:
            raise RuntimeError("this scope guards a task already; give each task a child() of its own")
        guard = self._guard = Guard(self._loop)
        guard.remove = self.on_cancel(guard.cancel)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self.close()
        guard, self._guard = self._guard, None
        assert guard is not None
        guard.remove()
        ours = await guard.settle()
        error = self._error
        if error is None or not ours:
            return False
        if self._move_on:
            return exc is None or isinstance(exc, (asyncio.CancelledError, Stop))
        if exc is None or isinstance(exc, asyncio.CancelledError) or (isinstance(exc, Stop) and exc.error is error):
            raise error from exc
        return False

    def _tell_on_loop(self) -> None:
        if threading.get_ident() == self._thread:
            self._tell()
            return
        with suppress(RuntimeError):  # The loop is closed: nothing of this scope is running any more.
            self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        error = self._error
        assert error is not None
        while True:
            with self._lock:
                if not self._callbacks:
                    return
                callback = self._callbacks.pop(next(iter(self._callbacks)))
            try:
                callback(error)
            except Exception as exc:
                # One that fails must not keep the others from hearing of it.
                self._loop.call_exception_handler({"message": "a cancellation callback failed", "exception": exc})

    def _look_at_the_clock(self, deadline: float) -> None:
        left = deadline - self._now()
        if left > 0:
            # An injected clock may run at another pace than the loop's: look again then.
            self._timer = self._loop.call_later(left, self._look_at_the_clock, deadline)
            return
        self._timer = None
        self.cancel(self._late(deadline))

    def _late(self, deadline: float) -> LiveError:
        had = deadline - self._started
        if self._on_deadline is not None:
            return self._on_deadline
        if had > 0:
            return DeadlineExceeded(f"the deadline passed: the run had {had:.3g} s")
        return DeadlineExceeded(f"the deadline had passed {-had:.3g} s before the start")


class Guard:
    """The running task, to be cancelled at most once, and the way to tell that cancellation from others."""

    __slots__ = ("before", "remove", "sent", "task")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("this can only be done inside a task")
        self.task = task
        self.before = task.cancelling()
        self.sent = False
        self.remove: Callable[[], None] = lambda: None

    def cancel(self, error: LiveError) -> None:
        """Cancel the task; on its loop's thread only."""
        self.sent = True
        self.task.cancel(Sent(error, self))

    async def settle(self) -> bool:
        """Take our cancellation back. True when no other one is under way."""
        if not self.sent:
            return True
        if getattr(self.task, "_must_cancel", True):
            # Sent while the task itself was running: before Python 3.13 it would still come at the next
            # await, which may be outside of the scope. Let it come here.
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                if self.task.cancelling() > self.before + 1:
                    self.task.uncancel()
                    raise
        return self.task.uncancel() <= self.before


class Sent:
    """What goes along with a scope's own cancellation, and tells it from others."""

    __slots__ = ("_guard", "error")

    def __init__(self, error: LiveError, guard: Guard) -> None:
        self.error = error
        self._guard = guard

    def __str__(self) -> str:
        return self.error.message

    __repr__ = __str__

    def take_back(self) -> None:
        """The task has heard of it in another way; the scope's exit need not take it back any more."""
        if self._guard.sent:
            self._guard.sent = False
            self._guard.task.uncancel()


def sent_by(exc: BaseException | None) -> Sent | None:
    """Return what a scope has sent along with a cancellation, ``None`` for one of somebody else's."""
    if isinstance(exc, asyncio.CancelledError) and exc.args and isinstance(exc.args[0], Sent):
        return exc.args[0]
    return None


def fail_after(seconds: float, *, error: LiveError | None = None, parent: Scope | None = None) -> Scope:
    """Return a scope whose ``async with`` raises ``error`` (:class:`DeadlineExceeded`) after ``seconds``."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + positive("seconds", seconds)
    reason = error if error is not None else DeadlineExceeded(f"it took longer than the {seconds:g} s that it had")
    return Scope(deadline, parent=parent, on_deadline=reason, loop=loop)


def move_on_after(seconds: float) -> Scope:
    """Return a scope whose ``async with`` ends quietly after ``seconds``; its ``cancelled`` tells which it was."""
    scope = fail_after(seconds)
    scope._move_on = True
    return scope
