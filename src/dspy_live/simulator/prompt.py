"""The format and fields that a chat request asks for, read from the prompts that DSPy's adapters write."""

from __future__ import annotations

import ast
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias

from dspy_live.simulator.tokens import part_text
from dspy_live.simulator.typenames import JsonSchema, from_annotation, from_baml, from_note, is_known

Format: TypeAlias = Literal["chat", "json", "xml", "text"]


@dataclass(frozen=True, slots=True)
class Wish:
    """One output field that the prompt asks for."""

    name: str
    schema: JsonSchema

    @property
    def is_text(self) -> bool:
        """True for a plain string field: the ones that get prose."""
        return self.schema == {"type": "string"}


@dataclass(frozen=True, slots=True)
class ToolNote:
    """A tool that the instructions describe. ``arguments`` maps a name to its JSON Schema."""

    name: str
    arguments: Mapping[str, JsonSchema]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The format, the fields in order, and the tools that the instructions list."""

    format: Format
    fields: tuple[Wish, ...] = ()
    tools: tuple[ToolNote, ...] = ()


def message_text(message: Mapping[str, Any]) -> str:
    """A message's text; the parts that are images, sounds or files say nothing."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(text for part in content if (text := part_text(part)) is not None)
    return ""


def split(body: Mapping[str, Any]) -> tuple[str, str]:
    """The system text and the text of the last user message."""
    system: list[str] = []
    user = ""
    for message in body.get("messages") or ():
        if message.get("role") in ("system", "developer"):
            system.append(message_text(message))
        elif message.get("role") == "user":
            user = message_text(message)
    return "\n".join(system), user


def recognise(body: Mapping[str, Any]) -> Wanted:
    """Return the format and fields that the request asks for. ``response_format`` decides on JSON and its schema."""
    system, user = split(body)
    cut = max(user.rfind("Respond with the corresponding output fields"), user.rfind("Respond with a JSON object"))
    wanted = _recognise(system, user[cut:] if cut >= 0 else "")
    asked = body.get("response_format")
    if not isinstance(asked, Mapping) or asked.get("type") not in ("json_object", "json_schema"):
        return wanted
    schema = (asked.get("json_schema") or {}).get("schema") if asked["type"] == "json_schema" else None
    if not isinstance(schema, dict):
        return Wanted("json", wanted.fields or (Wish("answer", {"type": "string"}),), wanted.tools)
    defs = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    fields = tuple(Wish(name, {**part, **defs} if defs else _plain(part)) for name, part in _properties(schema).items())
    return Wanted("json", fields, wanted.tools)


def _properties(schema: JsonSchema) -> dict[str, JsonSchema]:
    ref = str(schema.get("$ref", "")).rsplit("/", 1)[-1]
    found = schema.get("properties") or schema.get("$defs", {}).get(ref, {}).get("properties") or {}
    return dict(found)


def _plain(schema: JsonSchema) -> JsonSchema:
    """A string schema with nothing but titles and descriptions is a plain text field."""
    return (
        {"type": "string"}
        if {*schema} <= {"type", "title", "description"} and schema.get("type") == "string"
        else schema
    )


@lru_cache(maxsize=256)
def _recognise(system: str, request: str) -> Wanted:
    tools = tool_notes(system)
    described = _described(system)
    if "`[[ ## " in request or (not request and "[[ ## completed ## ]]" in system):
        names = re.findall(r"`\[\[ ## (\w+) ## \]\]`", request)
        return Wanted("chat", _wishes(system, _without_end(names) or list(described), described), tools)
    if request.startswith("Respond with a JSON object") or "Outputs will be a JSON object" in system:
        names = re.findall(r"(?:fields: |, then )`(\w+)`", request)
        return Wanted("json", _wishes(system, names or list(described), described), tools)
    if "wrapped in XML tags" in request:
        head, _, nested = request.partition("Use this nested XML structure:")
        names = re.findall(r"`<(\w+)>`", head)
        return Wanted("xml", _wishes(system, names, described, _templates(nested)), tools)
    return Wanted("text", (), tools)


def _without_end(names: list[str]) -> list[str]:
    return names[:-1] if names[-1:] == ["completed"] else names


def _wishes(
    system: str, names: list[str], described: dict[str, JsonSchema], templates: dict[str, JsonSchema] | None = None
) -> tuple[Wish, ...]:
    noted = _notes(system)
    fields = []
    for name in names:
        schema = described.get(name, {"type": "string"})
        note = noted.get(name)
        if note is not None and not _says_more(schema, note):
            schema = {**note, **_limits(schema)}
        if templates and name in templates and not is_known(schema):
            schema = templates[name]
        fields.append(Wish(name, schema))
    return tuple(fields)


def _says_more(annotation: JsonSchema, note: JsonSchema) -> bool:
    """Choices keep their types in an annotation; a note that only names a type says nothing."""
    if annotation.get("x-unknown") == "ToolCalls":
        return True
    return ("enum" in annotation and "enum" in note) or (is_known(annotation) and not is_known(note))


