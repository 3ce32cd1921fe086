"""The legal order of a run's events, as a table. An event that breaks it is a bug of its sender and fails there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from dspy_live.core.errors import LifecycleError
from dspy_live.core.events import (
    Custom,
    Event,
    Partial,
    Reasoning,
    Restart,
    Started,
    Status,
    TextDelta,
    Token,
    Tool,
    Usage,
)

State: TypeAlias = Literal["new", "running"]
Table: TypeAlias = Mapping[State, Mapping[type, State]]

_ANY: Mapping[type, State] = dict.fromkeys(
    (Status, Token, Partial, Restart, Reasoning, Tool, Usage, Custom, TextDelta), "running"
)

PROGRAM: Table = {"new": {Started: "running"}, "running": _ANY}
"""A program's run: ``Started`` once and first. The result is no event: it is what the service returns."""

LM: Table = {"new": _ANY, "running": _ANY}
"""An LM's call: text as it comes, or none."""


_OF_FIELDS = frozenset({Token, Partial, Restart})
_NONE: frozenset[tuple[int, str]] = frozenset()


class Lifecycle:
    """Checks the events of one call, one after the other.

    Beyond the table: a field that has had its last token, or its final value, is silent until a
    ``Restart`` makes its text void. A failure may come at any point and is not an event.
    """

    __slots__ = ("_row", "_state", "_table", "complete")

    def __init__(self, table: Table = PROGRAM) -> None:
        self._table = table
        self._state: State = "new"
        self._row = table["new"]
        self.complete: frozenset[tuple[int, str]] = _NONE
        """The LM call and the name of each field that is silent now."""

    @property
    def state(self) -> State:
        return self._state

    def check(self, event: Event) -> None:
        """Take note of ``event``.

        Raises:
            LifecycleError: it may not come now. The state is unchanged.
        """
        kind = type(event)
        state = self._row.get(kind)
        if state is None:
            raise LifecycleError(f"{kind.__name__} may not come in a run that is {self._state}; {self._expected()}")
        if kind in _OF_FIELDS:
            self._check_field(event)
        if state is not self._state:
            self._state = state
            self._row = self._table[state]

    def _check_field(self, event: Event) -> None:
        complete = self.complete
        if isinstance(event, Token):
            if complete and (event.lm_call, event.field) in complete:
                self._refuse_field(event)
            if event.last:
                self.complete |= {(event.lm_call, event.field)}
        elif isinstance(event, Partial):
            if (event.lm_call, event.field) in complete:
                self._refuse_field(event)
            if event.final:
                self.complete |= {(event.lm_call, event.field)}
        elif complete and isinstance(event, Restart):
            void = [key for key in complete if key[0] == event.lm_call and (not event.fields or key[1] in event.fields)]
            self.complete = complete.difference(void)

    def _refuse_field(self, event: Token | Partial) -> None:
        raise LifecycleError(
            f"{type(event).__name__} for field {event.field!r} of LM call {event.lm_call}, which was complete; "
            "a Restart must come first"
        )

    def _expected(self) -> str:
        return f"expected {', '.join(kind.__name__ for kind in self._row) or 'nothing more'}"


def mermaid(table: Table = PROGRAM) -> str:
    """Return the table as a Mermaid state diagram, for the documentation."""
    lines = ["stateDiagram-v2", "    [*] --> new"]
    for state, row in table.items():
        for target in dict.fromkeys(row.values()):
            kinds = ", ".join(kind.__name__ for kind, to in row.items() if to == target)
            lines.append(f"    {state} --> {target}: {kinds}")
    lines.append("    running --> [*]")
    return "\n".join(lines) + "\n"
