"""Faults of an LM's endpoint, by chance or by schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Literal, TypeAlias, get_args

FaultName: TypeAlias = Literal[
    "400",
    "401",
    "429",
    "500",
    "503",
    "context",
    "html",
    "no_stream_options",
    "stall_start",
    "cut_start",
    "stall",
    "cut",
    "malformed",
    "error_in_stream",
    "no_done",
    "no_usage",
    "drip",
    "wrong_format",
    "missing_field",
    "empty",
]
"""The faults.

Instead of a reply: ``400`` ``401`` ``429`` ``500`` ``503`` with OpenAI's error object, ``context`` (400, the prompt
is too long), ``html`` (502 with a page in HTML), ``no_stream_options`` (400 if the request has ``stream_options``),
``stall_start`` (silence), ``cut_start`` (the connection is closed).
In the middle of a reply: ``stall``, ``cut``, ``malformed`` (a chunk that is no JSON; the stream goes on),
``error_in_stream`` (an error object, then ``[DONE]``), ``no_done`` (a proper end without ``[DONE]``),
``no_usage`` (usage is left out), ``drip`` (a few bytes at a time).
In its text: ``wrong_format`` (prose without the format), ``missing_field`` (the last field is missing), ``empty``.
"""

ALL: tuple[FaultName, ...] = get_args(FaultName)


@dataclass(frozen=True, slots=True)
class Faults:
    """The faults of an endpoint, and how often they strike.

    Args:
        rates: a fault's probability for each request; they add up, at most to 1.
        schedule: faults of the next requests, in order of arrival, ``None`` for a request that
            goes well; ``rates`` apply after its end.

    Raises:
        ValueError: for an unknown fault, a negative rate, or rates over 1 in sum.
    """

    rates: Mapping[FaultName, float] = field(default_factory=dict)
    schedule: tuple[FaultName | None, ...] = ()

    def __post_init__(self) -> None:
        for name in (*self.rates, *self.schedule):
            if name is not None and name not in ALL:
                raise ValueError(f"the simulator has no fault {name!r}; it has {', '.join(ALL)}")
        if any(not rate >= 0 for rate in self.rates.values()) or sum(self.rates.values()) > 1 + 1e-9:
            raise ValueError("fault rates must be 0 or more and at most 1 in sum")

    @classmethod
    def every(cls, rate: float, *, but: tuple[FaultName, ...] = ()) -> Faults:
        """Every fault (``but`` these) with an equal share of ``rate``."""
        names = [name for name in ALL if name not in but]
        return cls({name: rate / len(names) for name in names})

    def draw(self, number: int, rng: Random) -> FaultName | None:
        """Return the fault of request ``number``, counted from 0 since these faults were set."""
        if number < len(self.schedule):
            return self.schedule[number]
        point = rng.random()
        for name, rate in self.rates.items():
            point -= rate
            if point < 0:
                return name
        return None
