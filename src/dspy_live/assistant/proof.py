"""Run a conversion, and the original where it fails, to tell the conversion's faults from the program's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dspy_live.assistant.convert import Conversion, candidates
from dspy_live.assistant.convert.awaiting import Plan
from dspy_live.assistant.convert.frameworks import app_of
from dspy_live.assistant.convert.new_files import importable
from dspy_live.assistant.convert.source import ClassFacts, Source
from dspy_live.assistant.convert.twins import is_route
from dspy_live.assistant.convert.values import Kind
from dspy_live.assistant.trial import Outcome, run_trial


@dataclass(frozen=True, slots=True)
class Proof:
    """The outcome of running a conversion.

    Args:
        outcome: how the converted program ended.
        original: how the original ended, where the converted one did not run through; else ``None``.
        example: the call that was added for the trial, since the file itself runs nothing; else empty.
    """

    outcome: Outcome
    original: Outcome | None = None
    example: str = ""

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
            if self.example:
                return f"It ran {self.example} against the simulated LM: {calls}, {outcome.seconds:.1f} s."
            if not outcome.lm_calls:
                return (
                    f"It was loaded and asked no LM, {outcome.seconds:.1f} s: nothing in it runs a program by itself."
                )
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
            run_trial(
                _pytest(conversion.new_file),
                folder=folder,
                file="tests.py",
                files=files,
                neighbour=conversion.old,
                timeout=timeout,
            )
        )
    if conversion.new_file:
        files = {conversion.old_file: conversion.old}
        source = conversion.new + _one_request(conversion)
        outcome = run_trial(
            source,
            folder=folder,
            file=conversion.new_file,
            files=files,
            neighbour=conversion.old,
            timeout=timeout,
        )
    else:
        outcome = run_trial(conversion.new, folder=folder, file=conversion.old_file, timeout=timeout)
    if outcome.ok and not outcome.lm_calls and not conversion.new_file:
        return _with_requests(conversion, folder, timeout) or _with_example(conversion, outcome, folder, timeout)
    if outcome.ok:
        return Proof(outcome)
    return Proof(outcome, run_trial(conversion.old, folder=folder, file=conversion.old_file, timeout=timeout))


_ASKING = """

if __name__ == "__main__":
    import asyncio

    from dspy_live.assistant.route_trial import ask_routes

    asyncio.run(ask_routes({app}, {routes!r}))
"""


def _with_requests(conversion: Conversion, folder: Path | None, timeout: float) -> Proof | None:
    """A FastAPI app: start it, and ask the routes that run a program once each; ``None`` where there are none.

    Where the original fails on such requests as well, they are unfit, and the file counts as not asked.
    """
    source = Source(conversion.old)
    app = app_of(source)
    plan = Plan(source)
    routes = [name for name, node in source.functions.items() if is_route(node) and plan.try_body(node, None).awaited]
    if not app or not routes:
        return None
    asking = _ASKING.format(app=app, routes=routes)
    outcome = run_trial(conversion.new + asking, folder=folder, file=conversion.old_file, timeout=timeout)
    asked = f"{app} with a request for {', '.join(f'{name}()' for name in routes)}"
    if outcome.ok:
        return Proof(outcome, None, asked)
    before = run_trial(conversion.old + asking, folder=folder, file=conversion.old_file, timeout=timeout)
    return Proof(outcome, before, asked) if before.ok else None


def _with_example(conversion: Conversion, loaded: Outcome, folder: Path | None, timeout: float) -> Proof:
    """A file that only defines programs: run the first of them once, with made-up inputs, in the trial alone.

    Where the original fails on such inputs as well, the inputs are unfit: then the trial proves that the file loads.
    """
    source = Source(conversion.new)
    found = [c for c in candidates(source) if c.buildable and c.inputs is not None]
    if not found:
        return Proof(loaded)
    arguments = found[0].sample_call()
    call = f"{found[0].expression}({arguments})"
    awaited = f"__import__('asyncio').run({found[0].expression}.acall({arguments}))"
    made = source.variables.get(found[0].name) or source.classes.get(found[0].name)
    kind = source.kind_of(made) if isinstance(made, ClassFacts) else made.kind if made is not None else Kind.MODULE
    new = awaited if conversion.kind == "async" and kind is Kind.NATIVE else call
    outcome = run_trial(f"{conversion.new}\nprint({new})\n", folder=folder, file=conversion.old_file, timeout=timeout)
    if outcome.ok:
        return Proof(outcome, None, call)
    before = run_trial(f"{conversion.old}\nprint({call})\n", folder=folder, file=conversion.old_file, timeout=timeout)
    return Proof(outcome, before, call) if before.ok else Proof(loaded)


def _pytest(name: str) -> str:
    return (
        "import os, sys, pytest\n"
        "home = os.environ['HOME']\n"
        f"sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', '--rootdir', home, os.path.join(home, {name!r})]))\n"
    )


def _one_request(conversion: Conversion) -> str:
    """Code that calls the new file's handler once, as a request would."""
    candidate = (
        importable(Source(conversion.old), conversion.program or None)
        if "Inputs(BaseModel)" in conversion.new
        else None
    )
    inputs = f"Inputs({candidate.sample_call()})" if candidate is not None else "{}"
    return f"\n\nif __name__ == '__main__':\n    import asyncio\n\n    print(asyncio.run(ask({inputs})))\n"
