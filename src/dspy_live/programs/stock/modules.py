"""A module's call in a run, where nobody listens to its callbacks: what ``dspy.Module`` does, in a fifth of its time.

For each call of a module DSPy looks four settings up, makes two copies of all of them, and enters a generator. The
first run puts the methods of :func:`install` in the place of ``dspy.Module.__call__`` and ``acall``. They act inside of
runs only; where there is a callback, or DSPy is to count the usage itself, its own methods are called.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from contextvars import Token
from typing import Any

import dspy

from dspy_live.programs.internals import is_own_method, module, overrides, thread_local_overrides
from dspy_live.programs.run.run import KEY


def install() -> None:
    """Let modules be called the shorter way in runs. Again, or where a library has wrapped them, it does nothing."""
    own_call, own_acall = dspy.Module.__call__, dspy.Module.acall
    if not (is_own_method(own_call, module) and is_own_method(own_acall, module)):
        return

    # By this name: DSPy warns of a forward() that is called by another function.
    @functools.wraps(own_call)
    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        token = _entered(self)
        if token is None:
            return own_call(self, *args, **kwargs)
        try:
            return self.forward(*args, **kwargs)
        finally:
            thread_local_overrides.reset(token)

    @functools.wraps(own_acall)
    async def acall(self: Any, *args: Any, **kwargs: Any) -> Any:
        token = _entered(self)
        if token is None:
            return await own_acall(self, *args, **kwargs)
        try:
            return await self.aforward(*args, **kwargs)
        finally:
            thread_local_overrides.reset(token)

    __call__._dspy_live = acall._dspy_live = True  # type: ignore[attr-defined]
    dspy.Module.__call__, dspy.Module.acall = __call__, acall


def is_quiet(own: Mapping[str, Any], here: Mapping[str, Any]) -> bool:
    """True in a run, for a module whose callbacks nobody listens to, and whose usage DSPy is not to count.

    ``own`` are the module's attributes, ``here`` the settings.
    """
    if KEY not in here or here["callbacks"] or own.get("callbacks", True):
        return False
    return not here["track_usage"] or here["usage_tracker"] is not None


def _entered(called: Any) -> Token[Any] | None:
    """Make ``called`` the innermost of the calling modules; ``None`` where DSPy's own method must be taken."""
    here = overrides()
    if not is_quiet(object.__getattribute__(called, "__dict__"), here):
        return None
    changed: Any = type(here)(here)
    changed["caller_modules"] = [*(here["caller_modules"] or ()), called]
    token: Token[Any] = thread_local_overrides.set(changed)
    return token
