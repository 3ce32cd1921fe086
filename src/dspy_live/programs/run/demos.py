"""A program's demos as examples of what it takes and gives, for its documentation and its playground."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import dspy
from pydantic_core import to_jsonable_python

from dspy_live.core.schema import Field

MOST_EXAMPLES = 5
MOST_CHARACTERS = 4000
"""Of one example: a demo with an image in it is for the LM, not for a page that lists programs."""


def examples_of(program: Any, inputs: Iterable[Field], outputs: Iterable[Field]) -> tuple[Mapping[str, Any], ...]:
    """Return up to five examples, each ``{"inputs": …, "outputs": …}``, from the demos of a program's predictors.

    A demo counts where it has every input that the program must be given; those of inner predictors with inputs of
    other names are no examples of the program. What JSON can't hold is left out.
    """
    takes, gives = tuple(inputs), tuple(outputs)
    needed = {field.name for field in takes if field.required}
    found: list[Mapping[str, Any]] = []
    for demo in _demos(program):
        if not needed <= demo.keys() or not takes:
            continue
        example = {"inputs": _named(demo, takes), "outputs": _named(demo, gives)}
        if example["inputs"] and example not in found and len(str(example)) <= MOST_CHARACTERS:
            found.append(example)
        if len(found) == MOST_EXAMPLES:
            break
    return tuple(found)


def _demos(program: Any) -> Iterator[dict[str, Any]]:
    for predictor in program.predictors() if isinstance(program, dspy.Module) else ():
        for demo in predictor.demos:
            try:
                yield to_jsonable_python(dict(demo))
            except Exception:  # a value without a JSON form, or a demo that is no mapping
                continue


def _named(demo: Mapping[str, Any], fields: Iterable[Field]) -> dict[str, Any]:
    return {field.name: demo[field.name] for field in fields if demo.get(field.name) is not None}
