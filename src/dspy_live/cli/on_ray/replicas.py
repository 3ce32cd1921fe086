"""``--replicas``: a number, or a least and a most between which Ray chooses."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dspy_live.core.errors import ConfigurationError

_FORM = re.compile(r"(\d{1,5})(?::(\d{1,5}))?\Z")


@dataclass(frozen=True)
class Replicas:
    """How many replicas there are.

    Args:
        least: the fewest, at least 1.
        most: the most; the same as ``least`` for a fixed number.
        active: the runs per replica that Ray aims at where it may choose.
        up_delay: seconds for which more replicas must be wanted before there are more.
        down_delay: seconds for which fewer replicas must be wanted before there are fewer.
    """

    least: int = 1
    most: int = 1
    active: int = 100
    up_delay: float = 3.0
    down_delay: float = 120.0

    @property
    def fixed(self) -> bool:
        """True where Ray has nothing to choose."""
        return self.least == self.most


def replicas_of(text: str | None, active: int | None = None, *, flag: str = "--replicas") -> Replicas:
    """Read ``N`` or ``MIN:MAX``; without a text there is one. Raises :class:`ConfigurationError` for another form.

    ``active`` is the runs per replica that are aimed at; 100 by default. ``flag`` is how errors name the text.
    """
    if active is not None and active < 1:
        raise ConfigurationError(f"--runs-per-replica must be 1 or more; got {active}")
    match = _FORM.match((text or "1").strip())
    least, most = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= least <= most:
        raise ConfigurationError(f"{flag} takes a number or MIN:MAX, each 1 or more, such as 4 or 2:8; got {text!r}")
    if active is not None and least == most:
        raise ConfigurationError("--runs-per-replica says when there are more replicas; give --replicas MIN:MAX too")
    return Replicas(least, most, active or Replicas.active)
