"""Ways to run a program's code that is not simply awaited: in a worker thread, and inline in a greenlet.

In both, a stop closes the LM connection at once and refuses later LM calls with
:class:`~dspy_live.core.errors.Stop`; the function here returns only when the code has really ended.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from typing import Any, Literal

import anyio
import anyio.to_thread
import greenlet

from dspy_live.core.errors import Stop
from dspy_live.runtime.execution.blocked import watch
from dspy_live.runtime.execution.bridge import InlineGreenlet, Place
from dspy_live.runtime.scope import ended

Execution = Literal["auto", "native", "thread", "inline"]
EXECUTIONS: tuple[Execution, ...] = ("auto", "native", "thread", "inline")

# A program that swallows the stop and asks again is refused this often, then never resumed.
MAX_REFUSALS = 100


async def in_thread(fn: Callable[[], Any], limiter: anyio.CapacityLimiter, place: Place) -> Any:
    """Run ``fn`` in a worker thread, in a copy of this context, and stay until it has ended.

    ``place.worker`` names the thread meanwhile. The threads are AnyIO's, so that user code which calls
    ``anyio.from_thread`` works as it does under DSPy. A thread can't be killed: the program meets a stop at its next LM
    or tool call. Cancelling this wait while no thread is free ends it at once.
    """

    def work() -> Any:
        place.check()
        place.worker = threading.get_ident()
        try:
            return fn()
        except StopIteration as exc:
            raise RuntimeError("the program raised StopIteration") from exc
        finally:
            place.worker = None
            # Stopped in the middle of an engine's call, the program has left it; its slot is held all the same.
            concurrent.futures.wait(set(place.works))

    return await to_thread(work, limiter)


async def to_thread(fn: Callable[[], Any], limiter: anyio.CapacityLimiter) -> Any:
    """Run ``fn`` in a worker thread and stay until it has ended, whatever happens to this task meanwhile.

    A cancellation is raised once the thread has ended; at once while there is no free thread. AnyIO alone stays
    for its own cancel scopes only: ``task.cancel()`` makes it leave.
    """
    async with limiter:
        running = asyncio.ensure_future(anyio.to_thread.run_sync(_contained, fn, limiter=anyio.CapacityLimiter(1)))
        try:
            await ended(running)
        except asyncio.CancelledError:
            if not running.cancelled():
                running.exception()  # nobody is there to hear of it
            raise
        result = running.result()
    if isinstance(result, _Exit):
        raise result.error
    return result


class _Exit:
    """What a thread ended with where asyncio would throw it out of the whole loop, and not of one task alone."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _contained(fn: Callable[[], Any]) -> Any:
    try:
        return fn()
    except (KeyboardInterrupt, SystemExit) as exc:
        return _Exit(exc)


_parked: list[InlineGreenlet] = []


def parked() -> int:
    """Return how many programs swallowed their cancellation so often that they were left standing."""
    return len(_parked)


async def inline(fn: Callable[[], Any], place: Place) -> Any:
    """Run synchronous ``fn`` on this loop in a greenlet that is switched out while an LM works.

    The greenlet shares this task's context, so settings changed in the program are seen by the LM
    call and the other way round. Measured: under 1 µs a switch. Code that blocks is warned about.
    """
    g = InlineGreenlet(fn)
    g.gr_context = greenlet.getcurrent().gr_context
    try:
        with watch:
            value = _step(g.switch)
            while not g.dead:
                error = place.stopped
                if error is not None:
                    if hasattr(value, "close"):
                        value.close()
                    g.refused += 1
                    if g.refused > MAX_REFUSALS:
                        _parked.append(g)
                        raise Stop(error)
                    value = _step(g.throw, Stop(error))
                    continue
                try:
                    result = await value
                except BaseException as exc:
                    value = _step(g.throw, Stop(place.stopped) if place.stopped is not None else exc)
                else:
                    value = _step(g.switch, result)
        return value
    finally:
        del g  # no traceback carries a greenlet: see bridge.in_inline_run


def _step(switch: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return watch.step(switch, *arguments)
    except RuntimeError as exc:
        _explain(exc)
        raise
    finally:
        del switch, arguments


# What asyncio says to code that wants a loop of its own where one is running.
_NO_LOOP_HERE = (
    "cannot be called from a running event loop",
    "event loop is already running",
    "another loop is running",
)


def _explain(error: RuntimeError) -> None:
    """Say in the error of an inline program why asyncio refused it a loop of its own."""
    if any(words in str(error) for words in _NO_LOOP_HERE):
        error.add_note(
            "The program runs with execution='inline', on the event loop itself, so that it can't run another one: "
            "use execution='thread', or await this in an aforward()."
        )
