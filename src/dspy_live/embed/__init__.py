"""The Python side of an embedding: one thread runs :func:`main`, another language's threads never touch Python.

Commands come in through a queue of the host's and one byte on a socket; events go out in batches.
"""

from __future__ import annotations

from dspy_live.embed.host import main
from dspy_live.embed.wire import PROTOCOL

__all__ = ["PROTOCOL", "main"]
