"""The legal order of events, as tables. What breaks it is a bug of the sender and fails where it is sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from dspy_live.core.errors import LifecycleError
from dspy_live.core.events import (
    Completion,
    Custom,
    Event,
    Partial,
    Predicted,
    Reasoning,
    Restart,
    Started,
    Status,
    TextDelta,
    Token,
    Tool,
    Usage,
)

State: TypeAlias = Literal["new", "running", "done"]
Table: TypeAlias = Mapping[State, Mapping[type, State]]

_ANY: Mapping[type, State] = dict.fromkeys(
    (Status, Token, Partial, Restart, Reasoning, Tool, Usage, Custom, TextDelta), "running"
)

PROGRAM: Table = {
    "new": {Started: "running"},
    "running": {**_ANY, Predicted: "done"},
    "done": {},
}
"""A program's run: ``Started`` first, one ``Predicted`` at the end, nothing after it."""

LM: Table = {
    "new": {**_ANY, Completion: "done"},
    "running": {**_ANY, Completion: "done"},
    "done": {},
}
"""An LM's call: text as it comes, or none, then one ``Completion``."""


class Lifecycle:
    """Checks the events of one call, one after the other.

    Beyond the table: a field that has had its last token, or its final value, is silent until a
    ``Restart`` makes void what it said. A failure may come at any point and is not an event.
    """

    __slots__ = ("_complete", "_row", "_state", "_table")

    def __init__(self, table: Table = PROGRAM) -> None:
        self._table = table
        self._state: State = "new"
        self._row = table["new"]
        self._complete: set[tuple[int, str]] = set()

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
        if kind is Token or kind is Partial or kind is Restart:
            self._check_field(event)
        if state is not self._state:
            self._state = state
            self._row = self._table[state]

    def end(self) -> None:
        """Take note of the end without a failure. Raises LifecycleError when the result is missing."""
        if self._state != "done":
            raise LifecycleError(f"the stream ended in a run that is {self._state}; {self._expected()}")

    def _check_field(self, event: Event) -> None:
        complete = self._complete
        if isinstance(event, Token):
            if complete and (event.lm_call, event.field) in complete:
                self._refuse_field(event)
            if event.last:
                complete.add((event.lm_call, event.field))
        elif isinstance(event, Partial):
            if (event.lm_call, event.field) in complete:
                self._refuse_field(event)
            if event.final:
                complete.add((event.lm_call, event.field))
        elif isinstance(event, Restart):
            # A copy: a thread of the program's own may finish a field meanwhile.
            done = list(complete)
            void = [key for key in done if key[0] == event.lm_call and (not event.fields or key[1] in event.fields)]
            complete.difference_update(void)

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
        if not row:
            lines.append(f"    {state} --> [*]")
        for target in dict.fromkeys(row.values()):
            kinds = ", ".join(kind.__name__ for kind, to in row.items() if to == target)
            lines.append(f"    {state} --> {target}: {kinds}")
    return "\n".join(lines) + "\n"
