"""``Parallel``: many (module, example) pairs at once, in place of ``dspy.Parallel``."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

import anyio
import dspy
import tqdm

from dspy_live.programs.internals import settings
from dspy_live.runtime.execution.bridge import in_inline_run, switch_out
from dspy_live.runtime.execution.execution import to_thread

logger = logging.getLogger("dspy_live.parallel")

Pair = tuple[Any, Any]


class TooManyErrors(Exception):
    """``max_errors`` pairs have failed; the rest was not started. ``__cause__`` is the last failure."""


class Parallel:
    """Runs pairs of a module and its example, in threads, and returns the results in order.

    As ``dspy.Parallel``, but: the whole context goes along (context variables too), usage is counted in the
    caller's own tracker, nobody's question is sent twice, and a run that is stopped stops here.

    Args:
        num_threads: how many run at once; ``dspy.settings.num_threads`` by default.
        max_errors: this many failures stop the rest; ``dspy.settings.max_errors`` by default.
        access_examples: hand an ``Example`` over as keyword arguments (its inputs) rather than as it is.
        return_failed_examples: return ``(results, failed examples, exceptions)``.
        provide_traceback: log tracebacks of failures; ``dspy.settings.provide_traceback`` by default.
        disable_progress_bar: show none.
        timeout: accepted for DSPy's sake. There it is the time after which a question is asked again.
        straggler_limit: likewise.

    Calling it raises :class:`TooManyErrors`. A pair that fails leaves ``None`` in its place.
    """

    def __init__(
        self,
        num_threads: int | None = None,
        max_errors: int | None = None,
        access_examples: bool = True,
        return_failed_examples: bool = False,
        provide_traceback: bool | None = None,
        disable_progress_bar: bool = False,
        timeout: int = 120,
        straggler_limit: int = 3,
    ) -> None:
        self.num_threads = num_threads or settings.num_threads
        self.max_errors = settings.max_errors if max_errors is None else max_errors
        self.access_examples = access_examples
        self.return_failed_examples = return_failed_examples
        self.provide_traceback = settings.provide_traceback if provide_traceback is None else provide_traceback
        self.disable_progress_bar = disable_progress_bar
        self.timeout = timeout
        self.straggler_limit = straggler_limit

    def __call__(self, exec_pairs: Iterable[Pair], num_threads: int | None = None) -> Any:
        """Run the pairs and return their results in order."""
        return self.forward(exec_pairs, num_threads)

    def forward(self, exec_pairs: Iterable[Pair], num_threads: int | None = None) -> Any:
        """Run the pairs in threads and wait for them."""
        pairs = list(exec_pairs)
        outcome = _Outcome(self, pairs)
        pool = ThreadPoolExecutor(max_workers=num_threads or self.num_threads, thread_name_prefix="dspy-live-parallel")
        waiting: dict[Future[Any], int] = {}
        try:
            for index, (module, example) in enumerate(pairs):
                context = contextvars.copy_context()
                waiting[pool.submit(context.run, self._call, outcome, module, example)] = index
            todo = set(waiting)
            while todo:
                done, todo = _wait(todo)
                for future in done:
                    outcome.settle(waiting[future], future.result)
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        except BaseException:
            # What has started is over before this is: a slot that is held for it is given back no sooner.
            pool.shutdown(wait=False, cancel_futures=True)
            _wait({future for future in waiting if not future.done()}, ALL_COMPLETED)
            raise
        finally:
            pool.shutdown(wait=False)
            outcome.close()
        return outcome.result()

    async def acall(self, exec_pairs: Iterable[Pair], num_threads: int | None = None) -> Any:
        """The same to await: each module's ``acall``, a thread only for one that has none of its own."""
        pairs = list(exec_pairs)
        outcome = _Outcome(self, pairs)
        limit = num_threads or self.num_threads
        slots, threads = asyncio.Semaphore(limit), anyio.CapacityLimiter(limit)

        async def one(index: int, module: Any, example: Any) -> None:
            async with slots:
                try:
                    args, kwargs = self._arguments(module, example)
                    if hasattr(module, "aforward") or isinstance(module, Parallel):
                        value = await module.acall(*args, **kwargs)
                    else:
                        value = await to_thread(lambda: module(*args, **kwargs), threads)
                except Exception as exc:
                    outcome.failed(index, exc)
                except (KeyboardInterrupt, SystemExit) as exc:
                    # From a task asyncio would throw these two out of the whole loop.
                    raise BaseExceptionGroup("a pair", [exc]) from None
                else:
                    outcome.settle(index, lambda: value)

        try:
            async with asyncio.TaskGroup() as group:
                for index, (module, example) in enumerate(pairs):
                    group.create_task(one(index, module, example))
        except BaseExceptionGroup as group_error:
            first = group_error.exceptions[0]
            raise (first.exceptions[0] if isinstance(first, BaseExceptionGroup) else first) from None
        finally:
            outcome.close()
        return outcome.result()

    def _call(self, outcome: _Outcome, module: Any, example: Any) -> Any:
        # Counted here: threads are quicker at beginning pairs than the caller at looking at what ended.
        if outcome.over:
            return None
        try:
            args, kwargs = self._arguments(module, example)
            return module(*args, **kwargs)
        except Exception:
            outcome.failures.append(None)
            raise
        except BaseException:
            outcome.stopped = True
            raise

    def _arguments(self, module: Any, example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if isinstance(example, dspy.Example):
            return ((), dict(example.inputs())) if self.access_examples else ((example,), {})
        if isinstance(example, dict):
            return (), example
        if isinstance(example, tuple):
            return example, {}
        if isinstance(example, list) and isinstance(module, (Parallel, dspy.Parallel)):
            return (example,), {}
        raise ValueError(
            f"an example is a dspy.Example, a dict, a tuple or a list of pairs; got {type(example).__name__}"
        )


def _wait(futures: set[Future[Any]], until: str = FIRST_COMPLETED) -> tuple[set[Future[Any]], set[Future[Any]]]:
    """Wait in this thread; in an inline run only the run waits, and its loop goes on."""
    if not in_inline_run() or not futures:
        return wait(futures, return_when=until)
    switch_out(_ended(futures, len(futures) if until == ALL_COMPLETED else 1))
    done = {future for future in futures if future.done()}
    return done, futures - done


async def _ended(futures: set[Future[Any]], count: int) -> None:
    """Wait until ``count`` of them have ended. Cancellation leaves them as they are."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Semaphore(0)
    for future in futures:
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(ended.release))
    for _ in range(count):
        await ended.acquire()


class _Outcome:
    def __init__(self, parallel: Parallel, pairs: list[Pair]) -> None:
        self._parallel = parallel
        self._pairs = pairs
        self._results: list[Any] = [None] * len(pairs)
        self._errors: dict[int, Exception] = {}
        self.failures: list[None] = []
        self.stopped = False
        # None where there is to be none: a disabled one fails when another thread's dspy.Parallel begins meanwhile.
        self._bar = (
            None if parallel.disable_progress_bar else tqdm.tqdm(total=len(pairs), dynamic_ncols=True, file=sys.stdout)
        )

    @property
    def over(self) -> bool:
        """True when no further pair is to begin."""
        return self.stopped or len(self.failures) >= self._parallel.max_errors

    def settle(self, index: int, get: Callable[[], Any]) -> None:
        """Take one result. A stop, being no ``Exception``, goes through and ends the rest."""
        try:
            self._results[index] = get()
        except Exception as exc:
            self.failed(index, exc)
        if self._bar is not None:
            self._bar.update()

    def failed(self, index: int, exc: Exception) -> None:
        """Take one failure; one too many ends the rest."""
        self._errors[index] = exc
        trace = f"\n{''.join(traceback.format_exception(exc))}" if self._parallel.provide_traceback else ""
        logger.error("pair %d failed: %s%s", index, exc, trace)
        if len(self._errors) >= self._parallel.max_errors:
            raise TooManyErrors(
                f"{len(self._errors)} of {len(self._pairs)} pairs failed, and max_errors is {self._parallel.max_errors}"
            ) from exc

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def result(self) -> Any:
        if not self._parallel.return_failed_examples:
            return self._results
        failed = sorted(self._errors)
        return self._results, [self._pairs[i][1] for i in failed], [self._errors[i] for i in failed]
