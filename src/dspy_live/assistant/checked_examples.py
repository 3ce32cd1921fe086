"""No code is shown that was not run: remembers which examples have run on this installation, and runs the others."""

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

AT_ONCE = 2
"""Trials that run side by side: each is a Python process."""


def failures(codes: Iterable[str], memory: Path | None = None) -> dict[str, str]:
    """Run the examples that have not run here yet, and return why each one fails that does.

    Args:
        codes: Python examples, each of which stands alone.
        memory: the file that remembers what has run; in the user's own folder by default.
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
    return Path(os.environ.get("DSPY_LIVE_HOME") or Path.home() / ".dspy-live") / "examples_run.json"


def _key(code: str) -> str:
    what = f"{version('dspy')}\n{version('dspy-live')}\n{code}"
    return hashlib.sha256(what.encode()).hexdigest()[:24]


def _read(path: Path) -> set[str]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return set()
    return {key for key in found if isinstance(key, str)} if isinstance(found, list) else set()


def _write(path: Path, keys: set[str]) -> None:
    # A folder that can't be written costs a second at the next time, no more.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(sorted(keys), file)
        Path(name).replace(path)
