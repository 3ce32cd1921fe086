"""One call's part in a flight of several processes: it leads, or follows the one that does."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple
from uuid import uuid4

from dspy_live.layers._outage import Outage
from dspy_live.runtime.stores import line as shared
from dspy_live.runtime.stores.flight_script import FLIGHT
from dspy_live.runtime.stores.line import Ask, Exchange, Line

LEASE = 6.0
"""Seconds without a sign of life after which another process leads."""
AGAIN = 0.05
"""Seconds after which one that follows asks again."""
KEPT = 30.0
"""Seconds for which a result is kept for those that follow."""


class Part(NamedTuple):
    """What a call does: it makes the run (and others may follow), makes it for itself, or has its result."""

    kind: Literal["lead", "alone", "result"]
    result: bytes = b""


class SharedFlight:
    """A party of the line: asks until it leads or has the result, and says that it lives while it leads."""

    def __init__(self, line: Line, key: str, outage: Outage) -> None:
        self._line, self._key, self._outage = line, key, outage
        self._me = uuid4().hex
        self._follows = ""
        self._act: Literal["ask", "beat", "done", "left", "over"] = "ask"
        self._sent: str = "ask"
        self._body = b""
        self._ask: Ask[Part] = Ask()

    @property
    def following(self) -> bool:
        """True while it waits for another process's run."""
        return self._act == "ask" and bool(self._follows)

    async def begin(self) -> Part:
        """Wait until this call leads, has the result, or is to run alone. Cancelled meanwhile, it does nothing."""
        self._line.soon(self)
        try:
            part = await self._ask.wait(self._line)
        except BaseException:
            self._ask.withdraw()
            self.end("left")
            raise
        return part or Part("alone")

    def end(self, how: Literal["done", "left"], body: bytes = b"") -> None:
        """The run has ended with a result for all, or another may lead."""
        self._act, self._body = how, body
        self._line.soon(self)

    def prepare(self, _: str) -> Exchange | None:
        """Ask, or say what became of the run."""
        if self._act == "over":
            return None
        self._sent = self._act
        return Exchange(FLIGHT, self._key, [self._act, self._me, self._follows, LEASE, int(KEPT * 1000), self._body])

    def answered(self, answer: list[Any]) -> None:
        """Learn who leads."""
        self._outage.ends()
        if self._sent in ("done", "left"):
            self._act = "over"
            return
        kind, value = answer
        if kind == b"follow":
            self._follows = value.decode()
            if self._ask.open:
                self._line.soon(self, AGAIN)
            return
        if kind == b"result":
            self._ask.answer(Part("result", value))
            self._act = "over" if self._act == "ask" else self._act
            return
        if self._act == "ask":
            self._act = "beat"  # before the answer: the run may end before this thread goes on
            if not self._ask.answer(Part("lead")):
                self._act = "left"  # nobody waits any more, and another may lead
        self._line.soon(self, shared.BEAT if self._act == "beat" else 0.0)

    def failed(self, error: Exception) -> None:
        """Nobody is kept waiting for a saving; who leads goes on, and says so again when the server is back."""
        self._outage.begins(error)
        if self._act == "ask":
            self._ask.answer(Part("alone"))
            self._act = "over"
        elif self._act == "beat":
            self._line.soon(self, shared.REST)
        else:
            self._act = "over"
