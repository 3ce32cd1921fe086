"""The simulated LM's use of tools: one or two calls with fitting arguments, then the answer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from dspy_live.simulator.prompt import ToolNote, Wanted, question, split, tool_notes, tool_turns
from dspy_live.simulator.typenames import JsonSchema
from dspy_live.simulator.values import Values


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A native tool call. ``arguments`` is JSON text, as on the wire."""

    id: str
    name: str
    arguments: str


_ENDS = ("finish", "submit")
"""Tools by which DSPy's agents say that they are done."""


def native_calls(body: Mapping[str, Any], seed: int, rng: Random, values: Values) -> tuple[ToolCall, ...]:
    """The tool calls that answer this request, or none when text is wanted.

    ``tool_choice`` is obeyed. With ``"auto"``, the default, one tool is called, then text follows; where
    one of the tools ends the task, one or two others are called, then that one.
    """
    tools = {tool["function"]["name"]: tool["function"] for tool in body.get("tools") or () if "function" in tool}
    choice = body.get("tool_choice") or "auto"
    if not tools or choice == "none":
        return ()
    if isinstance(choice, Mapping):
        name: str | None = str((choice.get("function") or choice).get("name"))
    else:
        name = _next_tool(list(tools), body, seed)
        if name is None and choice == "required":
            name = rng.choice(list(tools))
    return () if name is None else (_native(name, tools.get(name, {}), rng, values),)


def _next_tool(names: list[str], body: Mapping[str, Any], seed: int) -> str | None:
    """The tool whose turn it is; ``None`` when all were called and none of them ends the task.

    The order depends on the question and the seed only, so that it stays the same over one task.
    """
    end = next((name for name in names if name in _ENDS), None)
    others = [name for name in names if name not in _ENDS]
    plan = Random(f"{seed}:{question(body)}")
    plan.shuffle(others)
    steps = 1 if end is None else min(len(others), plan.randint(1, 2))
    made = tool_turns(body)
    return end if made >= steps else others[made % len(others)]


def _native(name: str, function: Mapping[str, Any], rng: Random, values: Values) -> ToolCall:
    arguments = values.make({"type": "object", **(function.get("parameters") or {}), "additionalProperties": False})
    return ToolCall(f"call_{rng.getrandbits(64):016x}", name, json.dumps(arguments, ensure_ascii=False))


def next_step(wanted: Wanted, body: Mapping[str, Any], seed: int, values: Values) -> tuple[str, dict[str, Any]]:
    """A step of ReAct: the name of the next tool and its arguments."""
    listed: list[Any] = next((w.schema.get("enum", []) for w in wanted.fields if w.name == "next_tool_name"), [])
    notes = {note.name: note for note in wanted.tools}
    name = _next_tool([str(name) for name in listed], body, seed) or "finish"
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


def code(body: Mapping[str, Any], values: Values) -> str:
    """A little Python in a Markdown fence, for the fields of DSPy's modules that run it.

    Where the instructions name the function that ends the task, it is called with the fields that they list.
    """
    system = split(body)[0]
    text = json.dumps(str(values.make({"type": "string"}, "answer")))
    if match := re.search(r"mapping for the field\(s\): ((?:`\w+`(?:, )?)+)", system):
        lines = f"SUBMIT({{{', '.join(f'{name!r}: {text}' for name in re.findall(r'`(.*?)`', match.group(1)))}}})"
    elif match := re.search(r"`SUBMIT\((\w+(?:, \w+)*)\)`", system):
        lines = f"SUBMIT({', '.join(f'{name}={text}' for name in match.group(1).split(', '))})"
    else:
        lines = f"print({text})"
    return f"```python\n{lines}\n```"


def listed_calls(wanted: Wanted, body: Mapping[str, Any], seed: int, values: Values) -> dict[str, Any]:
    """The value of a ``dspy.ToolCalls`` field when the tools are described in the prompt's text."""
    notes = {note.name: note for note in wanted.tools or tool_notes(split(body)[1])}
    name = _next_tool(list(notes), body, seed) if notes else None
    calls = [] if name is None else [{"name": name, "args": arguments_of(notes[name], values)}]
    return {"tool_calls": calls}
