"""The user's own coroutines from synchronous code: an async tool, an async program behind ``syncify``.

Unlike an LM call this runs code of the user's, which may itself wait for a loop, so that it never
goes to the I/O loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from dspy_live.programs.run.run import current_run
from dspy_live.runtime.execution import background
from dspy_live.runtime.execution.bridge import in_inline_run, run_on, switch_out

T = TypeVar("T")


def run_coroutine(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run ``make()`` to its end for a synchronous caller, and return its result.

    In an inline run the greenlet waits, in a run's worker thread the thread, with the coroutine on
    the run's own loop. Anywhere else it goes to the background loop; on a loop's own thread that
    loop stands still meanwhile. Raises what the coroutine raises, and ``Stop`` when the run ends.
    """
    run = current_run()
    if in_inline_run():
        return switch_out(make())
    if run is not None:
        run.check()
    here = asyncio._get_running_loop()
    if here is None and run is not None and run.worker == threading.get_ident():
        return run_on(run.loop, make, run)
    if here is not background.runs.loop:
        return run_on(background.runs.loop, make, run)
    return _in_a_thread(make)


def _in_a_thread(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Called on the background loop itself: it can't wait for itself."""
    outcome: list[T] = []
    failure: list[BaseException] = []
    context = contextvars.copy_context()

    def work() -> None:
        try:
            outcome.append(context.run(asyncio.run, make()))
        except BaseException as exc:
            failure.append(exc)

    thread = threading.Thread(target=work, name="dspy-live-coroutine", daemon=True)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]
