"""Values of one field: an input's as the text of a prompt, an output's from the text or the JSON of a reply.

DSPy builds a pydantic ``TypeAdapter`` for every value of every call, which takes longer than all else that it does with
it. What is made here is made once for a field. Where a value is not of the plain kinds, DSPy is asked as ever.
"""

from __future__ import annotations

import enum
import json
import math
import types
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, Union, get_args, get_origin

import pydantic

from dspy_live.programs.internals import IS_TYPE_UNDEFINED, _format_input_list_field_value, parse_value

Writer = Callable[[Any], "str | None"]
"""Returns the text that a value has in a prompt; ``None`` for a value that DSPy is to look at."""
Reader = Callable[[Any], Any]
"""Returns the value of an output's type. Raises ``ValueError`` where it is none."""


def writer_of(field: Any) -> Writer:
    """Return what writes values of this input field."""
    annotation = field.annotation
    if annotation is str:
        return _words_or_list
    if field.json_schema_extra.get(IS_TYPE_UNDEFINED, False):
        return _words
    return _WRITERS.get(annotation, _nothing)


def _words(value: Any) -> str | None:
    return value if type(value) is str else None


def _words_or_list(value: Any) -> str | None:
    if type(value) is str:
        return value
    written: str | None = _format_input_list_field_value(value) if _is_list_of_words(value) else None
    return written


def _list_of_words(value: Any) -> str | None:
    return json.dumps(value, ensure_ascii=False) if _is_list_of_words(value) else None


def _integer(value: Any) -> str | None:
    return str(value) if type(value) is int else None


def _number(value: Any) -> str | None:
    return str(value) if type(value) is float and math.isfinite(value) else None


def _truth(value: Any) -> str | None:
    return str(value) if type(value) is bool else None


def _nothing(value: Any) -> None:
    return None


def _is_list_of_words(value: Any) -> bool:
    return type(value) is list and all(type(item) is str for item in value)


_WRITERS: dict[Any, Writer] = {list[str]: _list_of_words, int: _integer, float: _number, bool: _truth}


def reader_of(annotation: Any) -> Reader:
    """Return what reads values of this type, as DSPy's ``parse_value`` does."""
    if annotation is str:
        return str
    dspys: Reader = partial(parse_value, annotation=annotation)
    origin = get_origin(annotation)
    if isinstance(annotation, enum.EnumMeta) or origin is Literal:
        return dspys
    if origin in (Union, types.UnionType) and {str, type(None)} <= set(get_args(annotation)):
        return dspys
    try:
        validate = pydantic.TypeAdapter(annotation).validate_python
    except Exception:  # it is defined later, or never: DSPy will say so
        return dspys

    def read(value: Any) -> Any:
        try:
            candidate = json.loads(value) if type(value) is str else value
            return dspys(value) if candidate == "" else validate(candidate)
        except (ValueError, RecursionError):
            return dspys(value)

    return read
