"""The conversation that runs belong to, for traces: ``with conversation("42"): ...``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import context
from opentelemetry.context import Context

_KEY = context.create_key("dspy_live.conversation")
MAX_ID = 200
"""Characters of an id that spans hold."""


@contextmanager
def conversation(id: str) -> Iterator[None]:  # noqa: A002
    """Name the conversation that the runs of this block belong to; their spans have it as ``gen_ai.conversation.id``.

    It goes along with the block's tasks, and with the threads of its runs. Blocks nest, the innermost counts. On a
    server a session's id is used where there is a session.

    Args:
        id: your own id of the conversation, thread or session; the first 200 characters are kept.

    Raises ``TypeError`` for anything but a text, ``ValueError`` for an empty one.
    """
    if not isinstance(id, str):
        raise TypeError(f"a conversation's id is a text; got {id!r}")
    if not id:
        raise ValueError("a conversation's id must not be empty; leave the block out where there is no conversation")
    token = context.attach(context.set_value(_KEY, id[:MAX_ID]))
    try:
        yield
    finally:
        context.detach(token)


def conversation_of(here: Context) -> str:
    """Return the conversation's id in a context; an empty text where there is none."""
    value = context.get_value(_KEY, here)
    return value if isinstance(value, str) else ""


__all__ = ["MAX_ID", "conversation", "conversation_of"]
