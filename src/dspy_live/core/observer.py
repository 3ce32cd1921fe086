"""What is told of a run to those who count, log and trace: once per run and per LM call, never per token."""

from __future__ import annotations

from typing import Protocol

from dspy_live.core.call import Call
from dspy_live.core.usage import LMRecord


class RunObserver(Protocol):
    """Hears of runs. Methods are called on any thread, must be quick, and must not raise.

    The order for one run: ``run_started``, any number of ``lm_call_ended``, at most one ``first_token``,
    ``run_ended``. An LM call outside of any run is told with an empty ``record.run``.
    """

    def run_started(self, call: Call, program: str) -> None:
        """The run has its slot and begins."""
        ...

    def first_token(self, call: Call) -> None:
        """The run's first token, of whatever field, is on its way to the reader."""
        ...

    def lm_call_ended(self, record: LMRecord) -> None:
        """One exchange with an LM is over, or was answered from the cache."""
        ...

    def run_ended(self, call: Call, error: BaseException | None, duration: float, ttft: float | None) -> None:
        """The run is over. ``duration`` and ``ttft`` (``None`` without a token) are seconds from ``run_started``."""
        ...
