"""Who speaks where no run of ours is under way: plain DSPy code, such as ``Evaluate``, that uses our LM."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

from dspy_live.programs.fields.names import Names
from dspy_live.programs.fields.origin import Speaker
from dspy_live.programs.internals import overrides

_MOST = 16
"""Programs whose names are remembered, and which are kept alive for that; an optimiser makes thousands."""

_NOBODY = Speaker(0, "")
_lock = threading.Lock()
_recent: OrderedDict[int, Names] = OrderedDict()


def speaker_outside() -> Speaker:
    """Return who makes the LM call, and in which program; both are empty outside of any module."""
    modules = overrides().get("caller_modules")
    if not modules:
        return _NOBODY
    path, around = _names_of(modules[0]).of_callers(modules)
    return Speaker(0, path, around, program=type(modules[0]).__name__)


def _names_of(program: Any) -> Names:
    with _lock:
        names = _recent.get(id(program))
        if names is not None:  # it keeps the program alive, so that the id is still its own
            _recent.move_to_end(id(program))
            return names
    names = Names(program)
    with _lock:
        _recent[id(program)] = names
        while len(_recent) > _MOST:
            _recent.popitem(last=False)
    return names
