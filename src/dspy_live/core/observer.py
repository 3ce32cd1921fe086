"""What those who count, log and trace are told: once per run and per LM call, never per token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from dspy_live.core.call import Call
from dspy_live.core.usage import LMRecord


@dataclass(slots=True, frozen=True)
class RunRecord:
    """One run that has ended.

    Args:
        call: what was asked: id, program, key, inputs, trace.
        outputs: one JSON value per output field; ``None`` for a run that failed.
        error: what the caller got instead of a result.
        duration: seconds from ``run_started``.
        ttft: seconds to the first token, of whatever field; ``None`` without one.
    """

    call: Call
    outputs: dict[str, Any] | None
    error: BaseException | None
    duration: float
    ttft: float | None


class RunObserver(Protocol):
    """Hears of runs. Methods are called on any thread, must be quick, and must not raise.

    The order for one run: ``run_started``, any number of ``lm_call_ended``, ``run_ended``. An LM call outside of any
    run is told with an empty ``record.run``.
    """

    def run_started(self, call: Call) -> None:
        """The run has its slot and begins; ``call.program`` names the program."""
        ...

    def lm_call_ended(self, record: LMRecord) -> None:
        """One exchange with an LM is over, or was answered from the cache."""
        ...

    def run_ended(self, record: RunRecord) -> None:
        """The run is over."""
        ...
