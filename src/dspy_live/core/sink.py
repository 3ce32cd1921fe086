"""The short way from an LM to who takes its words: a call for each piece of text, with no task in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Sink(Protocol):
    """Takes an LM's words as they arrive. False means: pause, and go on when ``on_room`` calls."""

    def text(self, text: str) -> bool: ...
    def reasoning(self, text: str) -> bool: ...
    def on_room(self, callback: Callable[[], object]) -> None: ...

    def restart(self, reason: str) -> None:
        """What was said so far is void: the LM is asked again."""
        ...


def alive(sink: Sink) -> None:
    """Tell a sink that the LM works on what is no word for it: a tool call, another completion.

    Only those that time the LM's silence want to know: they have a method ``alive``.
    """
    tell = getattr(sink, "alive", None)
    if tell is not None:
        tell()


class Attachable(Protocol):
    """What the receiver of an LM service may offer beside its events; then the events are not read."""

    async def attach(self, sink: Sink) -> Any:
        """Read the reply, hand its words to ``sink`` as they arrive, and return the whole of it.

        Raises the stream's failure. Cancelling it ends the reading.
        """
        ...
