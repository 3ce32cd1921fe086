"""One line of the doctor's report."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Finding(NamedTuple):
    """What was looked at, what was found, and what to do. Only ``"bad"`` makes the command fail."""

    state: Literal["ok", "note", "bad"]
    name: str
    detail: str
    do: str = ""
