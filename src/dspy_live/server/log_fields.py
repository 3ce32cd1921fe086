"""Fields of a log line, for the handlers that ``setup_logging`` makes; others write the message alone."""

from __future__ import annotations

from typing import Any


def log_fields(message: str, **fields: Any) -> dict[str, Any]:
    """Return the ``extra`` of a log record whose line is ``message`` with ``fields``."""
    return {"_dspy_live": (message, fields)}
