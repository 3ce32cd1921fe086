"""Which fields of which predictors a reader wants: described once, resolved when the program is wrapped."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import dspy

from dspy_live.programs.fields.names import Names


@dataclass(frozen=True)
class StreamListener:
    """Describes one output field to stream. Immutable: one listener serves any number of calls at once.

    Args:
        signature_field_name: the field, by DSPy's name for this argument; or ``target_field``.
        predict: the predictor object itself.
        predict_name: the predictor's path, as ``named_predictors()`` gives it.
        allow_reuse: accepted for DSPy's sake; every listener may be used again.
        target_module: a class name of the predictor or of any module around it, or a path (``"rag.answer"``).
        target_field: the field.

    Raises ``ValueError`` when no field is named, or two different ones.
    """

    signature_field_name: str = ""
    predict: Any = None
    predict_name: str | None = None
    allow_reuse: bool = False
    target_module: str | None = None
    target_field: str | None = None

    def __post_init__(self) -> None:
        if self.target_field and self.signature_field_name and self.target_field != self.signature_field_name:
            raise ValueError(
                f"a listener has one field; got target_field={self.target_field!r} "
                f"and signature_field_name={self.signature_field_name!r}"
            )
        if not (self.target_field or self.signature_field_name):
            raise ValueError("a listener needs the name of a field: StreamListener(target_field='answer')")
        object.__setattr__(self, "signature_field_name", self.signature_field_name or self.target_field)
        object.__setattr__(self, "target_field", self.signature_field_name)


def checked_listeners(listeners: Any) -> list[Any]:
    """Return the listeners as a list. Raises ``TypeError`` for one that stands alone, or is no listener."""
    if listeners is None:
        return []
    if isinstance(listeners, str) or _is_listener(listeners):
        one = f"StreamListener({listeners!r})" if isinstance(listeners, str) else "listener"
        raise TypeError(f"stream_listeners is a list; got {_said(listeners)} alone: write stream_listeners=[{one}]")
    try:
        listed = list(listeners)
    except TypeError:
        raise TypeError(f"stream_listeners is a list of StreamListener objects; got {_said(listeners)}") from None
    for place, listener in enumerate(listed):
        if not _is_listener(listener):
            one = f"StreamListener({listener!r})" if isinstance(listener, str) else "StreamListener('answer')"
            raise TypeError(
                f"stream_listeners[{place}] is {_said(listener)}; a listener is an object with a field: write {one}"
            )
    return listed


def _is_listener(given: Any) -> bool:
    return not isinstance(given, type) and hasattr(given, "signature_field_name")


def _said(given: Any) -> str:
    return f"the text {given!r}" if isinstance(given, str) else f"{given!r}, a {type(given).__name__}"


Wanted = frozenset[tuple[str, str]]


def resolve(program: Any, names: Names, listeners: Iterable[Any]) -> Wanted:
    """Return the (predictor path, field) pairs that ``listeners`` stand for.

    DSPy's own listeners are understood too. Raises ``ValueError`` for one that matches nothing or more
    than one predictor, with what there is to choose from.
    """
    predictors = _predictors(program)
    return frozenset(_resolve_one(predictors, names, listener) for listener in listeners)


def _predictors(program: Any) -> list[tuple[str, Any, tuple[str, ...]]]:
    """Every predictor with its path and the class names of the modules around it."""
    if not isinstance(program, dspy.Module):
        return []
    modules = {path.removeprefix("self."): m for path, m in program.named_sub_modules(dspy.Module)}
    found = []
    for path, predictor in program.named_predictors():
        around = [type(program).__name__, type(predictor).__name__]
        around += [type(m).__name__ for p, m in modules.items() if path.startswith((p + ".", p + "["))]
        found.append((path, predictor, tuple(around)))
    return found


def _resolve_one(predictors: Any, names: Names, listener: Any) -> tuple[str, str]:
    field: str = listener.signature_field_name
    predict = getattr(listener, "predict", None)
    name = getattr(listener, "predict_name", None)
    target = getattr(listener, "target_module", None)
    having = [(p, m, around) for p, m, around in predictors if field in m.signature.output_fields]
    if predict is not None:
        matching = [row for row in having if row[1] is predict]
        asked = f"the predictor {names.path(predict)!r}"
    elif name is not None:
        matching = [row for row in having if row[0] == name]
        asked = f"predict_name={name!r}"
    elif target is not None:
        matching = [row for row in having if _under(row[0], target)] or [row for row in having if target in row[2]]
        asked = f"target_module={target!r}"
    else:
        matching, asked = having, "the program"
    if len(matching) == 1:
        return matching[0][0], field
    raise ValueError(_complaint(field, asked, matching, predictors))


def _under(path: str, target: str) -> bool:
    return path == target or path.startswith((target + ".", target + "["))


def _complaint(field: str, asked: str, matching: Any, predictors: Any) -> str:
    if matching:
        paths = ", ".join(repr(path) for path, _, _ in matching)
        return (
            f"the output field {field!r} is ambiguous: {asked} has it in {paths}; "
            "name one with target_module=<path> or predict_name=<path>"
        )
    there = "; ".join(f"{path}: {', '.join(m.signature.output_fields)}" for path, m, _ in predictors) or "no predictors"
    return f"no predictor matches {asked} with the output field {field!r}; the program has {there}"
