"""How the simulated LM uses tools: one or two calls with fitting arguments, then it finishes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from dspy_live.simulator.prompt import ToolNote, Wanted, message_text, question, split, tool_notes
from dspy_live.simulator.typenames import JsonSchema
from dspy_live.simulator.values import Values


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A native tool call. ``arguments`` is JSON text, as on the wire."""

    id: str
    name: str
    arguments: str


def native_calls(body: Mapping[str, Any], rng: Random, values: Values) -> tuple[ToolCall, ...]:
    """The tool calls that answer this request, or none when text is wanted.

    ``tool_choice`` is obeyed. With ``"auto"``, the default, one tool is called where the conversation
    has no tool's result after the last user message yet.
    """
    tools = {tool["function"]["name"]: tool["function"] for tool in body.get("tools") or () if "function" in tool}
    choice = body.get("tool_choice", "auto")
    if not tools or choice == "none":
        return ()
    if isinstance(choice, Mapping):
        name = str((choice.get("function") or choice).get("name"))
        return (_native(name, tools.get(name, {}), rng, values),)
    if choice != "required" and _answered(body.get("messages") or ()):
        return ()
    name = rng.choice(list(tools))
    return (_native(name, tools[name], rng, values),)


def _answered(messages: Sequence[Mapping[str, Any]]) -> bool:
    for message in reversed(messages):
        if message.get("role") == "tool":
            return True
        if message.get("role") == "user":
            return False
    return False


def _native(name: str, function: Mapping[str, Any], rng: Random, values: Values) -> ToolCall:
    arguments = values.make({"type": "object", **(function.get("parameters") or {}), "additionalProperties": False})
    return ToolCall(f"call_{rng.getrandbits(64):016x}", name, json.dumps(arguments, ensure_ascii=False))


def next_step(wanted: Wanted, body: Mapping[str, Any], seed: int, values: Values) -> tuple[str, dict[str, Any]]:
    """A ReAct step: the name of the next tool and its arguments.

    How many tools are called (one, or two where there are several) depends on the question and the
    seed only, so that it stays the same over the steps of one trajectory.
    """
    listed: list[Any] = next((w.schema.get("enum", []) for w in wanted.fields if w.name == "next_tool_name"), [])
    names = [str(name) for name in listed if name != "finish"]
    notes = {note.name: note for note in wanted.tools}
    _, user = split(body)
    made = len(set(re.findall(r"\btool_name_(\d+)\b", user)))
    plan = Random(f"{seed}:{question(body)}")
    plan.shuffle(names)
    steps = min(len(names), plan.randint(1, 2))
    if made >= steps:
        return "finish", {}
    name = names[made % len(names)]
    return name, arguments_of(notes.get(name), values)


def arguments_of(note: ToolNote | None, values: Values) -> dict[str, Any]:
    """Arguments that fit a tool described in the instructions; what has a default may be left out."""
    if note is None:
        return {}
    schema: JsonSchema = {
        "type": "object",
        "properties": dict(note.arguments),
        "required": [name for name, part in note.arguments.items() if "default" not in part],
        "additionalProperties": False,
    }
    made: dict[str, Any] = values.make(schema)
    return made


def listed_calls(wanted: Wanted, body: Mapping[str, Any], values: Values) -> dict[str, Any]:
    """The value of a ``dspy.ToolCalls`` field when tools are described in the prompt's text."""
    notes = wanted.tools or tool_notes(message_text((body.get("messages") or ({},))[-1]))
    calls = [{"name": note.name, "args": arguments_of(note, values)} for note in notes[:1]]
    return {"tool_calls": calls}
