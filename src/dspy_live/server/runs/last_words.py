"""The end of an event stream whose run can't tell it any more."""

from __future__ import annotations

from dspy_live.core.errors import LiveError
from dspy_live.server.encoders.json import dumps
from dspy_live.server.errors import error_object


def last_words(error: LiveError, run_id: str) -> bytes:
    """Return an ``error`` and a ``done`` event. They have no id, for who comes back may find more of the run."""
    return b"event: error\ndata: %b\n\nevent: done\ndata: [DONE]\n\n" % dumps(error_object(error, run_id))
