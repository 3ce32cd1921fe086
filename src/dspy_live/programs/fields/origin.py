"""Who is speaking: which predictor an LM call belongs to, in which format it answers, what it repeats.

DSPy tells nobody, so it is read off. ``settings.caller_modules`` is the path of modules, and the
list object itself is one invocation of the innermost: an adapter that falls back to another calls
the LM again under the same list. The adapter and the processed signature are those of the
``format()`` call that made these very messages; where that was not one of our adapters, they
stand in the frame of ``Adapter.__call__`` or ``acall``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import Any

from dspy_live.programs.fields.field_stream import Speech
from dspy_live.programs.internals import Adapter, overrides
from dspy_live.programs.run.run import Run

_MAX_FRAMES = 24


def _code(method: Any) -> CodeType:
    while hasattr(method, "__wrapped__"):
        method = method.__wrapped__
    code: CodeType = method.__code__
    return code


_ADAPTER_CODES = (_code(Adapter.__call__), _code(Adapter.acall))


@dataclass(slots=True)
class Speaker:
    """The origin of one LM call: its number in the run, the predictor's path, the paths around it.

    ``program`` is its name where there is no run to say it.
    """

    lm_call: int
    predictor: str
    modules: tuple[str, ...] = ()
    speech: Speech | None = None
    program: str = ""


@dataclass(slots=True)
class Invocation:
    """One call of one module. ``modules`` is kept so that its id stays its own."""

    modules: list[Any] = field(default_factory=list)
    speech: Speech | None = None


def speaker_of(run: Run, messages: Any, kind: type[Speech] = Speech) -> Speaker:
    """Return who makes the LM call with these messages."""
    modules = overrides().get("caller_modules") or []
    number = next(run.numbers)
    if not modules:
        return Speaker(number, "lm", (), _speech(run, "lm", number, messages, kind) if run.call.stream else None)
    path, around = run.names.of_callers(modules)
    speaker = Speaker(number, path, around)
    if run.call.stream:
        invocation = run.invocations.get(id(modules))
        if invocation is None:
            invocation = run.invocations[id(modules)] = Invocation(modules)
        elif invocation.speech is not None and invocation.speech.said:
            # The same invocation asks again: what it said before will not be its answer.
            invocation.speech.void("the predictor asks the LM again")
        speaker.speech = invocation.speech = _speech(run, path, number, messages, kind)
    return speaker


def speech_now(run: Run) -> Speech | None:
    """Return the speech of the invocation that is running here, once its LM call was made."""
    modules = overrides().get("caller_modules") or ()
    invocation = run.invocations.get(id(modules))
    return invocation.speech if invocation is not None else None


def _speech(run: Run, path: str, number: int, messages: Any, kind: type[Speech]) -> Speech:
    found = run.formatted.pop(id(messages), None)
    verify = None
    if found is not None and found[0] is messages:
        adapter, signature = found[1], found[2]
    else:
        adapter, signature = _from_frames(messages)
        if adapter is not None:
            verify = _reader(adapter, signature)
    _, thinking = run.thinking.pop(id(signature), (None, None))
    return kind(run, path, number, adapter, signature, verify, thinking)


def _reader(adapter: Any, signature: Any) -> Any:
    """Return the adapter's own reading of a reply, without the user's callbacks around it."""
    parse = type(adapter).parse
    while hasattr(parse, "__wrapped__"):
        parse = parse.__wrapped__
    return lambda text: parse(adapter, signature, text)


def _from_frames(messages: Any) -> tuple[Any, Any]:
    frame: FrameType | None = sys._getframe(2)
    for _ in range(_MAX_FRAMES):
        if frame is None:
            break
        if frame.f_code in _ADAPTER_CODES:
            seen = frame.f_locals
            if seen.get("messages") is messages:
                return seen["self"], seen["processed_signature"]
            break
        frame = frame.f_back
    return None, None
