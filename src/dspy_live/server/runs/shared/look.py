"""One look at a run in the store: what a server finds there, and a question that waits for it."""

from __future__ import annotations

from typing import Any, NamedTuple

from dspy_live.runtime.stores.line import Ask, Exchange, Line
from dspy_live.server.runs.shared.places import Places
from dspy_live.server.runs.shared.scripts import LOOK


class Seen(NamedTuple):
    """A run as the store has it.

    Args:
        id: its id.
        alive: whether its server was heard of within the lease.
        first: the number of the first frame that is kept.
        last: the number of the last frame that was told.
        over: whether it is over.
        state: what ``GET /runs/{id}`` shows, as JSON.
        reader: who reads it, nothing for nobody.
        known: whether its server has heard of the reader that asks.
        begins: the number of the first frame here.
        ends: the number of the last frame here; 0 where there is none.
        frames: those that were asked for.
    """

    id: str
    alive: bool
    first: int
    last: int
    over: bool
    state: bytes
    reader: str
    known: bool
    begins: int
    ends: int
    frames: bytes

    @property
    def runs(self) -> bool:
        """True for a run that is under way, as far as is known."""
        return self.alive and not self.over

    @classmethod
    def of(cls, answer: list[Any]) -> Seen | None:
        """Return the script's answer, ``None`` where there is no such run."""
        if answer[0] != b"run":
            return None
        _, run_id, alive, first, last, over, state, reader, known, begins, ends, frames = answer
        return cls(
            run_id.decode(), bool(alive), first, last, bool(over), state, reader.decode(), bool(known), begins, ends,
            frames,
        )  # fmt: skip


class Look:
    """A party of the line that looks once, or stops the run that it finds.

    Args:
        line: the line to the store.
        places: where runs are kept.
        run_id: the run's id, or its client's name for it.
        key: the name of the API key that it belongs to.
        act: ``look`` or ``stop``.
    """

    def __init__(self, line: Line, places: Places, run_id: str, key: str, act: str = "look") -> None:
        self.ask: Ask[list[Seen] | Exception] = Ask()
        self.settled = True
        """False where it is not found because the store came back empty and was not told everything yet."""
        self._args = ["", act, 0, line.holder, places.prefix, 0, places.name(key, run_id), places.lease]
        self._exchange = Exchange(LOOK, places.run(run_id), [key, *self._args])
        line.soon(self)

    def prepare(self, holder: str) -> Exchange | None:
        """Ask, where somebody still waits."""
        return self._exchange if self.ask.open else None

    def answered(self, answer: list[Any]) -> None:
        """Tell what there is: one run or none."""
        seen = Seen.of(answer)
        self.settled = seen is not None or bool(answer[1])
        self.ask.answer([] if seen is None else [seen])

    def failed(self, error: Exception) -> None:
        """Tell that nobody knows."""
        self.ask.answer(error)
