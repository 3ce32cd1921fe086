"""May the code of a folder be run? A person is asked once, and the answer is remembered for the folder."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from dspy_live.runtime.home import home_file

Ask = Callable[[str], bool | None]
"""Asks a person and returns yes or no; ``None`` where nobody is there to answer."""


def may_run(folder: Path, ask: Ask) -> bool | None:
    """Return whether a folder's code may be run against the simulated LM; ``None`` when nobody has said.

    An answer for a folder holds for the folders in it, but for those with an answer of their own.

    Args:
        folder: the folder of the user's file.
        ask: asks where there is no answer yet; its answer is remembered.
    """
    folder = folder.resolve()
    known = remembered(folder)
    if known is not None:
        return known
    said = ask(
        f"A conversion is shown only after it has run. May code from {folder} run here, with the simulated LM "
        "and without network? The answer is remembered for this folder."
    )
    if said is not None:
        remember(folder, said)
    return said


def remembered(folder: Path) -> bool | None:
    """Return the answer that was given for a folder or the nearest one above it; ``None`` when there is none."""
    answers = _read()
    for place in (folder, *folder.parents):
        if str(place) in answers:
            return answers[str(place)]
    return None


def remember(folder: Path, answer: bool) -> None:
    """Keep an answer. Where the home folder can't be written, the question comes again."""
    path = home_file("may_run.json")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(_read() | {str(folder.resolve()): answer}, file, indent=1)
        Path(name).replace(path)


def _read() -> dict[str, bool]:
    try:
        found = json.loads(home_file("may_run.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {place: answer for place, answer in found.items() if isinstance(answer, bool)}
