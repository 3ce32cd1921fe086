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
(async tools, ``syncify``) never come to the I/O loop (``programs/user_loop.py``). A forked child has new loops.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import warnings
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

import greenlet

from dspy_live.core.errors import Cancelled, Stop
from dspy_live.runtime.execution import background
from dspy_live.runtime.scope import Scope

T = TypeVar("T")
Make = Callable[[], Coroutine[Any, Any, T]]


class Place(Protocol):
    """Where a run lives: its loop, its scope, the thread that works for it, if one does, and what else is at work.

    ``works`` are the threads of LM engines that can't be stopped: the run has not ended before they have.
    """

    loop: asyncio.AbstractEventLoop
    scope: Scope
    worker: int | None
    works: set[concurrent.futures.Future[None]]


class InlineGreenlet(greenlet.greenlet):  # type: ignore[misc]
    """A greenlet whose parent awaits what it switches out with; made by :mod:`execution`."""

    refused = 0


class BlockingCallWarning(RuntimeWarning):
    """A synchronous LM call was made on the thread of a running event loop: the loop stands still."""


def wait_for(make: Make[T], place: Place | None) -> T:
    """Run ``make()`` where the table above says and return its result to this synchronous caller.

    Raises what the coroutine raises; :class:`Stop` when the run's scope ends meanwhile, after the
    coroutine was cancelled; ``KeyboardInterrupt`` likewise.
    """
    current = greenlet.getcurrent()
    if isinstance(current, InlineGreenlet):
        # Where the run is over, too: its loop refuses the call there, and counts how often it has.
        result: T = current.parent.switch(make())
        return result
    if place is not None:
        place.scope.check()
    if asyncio._get_running_loop() is not None:
        warnings.warn(
            "a synchronous LM call blocks the running event loop until the LM has answered; "
            "await the module's acall() instead, or run the program with execution='thread'",
            BlockingCallWarning,
            stacklevel=_user_level(),
        )
    elif place is not None and place.worker == threading.get_ident() and not place.loop.is_closed():
        return wait_on(asyncio.run_coroutine_threadsafe(make(), place.loop), place)
    return wait_on(background.io.submit(make()), place)


def wait_on(future: concurrent.futures.Future[T], place: Place | None) -> T:
    """Wait in this thread for work on another thread's loop; the end of the place's scope cancels it."""
    remove = place.scope.on_cancel(lambda _: future.cancel()) if place is not None else None
    try:
        return future.result()
    except concurrent.futures.CancelledError:
        # In a thread this is an Exception, which a program's own handler would swallow.
        raise Stop(_reason(place)) from None
    except BaseException:
        future.cancel()
        raise
    finally:
        if remove is not None:
            remove()


def _reason(place: Place | None) -> Any:
    error = place.scope.error if place is not None else None
    return error or Cancelled("the LM call was cancelled")


def _user_level() -> int:
    """Return the stack level of the nearest frame that is neither ours nor DSPy's."""
    import sys

    level, frame = 2, sys._getframe(2)
    while frame.f_back is not None:
        name = frame.f_globals.get("__name__", "")
        if not name.startswith(("dspy.", "dspy_live.")):
            break
        frame, level = frame.f_back, level + 1
    return level
