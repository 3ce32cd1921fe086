"""Runs a small scenario under every order in which its callbacks could run, up to a stated bound.

The order in which ready callbacks run is a choice at each step; all combinations of choices are walked through, depth
first. The bound is a number of *delays* (Emmi, Qadeer and Rakamarić, "Delay-bounded scheduling", 2011): the
loop's own order costs nothing, and each time that the front callback has to stand back for another costs one.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Coroutine
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any

from dspy_live.testing.virtual_time import Deadlock

MAX_STEPS = 10_000
"""Callbacks in one run, above which it is taken for a loop without an end."""


@dataclass(slots=True)
class _Path:
    """The choices of the run at hand: for each step what was chosen, out of how many."""

    delays: int
    choices: list[list[int]] = field(default_factory=list)
    step: int = 0
    spent: int = 0

    def choose(self, options: int) -> int:
        options = min(options, self.delays - self.spent + 1)
        if self.step == len(self.choices):
            self.choices.append([0, options])
        chosen, before = self.choices[self.step]
        if before != options:
            raise RuntimeError("the scenario is not deterministic: it went another way under the same choices")
        self.step += 1
        self.spent += chosen
        return chosen

    def advance(self) -> bool:
        """Go on to the next path; False when all were walked."""
        while self.choices and self.choices[-1][0] + 1 >= self.choices[-1][1]:
            self.choices.pop()
        if not self.choices:
            return False
        self.choices[-1][0] += 1
        self.step = self.spent = 0
        return True


class _ExploringLoop:
    """As much of a loop as tasks, futures and timers need; time is virtual, a timer may fire at any moment."""

    def __init__(self, path: _Path) -> None:
        self._path = path
        self._ready: list[asyncio.Handle] = []
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._numbers = itertools.count()
        self._now = 0.0
        self._errors: list[dict[str, Any]] = []
        self._loop: Any = self

    def run(self, main: Coroutine[Any, Any, object]) -> None:
        asyncio._set_running_loop(self._loop)
        try:
            task = self.create_task(main)
            for _ in range(MAX_STEPS):
                if task.done():
                    break
                self._run_one()
            else:
                raise Deadlock(f"the scenario did not end within {MAX_STEPS} callbacks")
            task.result()
            if self._errors:
                context = self._errors[0]
                raise context.get("exception") or RuntimeError(context["message"])
        finally:
            asyncio._set_running_loop(None)

    def _run_one(self) -> None:
        self._ready = [handle for handle in self._ready if not handle.cancelled()]
        self._timers = [timer for timer in self._timers if not timer[2].cancelled()]
        heapq.heapify(self._timers)
        options = len(self._ready) + bool(self._timers)
        if not options:
            raise Deadlock("no callback is ready and no timer is set, but the scenario has not ended")
        chosen = self._path.choose(options)
        if chosen < len(self._ready):
            self._ready.pop(chosen)._run()
        else:
            when, _, timer = heapq.heappop(self._timers)
            self._now = max(self._now, when)
            timer._run()

    def time(self) -> float:
        return self._now

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self._loop, context)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self._loop, context)
        heapq.heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Called by a timer that is cancelled; it is swept out at the next step."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self._loop)

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=self._loop, **options)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self._errors.append(context)


def explore(scenario: Callable[[], Coroutine[Any, Any, object]], *, delays: int, most: int = 1_000_000) -> int:
    """Run ``scenario()`` under every schedule with up to ``delays`` delays and return how many these were.

    The scenario checks itself with ``assert`` and must end by itself; a timer may fire at any moment, not only when
    nothing else is ready. An assertion that fails names the schedule in a note.

    The scenario must be deterministic: no random numbers, no real clock, no order of a set of objects.

    Raises:
        Deadlock: under some schedule nothing is left to do and the scenario has not ended.
        RuntimeError: there are more than ``most`` schedules: use a smaller scenario or bound.
    """
    path = _Path(delays)
    for count in itertools.count(1):
        try:
            _ExploringLoop(path).run(scenario())
        except BaseException as exc:
            exc.add_note(f"schedule {count}: {[chosen for chosen, _ in path.choices]}")
            raise
        if not path.advance():
            return count
        if count >= most:
            raise RuntimeError(f"there are more than {most} schedules")
    raise AssertionError("unreachable")
