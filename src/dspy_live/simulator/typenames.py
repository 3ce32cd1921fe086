"""Types as DSPy's prompts name them, read into JSON Schema.

Three notations appear in prompts: Python annotations (``list[int]``), notes after a field's
placeholder (``must be True or False``), and BAML's short form (``int[]``, ``{name: string,}``).
What can't be read becomes ``{"x-unknown": name}``, for which any short text must do.
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any, TypeAlias

JsonSchema: TypeAlias = dict[str, Any]

_SIMPLE: dict[str, JsonSchema] = {
    "str": {"type": "string"},
    "string": {"type": "string"},
    "Reasoning": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "Decimal": {"type": "number"},
    "bool": {"type": "boolean"},
    "boolean": {"type": "boolean"},
    "None": {"type": "null"},
    "NoneType": {"type": "null"},
    "null": {"type": "null"},
    "Any": {},
    "dict": {"type": "object"},
    "list": {"type": "array"},
    "date": {"type": "string", "format": "date"},
    "datetime": {"type": "string", "format": "date-time"},
    "time": {"type": "string", "format": "time"},
    "timedelta": {"type": "string", "format": "duration"},
    "UUID": {"type": "string", "format": "uuid"},
}


def unknown(name: str) -> JsonSchema:
    """The schema of a type that the prompt names but does not describe."""
    return {"x-unknown": name}


def is_known(schema: JsonSchema) -> bool:
    """False when some part of the schema is a name only."""
    return '"x-unknown"' not in json.dumps(schema)


def from_annotation(text: str) -> JsonSchema:
    """Read a Python annotation: ``Literal['a', 'b']``, ``dict[str, Any]``, ``Union[int, NoneType]``."""
    try:
        return _from_node(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError):
        return unknown(text)


def _from_node(node: ast.expr) -> JsonSchema:
    if isinstance(node, ast.Constant) and node.value is None:
        return {"type": "null"}
    if isinstance(node, ast.BinOp):
        return {"anyOf": [_from_node(node.left), _from_node(node.right)]}
    if isinstance(node, ast.Attribute):
        return _SIMPLE.get(node.attr, unknown(node.attr))
    if isinstance(node, ast.Name):
        return _SIMPLE.get(node.id, unknown(node.id))
    if isinstance(node, ast.Subscript):
        return _from_generic(ast.unparse(node.value).rsplit(".", 1)[-1], node.slice)
    return unknown(ast.unparse(node))


def _from_generic(name: str, inner: ast.expr) -> JsonSchema:
    args = list(inner.elts) if isinstance(inner, ast.Tuple) else [inner]
    match name:
        case "Literal":
            return {"enum": [ast.literal_eval(arg) for arg in args]}
        case "Union":
            return {"anyOf": [_from_node(arg) for arg in args]}
        case "Optional":
            return {"anyOf": [_from_node(args[0]), {"type": "null"}]}
        case "list" | "List" | "Sequence" | "Iterable" | "frozenset" | "set" | "Set":
            return {"type": "array", "items": _from_node(args[0]), "uniqueItems": name.lower().endswith("set")}
        case "tuple" | "Tuple":
            if len(args) == 2 and ast.unparse(args[1]) in ("...", "Ellipsis", "ellipsis"):
                return {"type": "array", "items": _from_node(args[0])}
            return {"type": "array", "prefixItems": [_from_node(arg) for arg in args], "items": False}
        case "dict" | "Dict" | "Mapping" if len(args) == 2:
            return _mapping(_from_node(args[0]), _from_node(args[1]))
        case "Annotated":
            return _from_node(args[0])
    return unknown(name)


def _mapping(keys: JsonSchema, values: JsonSchema) -> JsonSchema:
    schema: JsonSchema = {"type": "object", "additionalProperties": values}
    return schema if keys == {"type": "string"} else {**schema, "propertyNames": keys}


_ONE_OF = re.compile(r"must (?:exactly match \(no extra characters\) one of|be one of): (.*)", re.DOTALL)


def from_note(note: str) -> JsonSchema | None:
    """Read the note that DSPy puts after a field's placeholder; ``None`` when it says nothing of a type."""
    if "must be True or False" in note:
        return {"type": "boolean"}
    if match := re.search(r"must be a single (int|float) value", note):
        return dict(_SIMPLE[match.group(1)])
    if match := _ONE_OF.search(note):
        return {"enum": match.group(1).strip().split("; ")}
    _head, found, schema = note.partition("must adhere to the JSON schema: ")
    if not found:
        return None
    try:
        value, _ = json.JSONDecoder().raw_decode(schema)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


_BAML_TOKEN = re.compile(
    r"\s*(?:#[^\n]*\n\s*)*(\[\]|\"[^\"]*\"|-?\d+(?:\.\d+)?|\w+(?:\.\w+)*|[\[\]{}:,])", re.MULTILINE
)


def from_baml(text: str) -> JsonSchema:
    """Read BAMLAdapter's short form of a type."""
    reader = _Baml(text if text.endswith("\n") else text + "\n")
    try:
        return reader.union()
    except (IndexError, ValueError):
        return unknown(text.strip())


class _Baml:
    """A recursive-descent reader: a union of bases, each with any number of ``[]`` after it."""

    def __init__(self, text: str) -> None:
        self._tokens: list[str] = _BAML_TOKEN.findall(text)
        self._at = 0

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _take(self, wanted: str | None = None) -> str:
        token = self._tokens[self._at]
        if wanted is not None and token != wanted:
            raise ValueError(f"{wanted!r} was expected, not {token!r}")
        self._at += 1
        return token

    def union(self) -> JsonSchema:
        choices = [self._base()]
        while self._peek() == "or":
            self._take()
            choices.append(self._base())
        last = choices[-1]
        if all("const" in choice for choice in [*choices[:-1], last.get("items", last)]):
            # A list of literals reads: "a" or "b"[]. An array of one constant would make no sense.
            values: JsonSchema = {"enum": [choice.get("items", choice)["const"] for choice in choices]}
            return {"type": "array", "items": values} if "items" in last else values
        return choices[0] if len(choices) == 1 else {"anyOf": choices}

    def _base(self) -> JsonSchema:
        schema = self._atom()
        while self._peek() == "[]":
            self._take()
            schema = {"type": "array", "items": schema}
        return schema

    def _atom(self) -> JsonSchema:
        token = self._take()
        if token == "[":
            items = self.union()
            self._take("]")
            return {"type": "array", "items": items}
        if token == "{":
            return self._object()
        if token == "dict" and self._peek() == "[":
            self._take()
            keys = self.union()
            self._take(",")
            values = self.union()
            self._take("]")
            return _mapping(keys, values)
        if token[0] in '"-' or token[0].isdigit() or token in ("true", "false"):
            return {"const": json.loads(token)}
        return dict(_SIMPLE.get(token, unknown(token)))

    def _object(self) -> JsonSchema:
        properties: dict[str, JsonSchema] = {}
        while self._peek() != "}":
            name = self._take()
            self._take(":")
            properties[name] = self.union()
            if self._peek() == ",":
                self._take()
        self._take("}")
        return {"type": "object", "properties": properties, "required": list(properties)}
