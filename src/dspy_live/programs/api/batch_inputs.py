"""What the inputs of a batch may be, and what is said where they are something else."""

from __future__ import annotations

import reprlib
from collections.abc import AsyncIterable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import dspy

from dspy_live.core.schema import Schema


@dataclass(frozen=True, slots=True)
class Row:
    """An input together with what it was made of, which is what a ``BatchItem`` shows as its ``inputs``.

    One whose ``problem`` says why it can't be an input fails alone, without being run.
    """

    raw: Any
    inputs: Mapping[str, Any] | None = None
    problem: str = ""


def check_inputs(inputs: Any, schema: Schema) -> None:
    """Raise ``TypeError`` for what is no list of inputs; one input, a text and a table look like lists of others."""
    wanted = f"write [{example_of(schema)}, …]"
    if isinstance(inputs, (Mapping, dspy.Example)):
        kind = "dict" if isinstance(inputs, Mapping) else "dspy.Example"
        raise TypeError(f"inputs is a list of inputs, or any iterable of them; got one {kind}: {wanted}")
    if hasattr(inputs, "to_dict") and hasattr(inputs, "columns"):
        raise TypeError(
            'inputs is a list of inputs; got a table: write table.to_dict("records"), in polars table.to_dicts()'
        )
    many = isinstance(inputs, (Iterable, AsyncIterable)) or hasattr(inputs, "__getitem__")
    if isinstance(inputs, (str, bytes)) or not many:
        shown = reprlib.repr(inputs)
        raise TypeError(
            f"inputs is a list of inputs, or any iterable of them; got {type(inputs).__name__} {shown}: {wanted}"
        )


def example_of(schema: Schema, first: str = "…") -> str:
    """Return how an input of this program is written, with ``first`` as its first value."""
    required = [field.name for field in schema.inputs if field.required] or [f.name for f in schema.inputs][:1]
    fields = [f"{name!r}: {'…' if n else first}" for n, name in enumerate(required or ["name of an input"])]
    return "{" + ", ".join(fields) + "}"


def arguments_of(inputs: Any, schema: Schema) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return positional and keyword arguments of one input. Raises ``TypeError`` or ``ValueError`` for what is none."""
    if isinstance(inputs, dspy.Example):
        # inputs() fails where with_inputs() was never called: then all fields are inputs.
        return (), dict(inputs.inputs() if inputs._input_keys is not None else inputs.items())
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    if isinstance(inputs, tuple):
        return inputs, {}
    if isinstance(inputs, Row):
        if inputs.inputs is None:
            raise ValueError(inputs.problem)
        return (), dict(inputs.inputs)
    raise TypeError(
        "an input is a dict with one key per input, a dspy.Example or a tuple of positional arguments; "
        f"got {type(inputs).__name__} {reprlib.repr(inputs)}: write {example_of(schema, reprlib.repr(inputs))}"
    )
