"""Errors for mistakes that are made often: a near name for an option, text where a layer is expected."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any, ParamSpec, TypeVar

from dspy_live.core.service import Layer
from dspy_live.sansio.limits.order import RECOMMENDED

P = ParamSpec("P")
R = TypeVar("R")

_CLASSES = {kind: "".join(part.capitalize() for part in kind.split("_")) for kind in RECOMMENDED}


def names_near_options(function: Callable[P, R]) -> Callable[P, R]:
    """Return ``function`` with a ``TypeError`` for an unknown option that names the nearest one, or all of them."""
    parameters = inspect.signature(function).parameters.values()
    options = [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD) and p.name != "self"]
    name = function.__qualname__.removesuffix(".__init__")

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        for given in kwargs:
            if given not in options:
                near = get_close_matches(given, options, n=1)
                hint = f"did you mean {near[0]}=?" if near else f"it has {', '.join(options)}"
                raise TypeError(f"{name}() has no option {given!r}; {hint}")
        return function(*args, **kwargs)

    return checked


def checked_layers(name: str, layers: Any) -> list[Layer]:
    """Return the layers of the option ``name`` as a list. Raises ``TypeError`` for what is no list, or no layer."""
    if isinstance(layers, str) or not isinstance(layers, Iterable):
        one = _call_of(layers) if isinstance(layers, (str, type)) else repr(layers)
        raise TypeError(f"{name}= is a list of layers; got {layers!r}: write {name}=[{one}]")
    listed: list[Layer] = list(layers)
    for place, layer in enumerate(listed):
        if isinstance(layer, type) and layer.__module__.startswith("dspy_live.layers."):
            raise TypeError(
                f"{name}[{place}] is the class {layer.__name__}; a layer is an object of it: {_call_of(layer)}"
            )
        if not callable(layer):
            raise TypeError(
                f"{name}[{place}] is {layer!r}; a layer is a function that takes a service and returns one, "
                f"such as {_call_of(layer)}"
            )
    return listed


def _call_of(given: Any) -> str:
    if isinstance(given, type):
        return f"{given.__name__}(…)"
    kind = given.lower().replace("-", "_") if isinstance(given, str) else ""
    return f"dspy_live.layers.{_CLASSES.get(kind, 'Retry')}(…)"
