"""Shows that a conversion works: runs it, and the original where it fails, to say whose fault that is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dspy_live.assistant.convert import Conversion
from dspy_live.assistant.convert.new_files import importable
from dspy_live.assistant.convert.source import Source
from dspy_live.assistant.trial import Outcome, run_trial


@dataclass(frozen=True, slots=True)
class Proof:
    """What came out of running a conversion.

    Args:
        outcome: how the converted program ended.
        original: how the original ended, where the converted one did not run through; else ``None``.
    """

    outcome: Outcome
    original: Outcome | None = None

    @property
    def ok(self) -> bool:
        """True when the converted program ran to its end."""
        return self.outcome.ok

    @property
    def verdict(self) -> str:
        """One line for a person."""
        outcome = self.outcome
        if outcome.ok:
            calls = f"{outcome.lm_calls} LM call{'' if outcome.lm_calls == 1 else 's'}"
            return f"It ran against the simulated LM: {calls}, {outcome.seconds:.1f} s."
        said = f"It did not run: {outcome.reason}."
        if self.original is not None and self.original.status == outcome.status == "timed out":
            return said + " The original takes as long."
        if self.original is not None and not self.original.ok:
            return said + f" The original does not run here either: {self.original.reason}."
        return said + " The original does."


def prove(conversion: Conversion, folder: Path | None = None, *, timeout: float = 60.0) -> Proof:
    """Run a conversion against the simulated LM; see :func:`~dspy_live.assistant.trial.run_trial`.

    The user's own code runs: only after they have agreed to it.
    """
    if conversion.kind == "tests":
        files = {conversion.new_file: conversion.new, conversion.old_file: conversion.old}
        return Proof(
            run_trial(_pytest(conversion.new_file), folder=folder, file="tests.py", files=files, timeout=timeout)
        )
    if conversion.new_file:
        files = {conversion.old_file: conversion.old}
        source = conversion.new + _one_request(conversion)
        outcome = run_trial(source, folder=folder, file=conversion.new_file, files=files, timeout=timeout)
    else:
        outcome = run_trial(conversion.new, folder=folder, file=conversion.old_file, timeout=timeout)
    if outcome.ok:
        return Proof(outcome)
    return Proof(outcome, run_trial(conversion.old, folder=folder, file=conversion.old_file, timeout=timeout))


def _pytest(name: str) -> str:
    return (
        "import os, sys, pytest\n"
        "home = os.environ['HOME']\n"
        f"sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', '--rootdir', home, os.path.join(home, {name!r})]))\n"
    )


def _one_request(conversion: Conversion) -> str:
    """Code that calls the new file's handler once, as a request would."""
    candidate = importable(Source(conversion.old), None) if "Inputs(BaseModel)" in conversion.new else None
    inputs = f"Inputs({candidate.sample_call()})" if candidate is not None else "{}"
    return f"\n\nif __name__ == '__main__':\n    import asyncio\n\n    print(asyncio.run(ask({inputs})))\n"
