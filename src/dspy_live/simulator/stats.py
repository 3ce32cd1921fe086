"""Counters of the requests, tokens and disconnects that the simulated LM has served."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

_REMEMBERED = 1000
"""The last disconnects that are kept in full."""


@dataclass(slots=True)
class Served:
    """Tokens of one model.

    ``replies`` had their usage written to the client, and the first three counts are the sums of those
    usages. The ``unreported`` ones were cut, failed or not asked for usage: what was written of them is
    counted apart.
    """

    replies: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    unreported_replies: int = 0
    unreported_prompt_tokens: int = 0
    unreported_completion_tokens: int = 0

    def as_dict(self) -> dict[str, int]:
        """The counts with ``total_tokens``."""
        counts = {name: getattr(self, name) for name in self.__slots__}
        return {**counts, "total_tokens": self.prompt_tokens + self.completion_tokens}


@dataclass(frozen=True, slots=True)
class Disconnect:
    """A client that left before its reply's end.

    ``at`` is ``time.monotonic()`` of this machine when the server noticed, ``chunks`` and ``tokens`` what
    had been written to it by then.
    """

    at: float
    request: str
    chunks: int
    tokens: int


@dataclass(slots=True)
class Stats:
    """Counters since the start or the last reset."""

    connections: int = 0
    requests: int = 0
    active: int = 0
    peak_active: int = 0
    finished: int = 0
    chunks: int = 0
    bytes: int = 0
    disconnects: int = 0
    refused: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    models: dict[str, Served] = field(default_factory=dict)
    left: deque[Disconnect] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))

    def began(self) -> None:
        """A reply begins."""
        self.active += 1
        self.peak_active = max(self.peak_active, self.active)

    def book(self, model: str, prompt_tokens: int, completion_tokens: int, *, reported: bool) -> None:
        """Count one reply's tokens, as its usage reported them or else as they were written."""
        served = self.models.setdefault(model, Served())
        if reported:
            served.replies += 1
            served.prompt_tokens += prompt_tokens
            served.completion_tokens += completion_tokens
        else:
            served.unreported_replies += 1
            served.unreported_prompt_tokens += prompt_tokens
            served.unreported_completion_tokens += completion_tokens

    def gone(self, request: str, chunks: int, tokens: int) -> None:
        """A client has left in the middle of a reply."""
        self.disconnects += 1
        self.left.append(Disconnect(time.monotonic(), request, chunks, tokens))

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {
            **{name: getattr(self, name) for name in self.__slots__ if name not in ("faults", "models", "left")},
            "faults": dict(self.faults),
            "models": {name: served.as_dict() for name, served in self.models.items()},
            "left": [
                {"at": gone.at, "request": gone.request, "chunks": gone.chunks, "tokens": gone.tokens}
                for gone in self.left
            ],
        }
