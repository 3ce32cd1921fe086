"""An adapter's messages from a signature's plan; equal to DSPy's own to the byte."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dspy_live.programs.fields.chat_template import fill
from dspy_live.programs.internals import CUSTOM_TYPE_START_IDENTIFIER, _check_encodable, expand_markers
from dspy_live.programs.stock.plan import Plan


def messages_of(
    plan: Plan, adapter: Any, signature: Any, demos: Sequence[Any], inputs: Mapping[str, Any]
) -> list[dict[str, Any]] | None:
    """Return the messages that ``adapter.format(signature, demos, inputs)`` returns.

    ``None`` for inputs that are not of the plain kinds. Raises ``ValueError`` for text that no provider can receive.
    """
    texts: dict[str, str] = {}
    for name, value in inputs.items():
        text = plan.writers[name](value)
        if text is None:
            return None
        texts[name] = text
    content = fill(plan.template, texts)
    user: dict[str, Any] = {"role": "user", "content": content}
    if not content.isascii():
        _check_encodable(content, "messages")
    if CUSTOM_TYPE_START_IDENTIFIER in content:
        user = expand_markers(user)
    if not demos:
        return [{"role": "system", "content": plan.system}, user]
    told = plan.demos.messages(demos, lambda: _written(adapter, signature, demos))
    return [{"role": "system", "content": plan.system}, *told, user]


def _written(adapter: Any, signature: Any, demos: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the messages of demos, as DSPy writes them."""
    messages = [expand_markers(message) for message in adapter.format_demos(signature, demos)]
    _check_encodable(messages, "messages")
    return messages
