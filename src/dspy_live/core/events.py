"""The closed union of everything that can happen while a call runs.

Events are values: frozen, compared by content, safe to hand to another thread. An encoder
matches on every member and ends in ``assert_never``, so that adding an event here fails the
type check in each encoder until it says what the event looks like on its wire.

A *result* is not an event: it is what ``await service(call, sink)`` returns, a :data:`Result`. A *failure*
is what it raises.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

Stage: TypeAlias = Literal["starting", "processing", "complete", "failed"]
ToolStage: TypeAlias = Literal["call", "result", "error"]


class _Event(msgspec.Struct, frozen=True, tag_field="type"):
    pass


class Started(_Event, frozen=True, tag="started"):
    """The run has a slot and begins. Always the first event of a program's run."""

    run: str
    program: str = ""


class Status(_Event, frozen=True, tag="status"):
    """A line for a human about what the program is doing; never dropped, never blocks."""

    message: str
    module: str = ""
    stage: Stage | None = None


class Token(_Event, frozen=True, tag="token", gc=False):
    """Text of one ``str`` output field, decoded, as it arrives.

    ``predictor`` is the predictor's path in the program (``"rag.answer"``), ``lm_call`` the number
    of the LM call within the run, counted from 1. The texts of one ``(lm_call, field)`` joined in
    order, from its last :class:`Restart` on, are the field's value. ``last`` marks the field's last
    token, whose text may be empty.
    """

    text: str
    field: str
    predictor: str
    lm_call: int
    last: bool = False


class Partial(_Event, frozen=True, tag="partial"):
    """The value of a typed output field so far: a scalar once, a container as it grows.

    ``final`` says that the value is complete as far as the parser can tell; it replaces all earlier
    partial values of the same ``(lm_call, field)``.
    """

    value: Any
    field: str
    predictor: str
    lm_call: int
    final: bool = False


class Restart(_Event, frozen=True, tag="restart"):
    """Everything that LM call ``lm_call`` has said so far in ``fields`` is void.

    Sent when an LM call is retried, when an adapter falls back to another format, and when the
    adapter's own parser read something else than was streamed. New tokens follow: under the same
    ``lm_call`` for a retry or a repair, under a new one for a fallback. Empty ``fields`` means all.
    """

    predictor: str
    lm_call: int
    reason: str
    fields: tuple[str, ...] = ()


class Reasoning(_Event, frozen=True, tag="reasoning", gc=False):
    """Text of the model's own reasoning channel, as it arrives; not part of any field."""

    text: str
    predictor: str
    lm_call: int


class Tool(_Event, frozen=True, tag="tool"):
    """A tool is called (``call``), has returned (``result``) or has raised (``error``).

    ``id`` joins the two. ``arguments`` are the keyword arguments of the call, ``result`` the value
    or the error's text.
    """

    name: str
    stage: ToolStage
    id: str
    arguments: dict[str, Any] = {}
    result: Any = None
    duration_ms: float | None = None
    module: str = ""


class Usage(_Event, frozen=True, tag="usage"):
    """What one LM call used. Tokens are counts; ``cost`` is US dollars, ``None`` when unknown.

    ``cached`` is true when the reply came from the response cache: it used nothing.
    ``estimated`` is true when the provider did not report the counts. ``truncated`` is true when the reply ended at the
    LM's limit of tokens (``max_tokens``, or the model's own).
    """

    model: str
    predictor: str
    lm_call: int
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost: float | None = None
    cached: bool = False
    estimated: bool = False
    truncated: bool = False


class Custom(_Event, frozen=True, tag="custom"):
    """What the program's own code sent with ``emit(name, data)``. ``data`` must be JSON-encodable."""

    name: str
    data: Any = None


class TextDelta(_Event, frozen=True, tag="text", gc=False):
    """A piece of an LM's raw text. LM services push these.

    An empty text says that the LM is at work on something that is not text of its first completion: a tool call's
    arguments, another completion of ``n``.
    """

    text: str
    lm_call: int = 0
    predictor: str = ""


Event: TypeAlias = Started | Status | Token | Partial | Restart | Reasoning | Tool | Usage | Custom | TextDelta

SPOKEN = frozenset({Token, Partial, Reasoning, TextDelta})
"""Events that carry what an LM has said. A retry must take them back with a :class:`Restart`."""


class Predicted(_Event, frozen=True, tag="prediction"):
    """A program's result.

    ``outputs`` is one JSON-encodable value per output field. ``value`` is the program's own object (a
    ``dspy.Prediction``, or whatever it returned) and never leaves the process; it is ``UNSET`` where only the outputs
    are known: from a cache, or from a remote server. ``bare`` says that the program returned one value without a
    field's name, which is ``outputs["output"]``.
    """

    outputs: dict[str, Any]
    value: Any = msgspec.UNSET
    bare: bool = False


class Completion(_Event, frozen=True, tag="completion"):
    """An LM's whole reply, the result of an LM service.

    ``response`` is shaped as the provider's. ``cost`` is US dollars, ``None`` when unknown.
    """

    response: Any
    cost: float | None = None


Result: TypeAlias = Predicted | Completion
"""What a service returns."""
