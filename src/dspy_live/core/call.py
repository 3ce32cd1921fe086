"""One request for work: what is asked, by whom, until when."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from dspy_live.core.usage import Meter

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
    return (time.time_ns() // 1_000_000).to_bytes(6, "big").hex() + rest


def _more() -> str:
    # Asking the system for randomness gives the GIL away, under load to whatever thread waits for it;
    # once for 128 ids is enough. (pop and extend are atomic, so that threads never get the same one.)
    random = bytearray(os.urandom(10 * _MANY))
    random[0::10] = random[0::10].translate(_VERSION)
    random[2::10] = random[2::10].translate(_VARIANT)
    digits = random.hex()
    made = [digits[i : i + 20] for i in range(0, 20 * _MANY, 20)]
    _ready.extend(made[1:])
    return made[0]


_VERSION = bytes(0x70 | byte & 0x0F for byte in range(256))
"""Its first digit is 7; the other one is random."""
_VARIANT = bytes(0x80 | byte & 0x3F for byte in range(256))
"""Its two high bits are 10; the others are random."""

os.register_at_fork(after_in_child=_ready.clear)


@dataclass(slots=True, frozen=True)
class Buffer:
    """How the channel of a caller that reads behaves when the reader is slow.

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


class Origin(msgspec.Struct, frozen=True):
    """Which LM call of which run an LM is asked for; empty outside of any run.

    Args:
        run: the run's id.
        program: the program's name.
        predictor: the predictor's path in the program (``"rag.answer"``).
        modules: the paths of the modules around the predictor, outermost first.
        lm_call: the number of the LM call within the run, counted from 1.
    """

    run: str = ""
    program: str = ""
    predictor: str = ""
    modules: tuple[str, ...] = ()
    lm_call: int = 0


NO_ORIGIN = Origin()


class Call(msgspec.Struct, frozen=True):
    """One request to a :class:`~dspy_live.core.service.Service`. It carries data down; nothing is written into it.

    Args:
        inputs: the program's inputs by field name; for an LM service the keyword arguments of a chat completion.
        args: positional arguments of the program.
        config: LM options for this call alone, such as ``rollout_id`` or ``temperature``.
        program: the program's name.
        version: tells programs of one name apart: a fingerprint of class, signatures, demos and instructions.
        model: the LM's name, for a call of an LM.
        key: the id of the API key that asks, never the key itself.
        deadline: a time on the loop's clock in seconds, or ``None``. The ``Deadline`` layer enforces it.
        stream: true when somebody takes tokens; false lets the LM answer in one piece.
        parent: the id of the run that this call is a part of: a program that awaits another one.
        trace: the caller's W3C ``traceparent``.
        session: the conversation that the call goes on with, kept by the server for its key; empty for none.
        follows: the id of the call whose answer this one follows; empty for the session's last one.
        keep: false for a call that reads its session and leaves it as it was.
        meters: asked before each LM request of the call and told of it after, besides those in force around it.
        origin: for a call of an LM: where in which run it is made.
        id: unique, here and everywhere; see :func:`new_id`.
    """

    inputs: Mapping[str, Any] = {}
    args: tuple[Any, ...] = ()
    config: Mapping[str, Any] = {}
    program: str = ""
    version: str = ""
    model: str = ""
    key: str = ""
    deadline: float | None = None
    stream: bool = True
    parent: str = ""
    trace: str = ""
    session: str = ""
    follows: str = ""
    keep: bool = True
    meters: tuple[Meter, ...] = ()
    origin: Origin = NO_ORIGIN
    id: str = msgspec.field(default_factory=new_id)

    def but(self, **changes: Any) -> Call:
        """Return a copy with some fields changed; the id stays, it is still the same call."""
        return msgspec.structs.replace(self, **changes)
