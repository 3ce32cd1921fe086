"""A run inside a run: a program that awaits another one through ``asyncify`` goes on speaking to its own reader."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from dspy_live.core.events import Event, Started
from dspy_live.programs.fields.names import Names
from dspy_live.programs.run.run import Run, current_run


def run_around() -> Run | None:
    """Return the run that a call which is made here is a part of, or ``None``.

    On another loop than the run's (``asyncio.run`` in one of its threads) the call is a run of its own.
    """
    outer = current_run()
    return outer if outer is not None and outer.loop is asyncio.get_running_loop() else None


def inherited() -> dict[str, Any]:
    """Return what a call that is made inside a run takes over from it: budgets, key, trace and deadline."""
    outer = current_run()
    if outer is None:
        return {}
    theirs = outer.call
    deadline = theirs.deadline if outer.loop is asyncio.get_running_loop() else None
    return {"meters": outer.call.meters, "key": theirs.key, "trace": theirs.trace, "deadline": deadline}


class InnerSink:
    """The sink of a run inside another one: its words, tools and usage become events of the outer run.

    Its LM calls get numbers of the outer run's. Its result is its own.
    """

    __slots__ = ("_numbers", "_outer", "room")

    def __init__(self, outer: Run) -> None:
        self._outer = outer
        self._numbers: dict[int, int] = {}
        self.room = outer.room

    def push(self, event: Event) -> bool:
        if type(event) is Started:
            return True
        number = getattr(event, "lm_call", None)
        if number is not None:
            ours = self._numbers.get(number)
            if ours is None:
                ours = self._numbers[number] = next(self._outer.numbers)
            event = msgspec.structs.replace(event, lm_call=ours)
        return self._outer.push(event)


class InnerNames(Names):
    """Paths as the outer program has them; what is no part of it, by the inner program's name and path."""

    def __init__(self, inner: Names, outer: Names, program: str) -> None:
        self.program = inner.program
        self._inner = inner
        self._outer = outer
        self._name = program

    def path(self, module: Any) -> str:
        if self._outer.has(module):
            return self._outer.path(module)
        if not self._inner.has(module):
            return self._inner.path(module)
        path = self._inner.path(module)
        return self._name if path == "self" else f"{self._name}.{path}"

    def has(self, module: Any) -> bool:
        return self._outer.has(module) or self._inner.has(module)
