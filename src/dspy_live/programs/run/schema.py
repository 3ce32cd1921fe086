"""A DSPy program's inputs and outputs as a Schema: from its signature, else from its ``forward``."""

from __future__ import annotations

import contextlib
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import dspy
import pydantic
from dspy.adapters.types.reasoning import Reasoning
from dspy.adapters.utils import get_annotation_name
from pydantic_core import PydanticUndefined, to_jsonable_python

from dspy_live.core.schema import Field, Schema
from dspy_live.programs.fields.live_outputs import live_outputs
from dspy_live.programs.run.demos import examples_of

_TEXT = {"type": "string"}


def schema_of(program: Any, name: str = "") -> Schema:
    """Return the schema of a program.

    The inputs are those of its signature where it has one (a predictor, a ChainOfThought, a ReAct),
    else the parameters of its ``forward``. The outputs are those of its signature, else those of its last
    predictor. A ``forward`` with ``**kwargs`` and no signature makes an open schema, which
    passes any input through.
    """
    name = name or type(program).__name__
    signature = _signature(program)
    description = inspect.cleandoc(_description(program, signature))
    if signature is not None:
        takes = tuple(_field(n, f) for n, f in signature.input_fields.items())
        gives = tuple(_field(n, f) for n, f in signature.output_fields.items())
        examples = examples_of(program, takes, gives)
        return Schema(name, takes, gives, description, live=live_outputs(program), examples=examples)
    inputs, open_ = _parameters(program)
    outputs = _outputs(program)
    examples = examples_of(program, inputs, outputs)
    return Schema(name, inputs, outputs, description, open_, live_outputs(program), examples)


def _signature(program: Any) -> Any:
    signature = getattr(program, "signature", None)
    if isinstance(signature, type) and issubclass(signature, dspy.Signature):
        return signature
    # A ChainOfThought keeps its signature in the predictor that it wraps.
    if isinstance(program, dspy.ChainOfThought):
        return program.predict.signature
    return None


def _description(program: Any, signature: Any) -> str:
    own = type(program).__doc__ if not type(program).__module__.startswith("dspy.") else None
    return own or (signature.instructions if signature is not None else "") or ""


def _field(name: str, info: Any) -> Field:
    extra = info.json_schema_extra or {}
    description = str(extra.get("desc") or "")
    if description == f"${{{name}}}":
        description = ""
    default = info.default
    required = default is PydanticUndefined
    return _made(name, info.annotation, description, required, None if required else default)


def _made(name: str, annotation: Any, description: str, required: bool, default: Any) -> Field:
    if annotation is Reasoning:
        annotation = str
    optional = type(None) in typing.get_args(annotation)
    return Field(
        name=name,
        type=_type_name(annotation),
        json_schema=_json_schema(annotation),
        description=description,
        required=required and not optional,
        default=_jsonable(default),
        convert=_converter(annotation),
    )


def _type_name(annotation: Any) -> str:
    if annotation is Any:
        return "any"
    name = str(get_annotation_name(annotation))
    return f"dspy.{name}" if getattr(annotation, "__module__", "").startswith("dspy.") else name


def _json_schema(annotation: Any) -> dict[str, Any]:
    if annotation is str:
        return dict(_TEXT)
    try:
        return dict(pydantic.TypeAdapter(annotation).json_schema())
    except Exception:
        return {}


def _converter(annotation: Any) -> Callable[[Any], Any] | None:
    if annotation is Any:
        return None
    if annotation is str:
        return _text
    try:
        adapter = pydantic.TypeAdapter(annotation)
    except Exception:
        return None

    def convert(value: Any) -> Any:
        try:
            return adapter.validate_python(value)
        except pydantic.ValidationError as exc:
            raise ValueError(_first(exc)) from None

    return convert


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected a string, got {_json_type(value)}")
    return value


def _first(exc: pydantic.ValidationError) -> str:
    error = exc.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in error["loc"])
    message = error["msg"][0].lower() + error["msg"][1:]
    return f"{where}: {message}" if where else message


def _json_type(value: Any) -> str:
    names = {dict: "an object", list: "an array", bool: "a boolean", int: "a number", float: "a number"}
    return "null" if value is None else names.get(type(value), type(value).__name__)


def _jsonable(value: Any) -> Any:
    try:
        return to_jsonable_python(value)
    except Exception:
        return None


def _parameters(program: Any) -> tuple[tuple[Field, ...], bool]:
    function = _entry(program)
    if function is None:
        return (), True
    try:
        hints = typing.get_type_hints(function)
    except Exception:
        hints = {}
    fields = []
    for p in inspect.signature(function).parameters.values():
        if p.name in ("self", "config"):
            continue
        if p.kind is p.VAR_KEYWORD:
            return _predictor_inputs(program), not _predictor_inputs(program)
        if p.kind is p.VAR_POSITIONAL:
            continue
        required = p.default is p.empty
        annotation = hints.get(p.name, str if required or isinstance(p.default, str) else Any)
        fields.append(_made(p.name, annotation, "", required, None if required else p.default))
    return tuple(fields), False


def _entry(program: Any) -> Any:
    for name in ("forward", "aforward"):
        function = getattr(type(program), name, None)
        if function is not None and function is not getattr(dspy.Module, name, None):
            return function
    return program if inspect.isfunction(program) else None


def _predictor_inputs(program: Any) -> tuple[Field, ...]:
    """``forward(self, **kwargs)`` takes what the one predictor inside takes, if there is one."""
    predictors = program.predictors() if isinstance(program, dspy.Module) else []
    if len(predictors) != 1:
        return ()
    return tuple(_field(n, f) for n, f in predictors[0].signature.input_fields.items())


def _outputs(program: Any) -> tuple[Field, ...]:
    predictors = program.predictors() if isinstance(program, dspy.Module) else []
    if not predictors:
        return ()
    return tuple(_field(n, f) for n, f in predictors[-1].signature.output_fields.items())


def outputs_of(value: Any) -> dict[str, Any]:
    """Return a program's result as one JSON value per output field.

    A ``Prediction`` gives its fields, a dict its items, anything else one field ``"output"``. Never fails: a value
    that JSON can't hold is given as its text, and one that has none by the name of its type.
    """
    if isinstance(value, dspy.Prediction):
        items = value.items(include_dspy=False)
    elif isinstance(value, dict):
        items = [(str(k), v) for k, v in value.items()]
    else:
        items = [("output", value)]
    return {k: v if type(v) is str else _json_value(v) for k, v in items}


def restored(program: Any, outputs: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return outputs that JSON has held with those of ``names`` as the program's predictors type them.

    Of several predictors with an output of one name the last counts. What does not fit its type stays as it is.
    """
    fields: dict[str, Any] = {}
    for predictor in program.predictors() if isinstance(program, dspy.Module) else ():
        fields.update(predictor.signature.output_fields)
    signature = _signature(program)
    fields.update(signature.output_fields if signature is not None else {})
    made = dict(outputs)
    for name in names:
        if name in fields and name in made:
            with contextlib.suppress(Exception):  # a type without a schema, or another value than the predictor's
                made[name] = pydantic.TypeAdapter(fields[name].annotation).validate_python(made[name])
    return made


def _json_value(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > 4000:
        return f"<{type(value).__name__} of {value.bit_length()} bits>"  # Python itself refuses to write it
    for bytes_mode in ("utf8", "base64"):
        try:
            return to_jsonable_python(value, fallback=str, serialize_unknown=True, bytes_mode=bytes_mode)
        except Exception:  # a cycle, a depth, bytes that are no text, a __str__ that raises
            continue
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__name__} without a JSON form>"
