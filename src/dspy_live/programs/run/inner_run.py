"""A run inside a run: a program that awaits another one through ``asyncify`` goes on speaking to its own reader."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from dspy_live.core.events import Event, Predicted, Started
from dspy_live.programs.fields.names import Names
from dspy_live.programs.run.run import Run, current_run

if TYPE_CHECKING:
    from dspy_live.runtime.channel.channel import Channel


def around() -> dict[str, Any]:
    """Return what a call that is made here takes over from the run around it, as attributes; often nothing.

    On another loop than the run's (``asyncio.run`` in one of its threads) it is a run of its own, which
    :func:`whose` says.
    """
    outer = current_run()
    if outer is None or outer.loop is not asyncio.get_running_loop():
        return {}
    return {"outer": outer}


def whose() -> dict[str, Any]:
    """Return who pays for a call that is made here, as attributes: the budgets, key and trace of the run around it."""
    outer = current_run()
    if outer is None:
        return {}
    theirs = outer.call.attributes
    return {"meters": outer.meters, **{name: theirs[name] for name in ("key", "traceparent") if name in theirs}}


class InnerRun(Run):
    """A run whose words, tools and usage are events of the run around it; only its result is its own."""

    __slots__ = ("outer",)

    def __init__(self, outer: Run, *rest: Any) -> None:
        super().__init__(*rest)
        self.outer = outer
        self.names = _Inside(self.names, outer.names, self.program)
        self.numbers = outer.numbers
        self.raw = outer.raw
        self.status = outer.status

    @property
    def words(self) -> Channel:
        """The channel of the run that somebody reads."""
        return self.outer.words

    @property
    def root(self) -> Run:
        """The outermost run."""
        return self.outer.root

    def first_token(self) -> None:
        super().first_token()
        self.outer.first_token()

    def gives(self, field: str, text: str, lm_call: int) -> bool:
        return self.outer.gives(field, text, lm_call)

    def push(self, event: Event) -> None:
        if isinstance(event, Started | Predicted):
            super().push(event)
        else:
            self.outer.push(event)


class _Inside(Names):
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
