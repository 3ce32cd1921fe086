"""From a program's arguments to a Call, and from its result back to the program's own object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dspy
import msgspec

from dspy_live.core.call import Call
from dspy_live.core.events import Predicted, Result
from dspy_live.core.service import Layer
from dspy_live.layers.deadline import Deadline
from dspy_live.layers.detached import Detached
from dspy_live.programs.run.inner_run import inherited
from dspy_live.programs.run.program import ProgramService
from dspy_live.programs.run.schema import restored


def check_timeout(timeout: float | None) -> None:
    """Raise ``ValueError`` for a timeout that is no positive number of seconds."""
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0):
        raise ValueError(f"timeout must be a positive number of seconds, or None; got {timeout!r}")


def default_layers(service: ProgramService, timeout: float | None) -> list[Layer]:
    """Return the layers that ``asyncify``, ``streamify`` and ``batch`` put around a program, the outermost first."""
    check_timeout(timeout)
    return [Deadline(timeout), Detached(when=lambda: service.may_hold_up), *service.runtime.layers]


def layers_of(service: ProgramService, timeout: float | None, layers: Sequence[Layer] | None) -> list[Layer]:
    """Return ``layers``, or the default ones. Raises ``ValueError`` for a timeout beside a list of one's own."""
    if layers is None:
        return default_layers(service, timeout)
    if timeout is not None:
        raise ValueError("timeout= is the default list's Deadline; with layers= put a Deadline into your list")
    return list(layers)


def new_call(
    service: ProgramService, args: tuple[Any, ...], kwargs: dict[str, Any], *, stream: bool = True, parent: str = ""
) -> Call:
    """Return the Call of a program's arguments; inside a run, with what it takes over from that."""
    config: dict[str, Any] = {}
    if "config" in kwargs and not any(f.name == "config" for f in service.schema.inputs):
        kwargs = dict(kwargs)
        config = kwargs.pop("config") or {}
        if not isinstance(config, dict):
            raise TypeError(f"config must be a dict of LM options; got {type(config).__name__}")
    if args and isinstance(service.program, dspy.Predict):
        raise ValueError(service.program._get_positional_args_error_message())
    return Call(kwargs, args, config, service.name, stream=stream, parent=parent, **inherited())


def value_of(service: ProgramService, result: Result) -> Any:
    """Return the program's own object. One that comes from a cache is made of its outputs, each of its field's type."""
    assert isinstance(result, Predicted)
    if result.value is not msgspec.UNSET:
        return result.value
    if result.bare:
        return result.outputs.get("output")
    return dspy.Prediction(**restored(service.program, result.outputs, result.outputs))
