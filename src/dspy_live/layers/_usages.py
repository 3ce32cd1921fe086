"""Hearing of the tokens that a service reports."""

from __future__ import annotations

from collections.abc import Callable

from dspy_live.core.events import Event, Usage
from dspy_live.core.sink import Sink


class Usages:
    """A sink that hands all on, and each ``Usage`` to ``heard`` first."""

    __slots__ = ("_heard", "_sink", "room")

    def __init__(self, sink: Sink, heard: Callable[[Usage], object]) -> None:
        self._sink = sink
        self._heard = heard
        self.room = sink.room

    def push(self, event: Event) -> bool:
        if isinstance(event, Usage):
            self._heard(event)
        return self._sink.push(event)
