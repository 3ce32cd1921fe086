"""What a fork asks for: methods that are called around it, for as long as their object is in use, and fresh locks."""

from __future__ import annotations

import os
import threading
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


def process_lock() -> threading.Lock:
    """Return a lock that is free in a forked process, whoever held it in the parent at that moment.

    For locks of modules, which are there as long as the process is.
    """
    lock = threading.Lock()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lock._at_fork_reinit)  # type: ignore[attr-defined]  # as Python's own do
    return lock


def _weakly(method: Callable[[], object]) -> Callable[[], object]:
    weak = weakref.WeakMethod(method)
    return lambda: (bound := weak()) and bound()