_LIMITS = {
    "greater than": "exclusiveMinimum",
    "greater than or equal to": "minimum",
    "less than": "exclusiveMaximum",
    "less than or equal to": "maximum",
    "minimum length": "minLength",
    "maximum length": "maxLength",
    "a multiple of the given number": "multipleOf",
}


def _limits(schema: JsonSchema) -> JsonSchema:
    return {key: schema[key] for key in (*_LIMITS.values(), "propertyNames") if key in schema}


def _described(system: str) -> dict[str, JsonSchema]:
    """The output fields that the system message lists, with the types and constraints it gives."""
    _, _, rest = system.partition("Your output fields are:\n")
    fields: dict[str, JsonSchema] = {}
    name = ""
    for line in rest.splitlines():
        if line.startswith("All interactions will be structured"):
            break
        if match := re.match(r"\d+\. `(\w+)` \((.+?)\):", line):
            name = match.group(1)
            fields[name] = from_annotation(match.group(2))
        elif name and line.startswith("Constraints: "):
            for part in line[len("Constraints: ") :].split(", "):
                words, _, value = part.rpartition(": ")
                if words in _LIMITS:
                    fields[name] = {**fields[name], _LIMITS[words]: float(value) if "." in value else int(value)}
    return fields


def _notes(system: str) -> dict[str, JsonSchema]:
    """The notes in the structure part: ``{field}        # note: …``, or BAML's ``should be of type: …``."""
    found: dict[str, JsonSchema] = {}
    for match in re.finditer(r"Output field `(\w+)` should be of type: (.*?)\n\n", system, re.DOTALL):
        found[match.group(1)] = from_baml(match.group(2))
    _, is_json, rest = system.partition("Outputs will be a JSON object with the following fields.")
    if is_json:
        try:
            notes, _ = json.JSONDecoder().raw_decode(rest.lstrip())
        except ValueError:
            notes = {}
        pairs = [(name, str(text)) for name, text in notes.items()]
    else:
        pairs = re.findall(r"^\{(\w+)\} +(# note: [^\n]*)", system, re.MULTILINE)
    for name, text in pairs:
        if (schema := from_note(text)) is not None:
            found[name] = schema
    return found


def _templates(nested: str) -> dict[str, JsonSchema]:
    """XMLAdapter's nested structures, whose leaves have no types."""
    try:
        root = ET.fromstring(f"<all>{nested}</all>")
    except ET.ParseError:
        return {}
    return {child.tag: _template(child) for child in root}


def _template(element: ET.Element) -> JsonSchema:
    children = list(element)
    if not children:
        return {"x-unknown": element.tag}
    if len(children) == 1 and children[0].tag == "item":
        return {"type": "array", "items": _template(children[0])}
    properties = {child.tag: _template(child) for child in children}
    return {"type": "object", "properties": properties, "required": list(properties)}


_TOOL = re.compile(
    r"(\w+)(?:, whose description is <desc>.*?</desc>)?\. It takes arguments (\{.*?\})\.(?=$|['\"])", re.MULTILINE
)


def tool_notes(system: str) -> tuple[ToolNote, ...]:
    """The tools that ReAct lists in its instructions, with their arguments."""
    return tuple(ToolNote(name, _arguments(text)) for name, text in _TOOL.findall(system))


def _arguments(text: str) -> dict[str, JsonSchema]:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {}
    return value if isinstance(value, dict) else {}


_ASIDE = "trajectory|tools|tool_call_results"
_ASIDES = re.compile(
    rf"\[\[ ## (?:{_ASIDE}) ## \]\].*?(?=\n\[\[ ## (?!tool_|thought_|observation_)|\Z)|<({_ASIDE})>.*?</\1>", re.DOTALL
)
_MARKUP = re.compile(r"\[\[ ## \w+ ## \]\]|</?\w+>|\[sim[^\]]*\]|\bhttps?:\S+")


def _inputs(text: str) -> str:
    """A user message's own words: no markers, no request for a format, no tools and what they said."""
    cut = max(text.rfind("Respond with the corresponding output"), text.rfind("Respond with a JSON object"))
    text = text[:cut] if cut >= 0 else text
    return _MARKUP.sub(" ", _ASIDES.sub(" ", text)[:8000]).strip()


def question(body: Mapping[str, Any]) -> str:
    """The words that the user asks about: those of the last user message that has any of its own."""
    for message in reversed(body.get("messages") or ()):
        if message.get("role") == "user" and (text := _inputs(message_text(message))):
            return text
    return ""


def tool_turns(body: Mapping[str, Any]) -> int:
    """Return the number of tool calls since the question: native, in messages' text, or in ReAct's trajectory."""
    turns = len(set(re.findall(r"\btool_name_(\d+)\b", split(body)[1])))
    results = False
    for message in reversed(body.get("messages") or ()):
        text, role = message_text(message), message.get("role")
        if role == "user" and _inputs(text):
            break
        results = results or role == "tool"
        turns += bool(message.get("tool_calls")) or (role == "user" and "tool_call_results" in text)
    return max(turns, int(results))
