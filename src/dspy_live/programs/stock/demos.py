"""The messages of a predictor's demos, made once and kept as long as the demos say the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dspy

Message = dict[str, Any]
MOST = 8
"""Lists of demos that are kept for one signature: predictors may share it, and optimisers try many."""
_MISSING = object()


class KeptDemos:
    """The messages of lists of demos, for one signature under one adapter.

    A list is known by what its demos say now, so that one that was changed, in place too, is written anew. Values that
    are neither text, numbers, truth values nor containers of such ones are never kept.
    """

    __slots__ = ("_kept", "_names")

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._kept: dict[Any, list[Message]] = {}

    def messages(self, demos: Sequence[Any], write: Callable[[], list[Message]]) -> list[Message]:
        """Return the messages that ``write()`` makes of ``demos``, each a dictionary of this call's own."""
        key = self._said(demos)
        if key is None:
            return write()
        kept = self._kept.get(key)
        if kept is None:
            made = write()
            if any(type(message.get("content")) is not str for message in made):
                return made
            if len(self._kept) >= MOST:
                self._kept = {}
            kept = self._kept[key] = made
        return [dict(message) for message in kept]

    def _said(self, demos: Sequence[Any]) -> Any:
        """Return all that the demos say of the signature's fields, or ``None`` where it can't be compared."""
        said = []
        try:
            for demo in demos:
                fields: Mapping[str, Any] = demo if type(demo) is dict else _FIELDS[type(demo)](demo)
                for name in self._names:
                    value = fields.get(name, _MISSING)
                    said.append(value if type(value) is str else _frozen(value))
        except (KeyError, RecursionError):
            return None
        return tuple(said)


_FIELDS: dict[type, Callable[[Any], Mapping[str, Any]]] = {dspy.Example: lambda demo: demo._store}


def _frozen(value: Any) -> Any:
    """Return what equals the same of another value where the two are written alike. Raises ``KeyError`` for others."""
    return value if value is _MISSING else (type(value), _FREEZERS[type(value)](value))


_FREEZERS: dict[type, Callable[[Any], Any]] = {
    str: lambda value: value,
    int: lambda value: value,
    bool: lambda value: value,
    float: repr,
    type(None): lambda value: value,
    list: lambda value: tuple([_frozen(item) for item in value]),
    tuple: lambda value: tuple([_frozen(item) for item in value]),
    dict: lambda value: tuple([(_frozen(key), _frozen(item)) for key, item in value.items()]),
}
