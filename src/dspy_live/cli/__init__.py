"""The command line: it wires, and each command is one file."""

from __future__ import annotations

from dspy_live.cli.app import main

__all__ = ["main"]
