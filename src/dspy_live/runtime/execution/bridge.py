"""From synchronous code to the asynchronous engine: who calls from where decides which loop works.

===================================================  ====================  ========================================
caller of an LM                                       I/O on                who waits
===================================================  ====================  ========================================
``acall`` on any loop                                 that loop             the task
a sync call in an inline greenlet                     the run's loop        the greenlet only
a sync call in the run's worker thread                the run's loop        that thread
the same, after the run's loop was closed             the I/O loop          that thread
a sync call on a loop's own thread: a notebook, a     the I/O loop          that loop, unavoidably; warned about
sync submodule in an ``aforward``, in a thread's
own ``asyncio.run``
a sync call in any other thread: ``Parallel``, a      the I/O loop          that thread
user's executor
a sync call with no loop anywhere                     the I/O loop          the caller
===================================================  ====================  ========================================

A thread never waits for a loop that may wait for it: the I/O loop runs no code of the user's. A run that is read
without a loop (``async_streaming=False``) lives on the run loop, which does its I/O. The user's own coroutines
(async tools, ``syncify``) never come to the I/O loop (``programs/run/user_loop.py``). A forked child has new loops.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import sys
import threading
import warnings
from collections.abc import Callable, Coroutine
from typing import Any, Generic, Protocol, TypeVar

import greenlet

from dspy_live.core.errors import Cancelled, LiveError, Stop
from dspy_live.runtime.execution import background
from dspy_live.runtime.execution.stop_signal import OnStop

T = TypeVar("T")
Make = Callable[[], Coroutine[Any, Any, T]]


class Place(Protocol):
    """Where a run lives: its loop, its stop, the thread that works for it, if one does, and what else is at work.

    ``works`` are the threads of LM engines that can't be stopped: the run has not ended before they have.
    """

    loop: asyncio.AbstractEventLoop
    worker: int | None

    @property
    def works(self) -> set[concurrent.futures.Future[None]]: ...
    @property
    def stopped(self) -> LiveError | None: ...
    def check(self) -> None: ...
    def stop(self, error: LiveError) -> bool: ...
    def on_stop(self, callback: OnStop) -> None: ...
    def forget(self, callback: OnStop) -> None: ...


class InlineGreenlet(greenlet.greenlet):  # type: ignore[misc]
    """A greenlet whose parent awaits what it switches out with; made by :mod:`execution`."""

    refused = 0


class BlockingCallWarning(RuntimeWarning):
    """A synchronous LM call was made on the thread of a running event loop: the loop stands still."""


def in_inline_run() -> bool:
    """True where the calling code is part of a program that runs inline."""
    # The greenlet is never kept in a local: a traceback would carry it past the end of its thread. greenlet then takes
    # the last reference for one of its own if gc.get_referrers finds none, as while a collection holds that traceback,
    # and drops it: the frame refers to freed memory, and the collection crashes (greenlet 3.5.6, ~ThreadState).
    return isinstance(greenlet.getcurrent(), InlineGreenlet)


def switch_out(coroutine: Coroutine[Any, Any, T]) -> T:
    """Let the loop of an inline run await ``coroutine``, and return its result; only this run waits."""
    result: T = greenlet.getcurrent().parent.switch(coroutine)
    return result


def wait_for(make: Make[T], place: Place | None) -> T:
    """Run ``make()`` where the table above says and return its result to this synchronous caller.

    Raises what the coroutine raises; :class:`Stop` when the run is stopped meanwhile, after the coroutine
    has ended.
    """
    if in_inline_run():
        # Where the run is over, too: its loop refuses the call there, and counts how often it has.
        return switch_out(make())
    if place is not None:
        place.check()
    if asyncio._get_running_loop() is not None:
        warnings.warn(
            "a synchronous LM call blocks the running event loop until the LM has answered; "
            "await the module's acall() instead, or run the program with execution='thread'",
            BlockingCallWarning,
            stacklevel=_user_level(),
        )
    elif place is not None and place.worker == threading.get_ident() and not place.loop.is_closed():
        return run_on(place.loop, make, place)
    return run_on(background.io.loop, make, place)


def run_on(loop: asyncio.AbstractEventLoop, make: Make[T], place: Place | None) -> T:
    """Run ``make()`` on another thread's loop, in a copy of this context, and wait in this thread for its real end.

    Not ``run_coroutine_threadsafe``: cancelling its future answers before the coroutine has ended. The stop of the
    place cancels the coroutine. Raises what it raises, and :class:`Stop` for its cancellation.
    """
    answer: _Answer[T] = _Answer()
    tasks: list[asyncio.Task[T]] = []
    context = contextvars.copy_context()

    def start() -> None:
        if place is not None and place.stopped is not None:
            answer.fail(Stop(place.stopped))
            return
        task = loop.create_task(make(), context=context)
        tasks.append(task)
        task.add_done_callback(over)

    def over(task: asyncio.Task[T]) -> None:
        tasks.clear()
        if task.cancelled():
            # In a thread concurrent.futures' own is an Exception, which a program's handler would swallow.
            reason = place.stopped if place is not None else None
            answer.fail(Stop(reason or Cancelled("the LM call was cancelled")))
        elif (error := task.exception()) is not None:
            answer.fail(error)
        else:
            answer.give(task.result())

    def cancel(_: object = None) -> None:
        loop.call_soon_threadsafe(lambda: [task.cancel() for task in tasks])

    if place is not None:
        place.on_stop(cancel)
    loop.call_soon_threadsafe(start)
    try:
        return answer.wait()
    except BaseException:
        if not answer.given:  # this thread was interrupted, by Ctrl-C for one
            cancel()
        raise
    finally:
        if place is not None:
            place.forget(cancel)


class _Answer(Generic[T]):
    """One result for one waiting thread. It lets go of an error that it raises: the error's traceback holds it."""

    __slots__ = ("_error", "_event", "_value", "given")

    def __init__(self) -> None:
        self._event = threading.Event()
        self._value: list[T] = []
        self._error: BaseException | None = None
        self.given = False

    def give(self, value: T) -> None:
        self._value.append(value)
        self.given = True
        self._event.set()

    def fail(self, error: BaseException) -> None:
        self._error = error
        self.given = True
        self._event.set()

    def wait(self) -> T:
        self._event.wait()
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                error = None
        return self._value.pop()


def _user_level() -> int:
    """Return the stack level of the nearest frame that is neither ours nor DSPy's."""
    level, frame = 2, sys._getframe(2)
    while frame.f_back is not None:
        name = frame.f_globals.get("__name__", "")
        if not name.startswith(("dspy.", "dspy_live.")):
            break
        frame, level = frame.f_back, level + 1
    return level
