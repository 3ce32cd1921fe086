"""The installed version, looked up when it is asked for."""

from __future__ import annotations


def version() -> str:
    """Return the version of the installed package and of the dspy under it."""
    from importlib.metadata import version as installed

    return f"dspy-live {installed('dspy-live')} (dspy {installed('dspy')})"
