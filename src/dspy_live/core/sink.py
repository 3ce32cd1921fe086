"""Where a service tells what happens while it works on a call."""

from __future__ import annotations

from typing import Protocol

from dspy_live.core.events import Event


class Sink(Protocol):
    """Takes the events of one call. A source pushes, and pauses when there is no room."""

    def push(self, event: Event) -> bool:
        """Take an event, on the event loop's thread. Never waits, and never raises a failure of the sink's own.

        Returns True while there is room. False asks the source to pause and to go on after :meth:`room`; what the
        source has in hand it may still push. A sink that has ended its run because it can't take words back
        answers False for good: its source waits for room until it is cancelled.
        """
        ...

    async def room(self) -> None:
        """Wait until there is room. A level, not an edge: any number may wait, and it returns at once when there is
        room or when nobody listens any more. Cancellation changes nothing."""
        ...


class Discard:
    """The sink of a caller that wants the result alone."""

    __slots__ = ()

    def push(self, event: Event) -> bool:
        return True

    async def room(self) -> None:
        return None


DISCARD = Discard()
"""Has no state, so one is enough."""
