"""The installed version, looked up when it is asked for."""

from __future__ import annotations


def version() -> str:
    """Return the versions of the installed package, of the dspy under it, and of the compiled part beside it."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        native = f", native {installed('dspy-live-native')}"
    except PackageNotFoundError:
        native = ""
    return f"dspy-live {installed('dspy-live')} (dspy {installed('dspy')}{native})"
