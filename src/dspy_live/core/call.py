"""One request for work: what is asked, by whom, until when."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Overflow = Literal["block", "coalesce", "drop_oldest"]


_MANY = 128
_ready: list[str] = []


def new_id() -> str:
    """Return a fresh call id: a UUID of version 7 (RFC 9562) without its dashes, 32 hexadecimal digits.

    It begins with the time in milliseconds, so that ids sort by age and a database finds the place of a new one
    where it has put the last; 74 bits behind it are random, so that nobody guesses one.
    """
    try:
        rest = _ready.pop()
    except IndexError:
        rest = _more()
    return f"{time.time_ns() // 1_000_000:012x}{rest}"


def _more() -> str:
    # Asking the system for randomness gives the GIL away, under load to whatever thread waits for it;
    # once for 128 ids is enough. (pop and extend are atomic, so that threads never get the same one.)
    random = os.urandom(10 * _MANY).hex()
    made = [f"7{random[i : i + 3]}{_VARIANT[random[i + 3]]}{random[i + 4 : i + 19]}" for i in range(0, 20 * _MANY, 20)]
    _ready.extend(made[1:])
    return made[0]


_VARIANT = {digit: "89ab"[int(digit, 16) % 4] for digit in "0123456789abcdef"}
"""Its two high bits are 10; the two others are random."""

os.register_at_fork(after_in_child=_ready.clear)


@dataclass(slots=True, frozen=True)
class Buffer:
    """How the call's channel behaves when its reader is slow.

    Args:
        size: tokens that may wait, at least 1; with ``max_size`` this is where the buffer starts.
        overflow: ``"block"`` stops the reading of the LM's socket, ``"coalesce"`` merges tokens of
            one field (up to ``max_bytes``, then blocks), ``"drop_oldest"`` drops tokens and counts them.
        max_size: the upper bound of an adaptive buffer, or ``None`` for a fixed one.
        max_bytes: the bound of a coalescing buffer, in bytes of text.
    """

    size: int = 64
    overflow: Overflow = "block"
    max_size: int | None = None
    max_bytes: int = 1 << 20

    def __post_init__(self) -> None:
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 1:
            raise ValueError(f"buffer size must be a whole number of tokens, at least 1; got {self.size!r}")
        if self.overflow not in ("block", "coalesce", "drop_oldest"):
            raise ValueError(f"overflow must be 'block', 'coalesce' or 'drop_oldest'; got {self.overflow!r}")
        if self.max_size is not None and self.max_size < self.size:
            raise ValueError(f"max_size ({self.max_size}) must not be below size ({self.size})")
        if self.max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1; got {self.max_bytes!r}")


@dataclass(slots=True)
class Call:
    """What a :class:`~dspy_live.core.service.Service` is opened with.

    Args:
        inputs: the program's inputs by field name; for an LM service the request's own fields.
        id: unique, here and everywhere; see :func:`new_id`.
        deadline: a time on the runtime's clock (seconds, monotonic), or ``None``.
        stream: true when somebody takes tokens; false lets the LM answer in one piece.
        restartable: true when the door can take words back (it understands ``Restart``).
        config: LM options for this call alone, such as ``rollout_id`` or ``temperature``.
        buffer: the bounds of the call's channel.
        attributes: anything else, by name: the API key's id, a trace parent, the program's name.
            Layers read and add; nothing in the core gives a name a meaning.
    """

    inputs: Mapping[str, Any]
    id: str = field(default_factory=new_id)
    deadline: float | None = None
    stream: bool = True
    restartable: bool = True
    config: Mapping[str, Any] = field(default_factory=dict)
    buffer: Buffer = field(default_factory=Buffer)
    attributes: dict[str, Any] = field(default_factory=dict)

    def but(self, **changes: Any) -> Call:
        """Return a copy with some fields changed; the id stays, it is still the same call."""
        return replace(self, **changes)
