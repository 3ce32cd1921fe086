"""The format that an adapter's replies follow, and the fields of a signature as its parser needs them."""

from __future__ import annotations

import enum
import types
import typing
import weakref
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

import dspy
import pydantic
from dspy.adapters.baml_adapter import BAMLAdapter
from dspy.adapters.types.reasoning import Reasoning
from dspy.adapters.utils import parse_value

from dspy_live.sansio.fields import FieldSpec, Kind, Parser, ReplyFormat, make_parser

# Subclasses before their bases.
_FORMATS: tuple[tuple[type, ReplyFormat], ...] = (
    (BAMLAdapter, "baml"),
    (dspy.JSONAdapter, "json"),
    (dspy.XMLAdapter, "xml"),
    (dspy.ChatAdapter, "chat"),
)

_specs: weakref.WeakKeyDictionary[Any, tuple[FieldSpec, ...]] = weakref.WeakKeyDictionary()


def format_of(adapter: Any) -> ReplyFormat | None:
    """Return the reply format of an adapter or of any subclass of it; ``None`` for an adapter of another family."""
    for cls, reply_format in _FORMATS:
        if isinstance(adapter, cls):
            return reply_format
    return None


def kind_of(annotation: Any) -> Kind:
    """Return how a field of this type streams: as text, once when complete, or as a growing value."""
    if annotation is str or annotation is Reasoning:
        return "text"
    origin = get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        kinds = {kind_of(a) for a in get_args(annotation) if a is not type(None)}
        return "container" if "container" in kinds else "scalar"
    if origin is Literal or annotation in (int, float, bool, complex, bytes, type(None)):
        return "scalar"
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return "scalar"
    return "container"


def _spec(name: str, annotation: Any) -> FieldSpec:
    kind = kind_of(annotation)
    return FieldSpec(name, kind, _converter(annotation) if kind == "scalar" else None)


def _converter(annotation: Any) -> Any:
    adapter = pydantic.TypeAdapter(annotation)

    def convert(value: Any) -> Any:
        return adapter.dump_python(parse_value(value, annotation), mode="json")

    return convert


def specs_of(signature: Any) -> tuple[FieldSpec, ...]:
    """Return the output fields of a signature as a parser wants them; kept as long as the signature is."""
    specs = _specs.get(signature)
    if specs is None or len(specs) != len(signature.output_fields):
        specs = tuple(_spec(name, f.annotation) for name, f in signature.output_fields.items())
        _specs[signature] = specs
    return specs


@dataclass(frozen=True, slots=True)
class Reading:
    """How replies to a signature are read while they stream: their format, the fields, the names of those of text."""

    format: ReplyFormat
    specs: tuple[FieldSpec, ...]
    texts: tuple[str, ...]

    def parser(self) -> Parser:
        """Return a fresh parser for one reply."""
        return make_parser(self.format, self.specs)


def reading_of(adapter: Any, signature: Any) -> Reading | None:
    """Return how replies to ``signature`` are read, or ``None`` where the adapter's format is unknown to us."""
    reply_format = format_of(adapter)
    if reply_format is None or signature is None:
        return None
    specs = specs_of(signature)
    return Reading(reply_format, specs, tuple(spec.name for spec in specs if spec.kind == "text"))
