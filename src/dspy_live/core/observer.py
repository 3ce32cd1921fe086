"""What those who count, log and trace are told: once per run and per LM call, never per token."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import msgspec

from dspy_live.core.call import Call
from dspy_live.core.usage import LMRecord


class RunRecord(msgspec.Struct, frozen=True):
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


@dataclass(slots=True, frozen=True)
class RunPart:
    """A module or a tool of a program that is called in a run.

    Args:
        kind: ``"agent"`` is a module that has tools of its own.
        name: a module's path in the program (``"rag.answer"``), a tool's name.
        about: a module's class, a tool's description.
        inputs: the arguments of the call, by name.
    """

    kind: Literal["module", "agent", "tool"]
    name: str
    about: str
    inputs: Any


class RunFollower(Protocol):
    """Follows one run from inside. Methods are called where the run's code is, must be quick, and must not raise."""

    wants_parts: bool
    """False: nothing is told of the run's modules and tools, and they cost nothing."""

    def entered(self) -> AbstractContextManager[None]:
        """Return a context manager that is entered around the program's own code, in the run's own task."""
        ...

    def part_started(self, key: str, part: RunPart) -> None:
        """A module or a tool is called. ``key`` tells one call from another."""
        ...

    def part_ended(self, key: str, value: Any, error: BaseException | None) -> None:
        """It has ended, on the thread and in the context in which it was told that it started."""
        ...


class FollowingObserver(RunObserver, Protocol):
    """An observer that follows runs from inside, too."""

    def follow(self, call: Call) -> RunFollower | None:
        """Return who follows the run, after ``run_started``; ``None`` for nobody."""
        ...


class ToolObserver(RunObserver, Protocol):
    """An observer that hears of tools, too."""

    def tool_ended(self, name: str, seconds: float, error: BaseException | None) -> None:
        """A tool of a run has returned after so many seconds, or has raised ``error``."""
        ...
