"""tqdm's set of bars, made to bear what ``dspy.Parallel`` does to it.

``dspy.Parallel``, ``Module.batch`` and ``dspy.Evaluate`` begin with ``tqdm.tqdm._instances.clear()``. Where two of them
begin at once, in two threads, one empties the set while the other's bar is being made: a bar with ``disable=True``
takes itself out of the set at the end of its own making, finds nothing, and the program fails with
``KeyError: <weakref … to 'tqdm'>``; a bar that looks for a free line fails with ``Set changed size during iteration``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from weakref import ReferenceType, WeakSet

import tqdm


class Bars(WeakSet[Any]):
    """A set of bars that any thread may empty at any moment: to remove a bar that is gone is no error."""

    data: set[ReferenceType[Any]]

    def remove(self, item: Any) -> None:
        self.discard(item)

    def __iter__(self) -> Iterator[Any]:
        # A copy that is made in one step: no other thread's change comes between.
        for reference in list(self.data):
            bar = reference()
            if bar is not None:
                yield bar


def keep_bars_apart() -> None:
    """Let tqdm's bars outlive one another's beginnings; a second time it does nothing.

    The set itself stays, with the bars that are in it; only its class changes. One that another library has put in its
    place is left alone.
    """
    bars: Any = tqdm.tqdm._instances
    if type(bars) is WeakSet:
        bars.__class__ = Bars
