"""From the words of a command line to a program's inputs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dspy_live.core.errors import InputError
from dspy_live.core.schema import Field, Schema

_STDIN = ("-", "@-")


def read_inputs(
    schema: Schema, text: str | None = None, named: Mapping[str, str] | None = None, document: str | None = None
) -> dict[str, Any]:
    """Return the inputs, checked and converted, in the signature's order.

    Args:
        schema: the program's.
        text: goes to the first required input that nothing else fills, ``-`` reads it from stdin.
        named: ``--name value`` by name; for an input that is not text the value is read as JSON
            where it is JSON.
        document: a JSON object, ``@FILE`` for one in a file, ``-`` for one on stdin.

    Raises :class:`InputError` that names the input and what was expected.
    """
    values = _document(document) if document is not None else {}
    for name, value in (named or {}).items():
        field = _field(schema, name)
        values[field.name if field else name] = _value(field, value)
    if text is not None:
        field = _first_free(schema, values)
        values[field.name] = _value(field, sys.stdin.read().strip() if text in _STDIN else text)
    _check_that_all_are_there(schema, values)
    return schema.check(values)


def _check_that_all_are_there(schema: Schema, values: Mapping[str, Any]) -> None:
    missing = [field for field in schema.inputs if field.required and field.name not in values]
    if not missing:
        return
    names = ", ".join(f"{field.name!r} ({field.type})" for field in missing)
    flags = " ".join(f"--{field.name} …" for field in missing)
    what = "field" if len(missing) == 1 else "fields"
    raise InputError(f"missing {what} {names}: put a text in quotes behind the target, or give {flags}")


def _document(document: str) -> dict[str, Any]:
    if document in _STDIN:
        text, where = sys.stdin.read(), "stdin"
    elif document.startswith("@"):
        where = document[1:]
        try:
            text = Path(where).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            raise InputError(f"can't read {where}: {exc}") from exc
    else:
        text, where = document, "--inputs"
    try:
        values = json.loads(text)
    except ValueError as exc:
        raise InputError(f"{where} is not JSON: {exc}") from exc
    if not isinstance(values, dict):
        raise InputError(f"{where} must be a JSON object with one key per input")
    return values


def _field(schema: Schema, name: str) -> Field | None:
    # The command line has dashes where the signature has underscores.
    wanted = {name, name.replace("-", "_")}
    return next((f for f in schema.inputs if f.name in wanted), None)


def _first_free(schema: Schema, values: Mapping[str, Any]) -> Field:
    free = [f for f in schema.inputs if f.name not in values]
    for field in sorted(free, key=lambda f: not f.required):
        return field
    raise InputError("the text has no input to go to: name the inputs, --name value")


def _value(field: Field | None, value: str) -> Any:
    from dspy_live.server.routes.question import value_of

    return value if field is None else value_of(field, value)
