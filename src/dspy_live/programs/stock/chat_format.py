"""``ChatAdapter``'s messages and its reading of a reply, from a signature's plan; equal to DSPy's own to the byte."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dspy

from dspy_live.programs.fields.chat_template import fill
from dspy_live.programs.internals import expand_markers, field_header_pattern, parse_value
from dspy_live.programs.stock.plan import Plan

_HEADER = "[[ ## "


def messages_of(
    plan: Plan, adapter: Any, signature: Any, demos: Sequence[Any], inputs: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the messages that ``adapter.format(signature, demos, inputs)`` returns."""
    messages = [{"role": "system", "content": plan.system}]
    if demos:
        messages += map(expand_markers, adapter.format_demos(signature, demos))
    if plan.template is not None and all(type(value) is str for value in inputs.values()):
        content = fill(plan.template, inputs)
    else:
        content = adapter.format_user_message_content(signature, dict(inputs), main_request=True)
    if content:
        messages.append(expand_markers({"role": "user", "content": content}))
    return messages


def values_of(plan: Plan, adapter: Any, signature: Any, text: str) -> dict[str, Any]:
    """Return what ``adapter.parse(signature, text)`` returns, and raise what it raises."""
    read: dict[str, Any] = {}
    annotations = plan.annotations
    try:
        for name, value in _sections(text):
            if name in annotations and name not in read:
                annotation = annotations[name]
                read[name] = value if annotation is str else parse_value(value, annotation)
    except ValueError:
        read.clear()
    if len(read) < len(annotations):  # a default, an optional field, or an error: DSPy decides
        values: dict[str, Any] = dspy.ChatAdapter.parse(adapter, signature, text)
        return values
    return {name: read[name] for name in annotations}


def _sections(text: str) -> list[tuple[str, str]]:
    """Return each header with the text that follows it."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        stripped = line.strip()
        match = field_header_pattern.match(stripped) if stripped.startswith(_HEADER) else None
        if match is not None:
            rest = line[match.end() :].strip()
            found.append((match.group(1), [rest] if rest else []))
        elif found:
            found[-1][1].append(line)
    return [(name, "\n".join(lines).strip()) for name, lines in found]
