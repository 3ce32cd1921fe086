"""Tells who follows a run from inside of its modules and tools, through DSPy's callbacks, where somebody does.

DSPy's callbacks cost every module call 170 µs: a run that nobody follows has none of them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from dspy_live.core.observer import RunFollower, RunPart
from dspy_live.programs.internals import BaseCallback
from dspy_live.programs.run.parallel_context import keep_context_in_parallel
from dspy_live.programs.run.run import Run, current_run

logger = logging.getLogger("dspy_live.programs")

_SENTINELS = frozenset({"finish", "submit"})
"""Tools by whose names ReAct's LM says that it has done; nothing is executed."""


def followers_of(run: Run) -> list[RunFollower]:
    """Return who follows ``run``. An observer that fails here follows nothing."""
    found: list[RunFollower] = []
    for observer in run.observers:
        follow = getattr(observer, "follow", None)
        if follow is None:
            continue
        try:
            follower = follow(run.call)
        except Exception:
            logger.exception("an observer failed and is ignored: %s.follow", type(observer).__name__)
            continue
        if follower is not None:
            found.append(follower)
    return found


@contextmanager
def entered(followers: list[RunFollower]) -> Iterator[None]:
    """Enter all of ``followers`` around the program's code."""
    if followers:
        keep_context_in_parallel()
    with ExitStack() as stack:
        for follower in followers:
            stack.enter_context(follower.entered())
        yield


def tell_of_tool(run: Run, name: str, seconds: float, error: BaseException | None) -> None:
    """Tell the observers of tools that a tool of ``run`` has ended. One that fails is logged and changes nothing."""
    if name in _SENTINELS:
        return
    for observer in run.observers:
        tool_ended = getattr(observer, "tool_ended", None)
        if tool_ended is None:
            continue
        try:
            tool_ended(name, seconds, error)
        except Exception:
            logger.exception("an observer failed and is ignored: %s.tool_ended", type(observer).__name__)


class PartReporter(BaseCallback):  # type: ignore[misc,unused-ignore]
    """DSPy's callbacks of one run, told to who follows it.

    The program itself is no part: it is the run. Parts of a run inside of this one are told to who follows that.
    """

    def __init__(self, run: Run, follower: RunFollower) -> None:
        self._run = run
        self._follower = follower
        self._begun = False

    def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        run = current_run()
        if run is not self._run:
            return
        if not self._begun and instance is run.names.program:
            self._begun = True
            return
        kind = type(instance)
        has_tools = isinstance(getattr(instance, "tools", None), dict)
        path = run.names.path(instance)
        part = RunPart("agent" if has_tools else "module", path, kind.__name__, _arguments(inputs))
        self._follower.part_started(call_id, part)

    def on_module_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        self._follower.part_ended(call_id, outputs, exception)

    def on_tool_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        if current_run() is self._run and instance.name not in _SENTINELS:
            part = RunPart("tool", instance.name, instance.desc or "", _arguments(inputs))
            self._follower.part_started(call_id, part)

    def on_tool_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        self._follower.part_ended(call_id, outputs, exception)


def _arguments(inputs: dict[str, Any]) -> Any:
    """Return a call's arguments by name, as DSPy's callbacks have them; those without a name under ``args``."""
    positional = inputs.get("args")
    named = inputs.get("kwargs", inputs)
    return {"args": positional, **named} if positional else named
