"""Methods that are called when the process forks, for as long as their object is in use."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable


def at_fork(
    *,
    before: Callable[[], object] | None = None,
    in_parent: Callable[[], object] | None = None,
    in_child: Callable[[], object] | None = None,
) -> None:
    """Call these bound methods around every fork; on a system that does not fork, never.

    Python takes no such hook back, so that each holds its object weakly and does nothing once that is gone.
    """
    if not hasattr(os, "register_at_fork"):
        return
    hooks = {"before": before, "after_in_parent": in_parent, "after_in_child": in_child}
    os.register_at_fork(**{when: _weakly(method) for when, method in hooks.items() if method is not None})


def _weakly(method: Callable[[], object]) -> Callable[[], object]:
    weak = weakref.WeakMethod(method)
    return lambda: (bound := weak()) and bound()
