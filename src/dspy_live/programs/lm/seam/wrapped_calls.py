"""Calls of our LM that pass through ``dspy.LM.__call__`` and ``acall``, where a tool has wrapped these.

OpenInference, for one, puts methods of its own in their place, which make a span around the old ones. DSPy's own
methods prepare the call, execute and book it. An LM of ours hands its call over to them, and is given it back where
they would execute it: ``execute`` and ``aexecute`` of ``dspy.clients.execution`` are replaced by functions that ask
whether the call was handed over, and are DSPy's own for every other one.

While nobody has wrapped them there is nothing to pass through, and the call spares itself DSPy's thread for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import dspy

from dspy_live.programs.internals import CallResult, PreparedCall, base_lm, execution, is_own_method


@dataclass(frozen=True, slots=True)
class HandedOver:
    """A call of ``lm`` that is on its way through DSPy, and the two ways to answer it."""

    lm: Any
    answer: Callable[[PreparedCall], CallResult]
    answer_async: Callable[[PreparedCall], Awaitable[CallResult]]


_handed_over: ContextVar[HandedOver | None] = ContextVar("dspy_live_handed_over_call", default=None)
_stock: dict[str, Any] = {}


def is_wrapped(name: str) -> bool:
    """True where ``dspy.LM.__call__`` or ``dspy.LM.acall``, as ``name`` says, is no longer DSPy's own."""
    found = getattr(dspy.LM, name)
    if found is _stock.get(name):
        return False
    if is_own_method(found, base_lm):
        _stock[name] = found
        return False
    return True


@contextmanager
def handed_over(call: HandedOver) -> Iterator[None]:
    """Let DSPy, called within, give this call back where it would execute it."""
    _install()
    token = _handed_over.set(call)
    try:
        yield
    finally:
        _handed_over.reset(token)


def _install() -> None:
    """Replace DSPy's two functions, once; a tool that has wrapped them meanwhile keeps its wrapper inside of ours."""
    if not getattr(execution.execute, "_dspy_live", False):
        execution.execute = _executed(execution.execute)
    if not getattr(execution.aexecute, "_dspy_live", False):
        execution.aexecute = _awaited(execution.aexecute)


def _taken(lm: Any) -> HandedOver | None:
    """Take the call of ``lm`` that was handed over here, once; ``None`` where DSPy asks for something else."""
    given = _handed_over.get()
    if given is None or given.lm is not lm:
        return None
    _handed_over.set(None)
    return given


def _executed(own: Any) -> Any:
    def execute(lm: Any, call: PreparedCall) -> CallResult:
        given = _taken(lm)
        result: CallResult = own(lm, call) if given is None else given.answer(call)
        return result

    execute._dspy_live = True  # type: ignore[attr-defined]
    return execute


def _awaited(own: Any) -> Any:
    async def aexecute(lm: Any, call: PreparedCall) -> CallResult:
        given = _taken(lm)
        result: CallResult = await (own(lm, call) if given is None else given.answer_async(call))
        return result

    aexecute._dspy_live = True  # type: ignore[attr-defined]
    return aexecute
