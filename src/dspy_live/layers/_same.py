"""When two calls ask for the same: the part of a cache's and a flight's key that is common to both."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import msgspec

from dspy_live.core.call import Call


def same_question(call: Call) -> str | None:
    """Return the call's inputs, arguments and options (``rollout_id`` among them) as JSON.

    ``None`` when they are no JSON: such a call is like no other.
    """
    try:
        return msgspec.json.encode([call.inputs, call.args, call.config], order="deterministic").decode()
    except (TypeError, ValueError, msgspec.MsgspecError):
        return None


def who_answers(call: Call) -> tuple[str, str, str]:
    """Return the call's program, its version and its LM: only calls that agree in these may share an answer."""
    return call.program, call.version, call.model


def name_of(call: Call, key: Any) -> str | None:
    """Return the name that an answer to such a call has in a store; ``None`` for a key that is no JSON."""
    try:
        return sha256(msgspec.json.encode([*who_answers(call), key], order="deterministic")).hexdigest()
    except (TypeError, ValueError, msgspec.MsgspecError):
        return None
