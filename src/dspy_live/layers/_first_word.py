"""Noticing that an LM has begun to answer, at no cost for the events that follow."""

from __future__ import annotations

from collections.abc import Callable

from dspy_live.core.events import SPOKEN, Event, Token
from dspy_live.core.outlet import Outlet, outlet_of
from dspy_live.core.sink import Sink


class FirstWord:
    """Hands all on; calls ``heard`` at the first event that carries words, then takes itself out of the way.

    Attributes:
        spoke: true once an LM has said something.
    """

    # ``push`` is an attribute, so that it can be exchanged for the sink's own.
    __slots__ = ("_heard", "_sink", "push", "room", "spoke")

    def __init__(self, sink: Sink, heard: Callable[[], object] = lambda: None) -> None:
        self._sink = sink
        self._heard = heard
        self.spoke = False
        self.room = sink.room
        self.push = self._first

    def outlet(self, token: Token | None) -> Outlet | None:
        return outlet_of(self._sink, token) if self.spoke else None

    def _first(self, event: Event) -> bool:
        if type(event) not in SPOKEN:
            return self._sink.push(event)
        self.spoke = True
        self._heard()
        room = self._sink.push(event)
        # After the push: by now a wrapper of this kind below has taken itself out of the way too.
        self.push = self._sink.push
        return room
