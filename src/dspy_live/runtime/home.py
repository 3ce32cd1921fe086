"""The one home folder: the ledger, the shell's history, the examples that have run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def home_is_given(environ: Mapping[str, str] = os.environ) -> bool:
    """True where the environment names the home folder: ``DSPY_LIVE_HOME``."""
    return bool(environ.get("DSPY_LIVE_HOME"))


def home_file(name: str) -> Path:
    """Return the place of a file in the home folder: ``DSPY_LIVE_HOME``, else ``~/.dspy_live``. Nothing is made.

    Some files once lay in ``~/.dspy-live``; one that lies there still, and not yet in the other, is used there.
    """
    if home := os.environ.get("DSPY_LIVE_HOME"):
        return Path(home) / name
    place, former = (Path.home() / folder / name for folder in (".dspy_live", ".dspy-live"))
    return former if former.exists() and not place.exists() else place
