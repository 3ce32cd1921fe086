"""A program's inputs and outputs as data, so that a server needs to know nothing else of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from dspy_live.core.errors import InputError

Convert = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Field:
    """One input or output field.

    Args:
        name: its name in the signature.
        type: the annotation as a person would write it: ``"str"``, ``"list[int]"``, ``"dspy.Image"``.
        json_schema: its JSON Schema.
        description: for people; empty when the signature says nothing.
        required: false when it has a default or accepts ``None``.
        default: its default as a JSON value, when there is one.
        convert: turns a JSON value into what the program takes; raises ``ValueError`` or ``TypeError`` with a
            message for people. ``None`` passes the value through.
    """

    name: str
    type: str = "str"
    json_schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})
    description: str = ""
    required: bool = True
    default: Any = None
    convert: Convert | None = field(default=None, compare=False, repr=False)

    @property
    def is_text(self) -> bool:
        """True for a plain ``str`` field: the ones that stream as tokens."""
        return self.type == "str"


@dataclass(frozen=True, slots=True)
class Schema:
    """What a program takes and gives. Field order is the signature's."""

    name: str
    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    description: str = ""
    open: bool = False
    """True when the inputs could not be found out: any keyword is passed through."""
    live: Mapping[str, str] | None = None
    """The text outputs that can be given out as they stream, with the path of the predictor that speaks each. Doors
    that can't take words back hold the others to the end. ``None``: not known, and the first to speak is believed."""
    examples: tuple[Mapping[str, Any], ...] = ()
    """Examples of runs, each ``{"inputs": {…}, "outputs": {…}}`` as JSON values: the program's own demos."""

    @property
    def last_text_output(self) -> str | None:
        """The last ``str`` output, or ``None``: what a door that shows one text shows."""
        return next((f.name for f in reversed(self.outputs) if f.is_text), None)

    def check(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Check a JSON object against the inputs and convert its values.

        Returns a new dict in the signature's order. Raises :class:`InputError` that names each field that does not fit
        and what was expected: unknown ones first, then the others in the signature's order.
        """
        out, wrong = self.convert(values)
        if wrong:
            raise all_of(wrong)
        return out

    def convert(self, values: Mapping[str, Any]) -> tuple[dict[str, Any], list[InputError]]:
        """Return the values that fit, converted, and an error for each that does not; see :meth:`check`."""
        if self.open:
            return dict(values), []
        out: dict[str, Any] = {}
        wrong: list[InputError] = []
        given = 0
        for f in self.inputs:
            name = f.name
            if name not in values:
                if f.required:
                    wrong.append(InputError(f"missing field {name!r} ({f.type})", field=name, expected=f.type))
                continue
            given += 1
            try:
                out[name] = values[name] if f.convert is None else _converted(f, f.convert, values[name])
            except InputError as exc:
                wrong.append(exc)
        return out, wrong if given == len(values) else [*self._unknown(values), *wrong]

    def _unknown(self, values: Mapping[str, Any]) -> list[InputError]:
        known = {f.name for f in self.inputs}
        unknown = (name for name in values if name not in known)
        return [
            InputError(
                f"unknown field {name!r}; this program takes {_names(self.inputs)}", field=name, expected=sorted(known)
            )
            for name in islice(unknown, MOST_ERRORS + 1)
        ]


MOST_ERRORS = 20
"""Fields that one error names at most: a body of a million unknown ones must not become a reply of that size."""


def all_of(wrong: Sequence[InputError]) -> InputError:
    """Return one error for several: the message has each, ``field`` and ``expected`` are the first one's.

    ``details`` has ``errors`` where there are more: a list of objects with ``field``, ``expected`` and ``message``.
    """
    if len(wrong) == 1:
        return wrong[0]
    told = wrong[:MOST_ERRORS]
    message = "; ".join(error.message for error in told)
    if len(wrong) > len(told):
        message += "; and more"
    return InputError(message, **told[0].details, errors=[error.details | {"message": error.message} for error in told])


def _converted(f: Field, convert: Convert, value: Any) -> Any:
    try:
        return convert(value)
    except (ValueError, TypeError) as exc:
        raise InputError(f"field {f.name!r} must be {f.type}: {exc}", field=f.name, expected=f.type) from None
    except Exception as exc:  # a type's own validator may raise anything for a value that it was not made for
        raise InputError(f"field {f.name!r} must be {f.type}", field=f.name, expected=f.type) from exc


def _names(fields: tuple[Field, ...]) -> str:
    return ", ".join(f"{f.name!r} ({f.type})" for f in fields) or "no inputs"
