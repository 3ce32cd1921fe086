"""Run the guides' examples before they are printed, and remember those that have run on this installation."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

from dspy_live.assistant.trial import run_trial
from dspy_live.runtime.home import home_file

AT_ONCE = 2
"""Trials that run side by side: each is a Python process."""


def failures(codes: Iterable[str], memory: Path | None = None) -> dict[str, str]:
    """Run the examples that have not run here yet, and return the reason of each failure by its code.

    Args:
        codes: Python examples, each of which stands alone.
        memory: the file that remembers the examples that ran; in the user's own folder by default.
    """
    path = memory if memory is not None else _memory()
    known = _read(path)
    new = [code for code in dict.fromkeys(codes) if _key(code) not in known]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = dict(zip(new, pool.map(lambda code: run_trial(code, file="example.py"), new), strict=True))
    ran = {_key(code) for code, outcome in outcomes.items() if outcome.ok}
    if ran:
        _write(path, known | ran)
    return {code: outcome.reason for code, outcome in outcomes.items() if not outcome.ok}


def _memory() -> Path:
    return home_file("examples_run.json")


def _key(code: str) -> str:
    text = f"{version('dspy')}\n{version('dspy-live')}\n{code}"
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _read(path: Path) -> set[str]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return set()
    return {key for key in found if isinstance(key, str)} if isinstance(found, list) else set()


def _write(path: Path, keys: set[str]) -> None:
    # Where the folder can't be written, the examples run again the next time.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(sorted(keys), file)
        Path(name).replace(path)
