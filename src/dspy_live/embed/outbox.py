"""Replies on their way to the host: all that one turn of the loop produces crosses at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, Literal

import msgspec

from dspy_live.core.events import Event
from dspy_live.embed.wire import Failure, Loaded, Prediction

End = Literal[True] | Failure | None


class Outbox:
    """Collects replies and hands them over, one crossing for all that is ready.

    Args:
        deliver: takes one batch as JSON; called on the loop's thread, once per turn of the loop at most.
        loop: the loop whose turns are meant.
    """

    def __init__(self, deliver: Callable[[bytes], object], loop: asyncio.AbstractEventLoop) -> None:
        self._deliver = deliver
        self._loop = loop
        self._waiting: list[tuple[int, list[Any], End]] = []
        self._encoder = msgspec.json.Encoder(enc_hook=plain)

    def send(self, run: int, events: Sequence[Event | Loaded | Prediction], end: End = None) -> None:
        """Add a reply. Never waits: how much may be on its way is the sender's to count."""
        if not self._waiting:
            self._loop.call_soon(self.flush)
        elif end is None and self._waiting[-1][0] == run and self._waiting[-1][2] is None:
            self._waiting[-1][1].extend(events)
            return
        self._waiting.append((run, list(events), end))

    def flush(self) -> None:
        """Hand over what waits."""
        if self._waiting:
            batch, self._waiting = self._waiting, []
            encoded = self._encode(batch)
            del batch  # the host makes its own of it, which for a long reply is large
            self._deliver(encoded)

    def _encode(self, batch: list[tuple[int, list[Any], End]]) -> bytes:
        try:
            return self._encoder.encode(batch)
        except (TypeError, ValueError, RecursionError):
            # Lone surrogates, keys that are no strings, cycles: only what can't be encoded becomes its text.
            return b"[" + b",".join([self._one(entry) for entry in batch]) + b"]"

    def _one(self, entry: tuple[int, list[Any], End]) -> bytes:
        run, events, end = entry
        return b"[%d,[%b],%b]" % (run, b",".join([self._safely(event) for event in events]), self._safely(end))

    def _safely(self, value: Any) -> bytes:
        try:
            return self._encoder.encode(value)
        except (TypeError, ValueError, RecursionError):
            return json.dumps(_whole(value, 0)).encode()


def plain(value: Any) -> Any:
    """Return the nearest thing that JSON has a form for; in the end the value's ``str``."""
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump(mode="json")
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Set):
        return list(value)
    return str(value)


_DEEP = 100
"""Levels of nesting that are followed; whatever is deeper, such as a cycle, becomes an ellipsis."""


def _whole(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        # Half a surrogate pair has no form in UTF-8.
        return value.encode("utf-8", "replace").decode()
    if value is None or isinstance(value, (bool, int, float)):
        return value if value == value and value not in (float("inf"), float("-inf")) else None
    if depth > _DEEP:
        return "…"
    if isinstance(value, msgspec.Struct):
        tag = value.__struct_config__.tag
        fields = {name: getattr(value, name) for name in value.__struct_fields__}
        return _whole(fields if tag is None else {"type": tag, **fields}, depth + 1)
    if isinstance(value, Mapping):
        return {_whole(str(key), depth): _whole(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple, Set)):
        return [_whole(item, depth + 1) for item in value]
    return _whole(plain(value), depth + 1)
