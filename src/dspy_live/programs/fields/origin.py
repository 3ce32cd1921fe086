"""Which predictor makes an LM call, and where its words go.

DSPy tells nobody, so it is read off. ``settings.caller_modules`` is the path of modules, and the
list object itself is one invocation of the innermost: an adapter that falls back to another calls
the LM again under the same list. The adapter and the processed signature are those of the
``format()`` call that made these very messages; where that was not one of our adapters, they
stand in the frame of ``Adapter.__call__`` or ``acall``.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from types import CodeType, FrameType
from typing import Any

import msgspec

from dspy_live.core.call import NO_ORIGIN, Origin
from dspy_live.programs.fields.field_stream import FieldStream
from dspy_live.programs.fields.formats import Reading, reading_of
from dspy_live.programs.fields.names import Names
from dspy_live.programs.internals import Adapter, overrides
from dspy_live.programs.run.run import Run
from dspy_live.runtime.forks import process_lock

_MAX_FRAMES = 24
_MAX_NAMES = 16
"""Programs outside of any run whose names are remembered, and which are kept alive for that; an optimiser makes
thousands."""


def _code(method: Any) -> CodeType:
    while hasattr(method, "__wrapped__"):
        method = method.__wrapped__
    code: CodeType = method.__code__
    return code


_ADAPTER_CODES = (_code(Adapter.__call__), _code(Adapter.acall))


class Invocation(msgspec.Struct):
    """One call of one module. ``modules`` is kept so that its id stays its own."""

    modules: list[Any]
    stream: FieldStream


def origin_of(
    run: Run | None, messages: Any, kind: type[FieldStream] = FieldStream, reading: Reading | None = None
) -> tuple[Origin, FieldStream | None]:
    """Return the origin of the LM call with these messages, and its sink where the run streams.

    ``reading`` is for a caller that knows how the reply is read.

    To be called where the LM is called, with that code's frames and settings around it. An earlier LM call of the same
    invocation is taken back.
    """
    modules = overrides().get("caller_modules") or []
    if run is None:
        return _origin_outside(modules), None
    predictor, around = run.names.of_callers(modules) if modules else ("lm", ())
    origin = Origin(run.id, run.program, predictor, around, next(run.numbers))
    if not run.call.stream:
        return origin, None
    stream = _stream(run, origin, messages, kind) if reading is None else kind(run, origin, reading)
    if modules:
        invocation = run.invocations.get(id(modules))
        if invocation is None:
            run.invocations[id(modules)] = Invocation(modules, stream)
        else:
            stream.replace(invocation.stream)
            invocation.stream = stream
    return origin, stream


def current_stream(run: Run) -> FieldStream | None:
    """Return the sink of the last LM call of the invocation that is running here, once there was one."""
    modules = overrides().get("caller_modules") or ()
    invocation = run.invocations.get(id(modules))
    return invocation.stream if invocation is not None else None


def _stream(run: Run, origin: Origin, messages: Any, kind: type[FieldStream]) -> FieldStream:
    found = run.formatted.pop(id(messages), None)
    if not run.formatted:
        run.formatted.clear()  # which frees the table of an empty dictionary, too
    verify = None
    if found is not None and found[0] is messages:
        adapter, signature = found[1], found[2]
    else:
        adapter, signature = _from_frames(messages)
        if adapter is not None:
            verify = _reader(adapter, signature)
    _, thinking = run.thinking.pop(id(signature), (None, None))
    return kind(run, origin, reading_of(adapter, signature), verify, thinking)


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


_lock = process_lock()
_recent: OrderedDict[int, Names] = OrderedDict()


def _origin_outside(modules: list[Any]) -> Origin:
    """The origin where no run of ours is under way: plain DSPy code, such as ``Evaluate``, that uses our LM."""
    if not modules:
        return NO_ORIGIN
    predictor, around = _names_of(modules[0]).of_callers(modules)
    return Origin(program=type(modules[0]).__name__, predictor=predictor, modules=around)


def _names_of(program: Any) -> Names:
    with _lock:
        names = _recent.get(id(program))
        if names is not None:  # it keeps the program alive, so that the id is still its own
            _recent.move_to_end(id(program))
            return names
    names = Names(program)
    with _lock:
        _recent[id(program)] = names
        while len(_recent) > _MAX_NAMES:
            _recent.popitem(last=False)
    return names
