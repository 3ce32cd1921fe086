"""Options of the simulated LM for one reply, and the three ways to set them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, get_args

from dspy_live.simulator.faults import FaultName
from dspy_live.simulator.prompt import Format, split

_MARKER = re.compile(r"\[sim((?: +\w+=[^\s\]]+)+) *\]")
_FAULTS = frozenset(get_args(FaultName))
_WHOLE = frozenset({"after", "length", "reasoning", "size", "chunk"})
_SECONDS = frozenset({"ttft", "tps", "jitter", "retry_after", "stall"})


@dataclass(frozen=True, slots=True)
class Options:
    """The length, pace and faults of one reply.

    Args:
        ttft: seconds before the first token.
        tps: tokens per second after it; ``None`` is as fast as the socket takes them.
        jitter: share by which each wait varies, 0 to 1.
        length: tokens of the reply's last text field; ``None`` is some whole sentences, by the seed.
        size: characters of the last text field, for replies of many megabytes.
        reasoning: tokens of the reasoning channel before the answer.
        chunk: tokens per chunk of a stream.
        text: the reply's exact text, in place of one that is made up.
        fault: what goes wrong; see :data:`dspy_live.simulator.faults.FaultName`.
        after: tokens before a fault in mid-stream.
        retry_after: seconds that a refusal names in ``Retry-After``.
        stall: seconds that a stall lasts; ``None`` is until the client leaves.
        only: the fault strikes only requests for this format.
    """

    ttft: float = 0.0
    tps: float | None = None
    jitter: float = 0.0
    length: int | None = None
    size: int | None = None
    reasoning: int = 0
    chunk: int = 1
    text: str | None = None
    fault: FaultName | None = None
    after: int = 5
    retry_after: float = 1.0
    stall: float | None = None
    only: Format | None = None

    def but(self, asked: Mapping[str, Any]) -> Options:
        """These options with others on top. Raises ``ValueError`` for what is no option or does not fit it."""
        return replace(self, **{name: _checked(name, value) for name, value in asked.items()})


_NAMES = frozenset(field.name for field in fields(Options))


def _checked(name: str, value: Any) -> Any:
    if name not in _NAMES:
        raise ValueError(f"the simulator has no option {name!r}; it has {', '.join(sorted(_NAMES))}")
    if value is None or value == "none":
        return getattr(Options(), name)
    if name == "fault" and str(value) not in _FAULTS:
        raise ValueError(f"the simulator has no fault {value!r}; it has {', '.join(sorted(_FAULTS))}")
    if name not in _WHOLE and name not in _SECONDS:
        return str(value)
    number = int(value) if name in _WHOLE else float(value)
    if not number >= 0 or (name in ("chunk", "tps") and number == 0) or (name == "jitter" and number > 1):
        raise ValueError(f"the option {name!r} can't be {value}")
    return number


def asked_for(headers: Mapping[str, str], body: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a request names, the later of these winning:

    a marker in the last user message, ``[sim fault=cut after=3]``; a header ``X-Sim: fault=cut after=3``;
    a field ``"sim": {"fault": "cut", "after": 3}`` in the body (``extra_body`` of OpenAI's client).
    """
    asked: dict[str, Any] = {}
    for marker in _MARKER.findall(split(body)[1]):
        # A prompt is anybody's text: what only looks like a marker must not fail the request.
        with contextlib.suppress(ValueError):
            Options().but(_pairs(marker))
            asked |= _pairs(marker)
    asked |= _pairs(headers.get("x-sim", ""))
    named = body.get("sim")
    return asked | dict(named) if isinstance(named, Mapping) else asked


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in text.split() if "=" in pair)
