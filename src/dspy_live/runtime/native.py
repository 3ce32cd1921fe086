"""Finding the compiled part, which is a distribution of its own, ``dspy-live-native``."""

from __future__ import annotations

import logging
import os
from functools import cache
from importlib.metadata import version
from typing import Any, Literal, NamedTuple

log = logging.getLogger("dspy_live")

SWITCH = "DSPY_LIVE_NATIVE"
"""The environment's variable that, as ``0``, leaves the compiled part alone."""

INTERFACE = 1
"""What of the compiled part is called and how, as a number; the one of ``native/src/python.rs`` is the same."""

UPDATE = "update both: pip install -U 'dspy-live[native]'"
"""What to do where the compiled part is there and can't be used."""


class Found(NamedTuple):
    """What there is of the compiled part; ``module`` is ``None`` in each state but ``"installed"``."""

    state: Literal["installed", "switched off", "missing", "broken", "other"]
    detail: str
    module: Any = None


def find_native() -> Found:
    """Import the compiled part, if it is wanted and fits; nothing is logged."""
    if os.environ.get(SWITCH) == "0":
        return Found("switched off", f"switched off by {SWITCH}=0")
    try:
        import dspy_live_native
    except ModuleNotFoundError:
        return Found("missing", "not installed")
    except ImportError as exc:
        return Found("broken", f"dspy-live-native can't be loaded: {exc}")
    theirs = getattr(dspy_live_native, "INTERFACE", "none")
    release = getattr(dspy_live_native, "__version__", "unknown")
    if theirs != INTERFACE:
        ours = version("dspy-live")
        detail = f"dspy-live-native {release} has interface {theirs}, dspy-live {ours} needs {INTERFACE}"
        return Found("other", detail)
    return Found("installed", f"dspy-live-native {release}", dspy_live_native)


@cache
def native() -> Any:
    """Return the compiled part, a module; ``None`` where it is not installed, does not fit or is switched off.

    A process looks once, and logs a warning of one that is there and can't be used.
    """
    found = find_native()
    if found.state in ("broken", "other"):
        log.warning("streams go without the compiled part: %s; %s", found.detail, UPDATE)
    return found.module
