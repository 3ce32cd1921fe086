"""What is told of a run that can't be had from the store."""

from __future__ import annotations

from typing import ClassVar

from dspy_live.core.errors import Overloaded, StreamBroken


class StoreUnreachable(Overloaded):
    """The store of runs does not answer, and the run that is asked for may be there."""

    code: ClassVar[str] = "store_unreachable"


def run_lost() -> StreamBroken:
    """Return the error of a run whose server was not heard of for a while."""
    return StreamBroken("the server that ran this run has not been heard of, and the run has ended with it")
