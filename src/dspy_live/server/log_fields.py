"""Fields of a log line, for the handlers that ``setup_logging`` makes; others write the message alone."""

from __future__ import annotations

from typing import Any


def log_fields(message: str, *, plain: bool = False, **fields: Any) -> dict[str, Any]:
    """Return the ``extra`` of a log record whose line is ``message`` with ``fields``.

    ``plain`` says that all of them are numbers and short texts, which are rendered by a shorter way.
    """
    return {"_dspy_live": (message, fields), "_dspy_live_plain": plain}
