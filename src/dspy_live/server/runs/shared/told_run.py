"""A run of this process, told to the store in batches as it goes on."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dspy_live.core.errors import Cancelled
from dspy_live.runtime.stores import line as shared
from dspy_live.runtime.stores.line import Ask, Exchange, Line
from dspy_live.server.encoders.json import dumps
from dspy_live.server.runs.shared.places import REFRESH, Places
from dspy_live.server.runs.shared.scripts import TELL

if TYPE_CHECKING:
    from dspy_live.server.runs.resumable import Resumable

READ_ELSEWHERE = (0.02, 0.02)
"""The moments at which runs are told that somebody reads at another server: so many seconds apart; and the longest that
a frame waits for one."""
UNREAD_ELSEWHERE = (0.05, 1.0)
"""The same for runs that nobody reads there: what a server that is killed takes along."""
BATCH_BYTES = 64 << 10
"""About the bytes of frames that go out at once."""


class ToldRun:
    """A party of the line. The run's loop adds frames and waits for nothing; all else is the line's thread's.

    What the store has not acknowledged is sent again. While it is away, as much is held as it would keep: of what a
    reader has been given the last bytes, and all that nobody has read yet.

    Args:
        run: the run.
        line: the line to the store.
        places: where runs are kept, and how much of each.
        name: the client's name for the run, or nothing.
        down: whether the store is known not to answer. Who knows it sees to it that runs are told when it does again.
    """

    def __init__(self, run: Resumable, line: Line, places: Places, name: str, down: Callable[[], bool]) -> None:
        self._run, self._line, self._places, self._name = run, line, places, name
        self._down = down
        self._loop = asyncio.get_running_loop()
        self._key = places.run(run.id)
        self.known: Ask[bool] = Ask()
        # Added by the loop, taken by the thread.
        self._pending: deque[bytes] = deque()
        self._due = True
        self._takes = ""
        # The thread's, but for the moment in which it waits for the loop to collect all that is kept.
        self._collecting = False
        self._sending: list[bytes] = []
        self._next = 1
        self._size = 0
        self._anew = False
        self._state: tuple[Any, ...] = ()
        self._reader, self._stopped = "", False
        self._heard_at = time.monotonic()
        self._sent: tuple[int, str, tuple[Any, ...]] = (0, "", ())
        self._collect()

    def add(self, frame: bytes) -> None:
        """Tell a frame, soon."""
        self._pending.append(frame)
        if not self._due:
            self._soon()

    def now(self) -> None:
        """Tell at once what there is to tell: the run is over, or waits for a reader."""
        self._due = True
        self._line.soon(self)

    def read_here(self, reader: int) -> None:
        """Tell that a reader of this process has taken over; at once, for a newer one may come elsewhere."""
        self._takes = f"{self._line.holder}:{reader}"
        self.now()

    def left_here(self) -> None:
        """Take nothing over any more: the reader of this process has left."""
        self._takes = ""

    def _soon(self) -> None:
        self._due = True
        slot, wait = READ_ELSEWHERE if self._reader else UNREAD_ELSEWHERE
        self._line.soon(self, wait - time.monotonic() % slot)  # many runs at the same moments: one message for all

    def _collect(self) -> None:
        """Begin with all that the run has kept; on its loop."""
        self._pending.clear()
        self._next, self._sending = self._run.kept()
        self._size = sum(map(len, self._sending))
        self._anew, self._state = True, ()
        self._collecting = False
        self.now()

    # A party of the line, in its thread.

    def prepare(self, holder: str) -> Exchange | None:
        """Tell the next frames, and how the run stands."""
        if self._collecting:
            return None
        self._due = False
        ended = self._run.ended  # before the frames are taken: its last ones are among them
        self._take()
        batch = self._batch()
        whole = len(batch) == len(self._sending)
        over = ended and whole
        state = (self._run.lm_calls, over)
        told = dumps(self._run.describe()) if state != self._state else b""
        takes = self._takes  # the loop may change it meanwhile
        self._sent = (len(batch), takes, state)
        places = self._places
        args = [
            holder, self._next, self._next + len(batch) - 1, b"".join(batch), _flag(self._anew), told, _flag(over),
            _flag(self._run.waits), takes, self._run.key, self._name, places.keep_ms(over=over),
            places.most_bytes, places.prefix, self._run.id, self._run.delivered_to, int(places.lease * 1000),
        ]  # fmt: skip
        return Exchange(TELL, self._key, args)

    def _take(self) -> None:
        with suppress(IndexError):
            while True:
                frame = self._pending.popleft()
                self._sending.append(frame)
                self._size += len(frame)
        gone, read = 0, self._run.delivered_to + 1 - self._next
        while self._size > self._places.most_bytes and gone < min(read, len(self._sending)):
            self._size -= len(self._sending[gone])
            gone += 1
        if gone:
            self._drop(gone, counted=True)
            self._anew = True

    def _batch(self) -> list[bytes]:
        size = 0
        for number, frame in enumerate(self._sending):
            size += len(frame)
            if size >= BATCH_BYTES:
                return self._sending[: number + 1]
        return self._sending[:]

    def _drop(self, count: int, *, counted: bool = False) -> None:
        if not counted:
            self._size -= sum(map(len, self._sending[:count]))
        del self._sending[:count]
        self._next += count

    def answered(self, answer: list[Any]) -> None:
        """Forget what the store has, and learn who reads there."""
        kind, last, reader, read, ago, stop = answer
        self._heard_at = time.monotonic()
        count, takes, state = self._sent
        if kind == b"unknown":
            self._collecting = True
            self._call(self._collect)
            return
        if kind == b"heard":
            self._drop(max(0, min(len(self._sending), last - self._next + 1)))
            self.now()
            return
        self._drop(count)
        self._anew, self._state = False, state
        self.known.answer(True)
        if self._takes == takes:
            self._takes = ""
            self._learn(reader.decode(), read, float(ago))
        if stop and not self._stopped:
            self._stopped = True
            self._call(self._run.stop, Cancelled("the run was cancelled"))
        if self._sending:
            self.now()
        elif not state[1]:
            self._line.soon(self, self._places.lease / 3 if self._reader else REFRESH)

    def _learn(self, reader: str, read: int, ago: float) -> None:
        here = reader.partition(":")[0] == self._line.holder
        if reader and not here and ago < self._places.lease:
            self._reader = reader
            self._call(self._run.read_elsewhere, reader, read)
        elif self._reader:
            self._reader = ""
            self._call(self._run.left_elsewhere)

    def failed(self, error: Exception) -> None:
        """Try again; a reader elsewhere is gone when nothing was heard of it for the lease."""
        self.known.answer(False)
        if self._reader and time.monotonic() - self._heard_at > self._places.lease:
            self._reader = ""
            self._call(self._run.left_elsewhere)
        self._due = True
        if self._reader or not self._down():  # else it is told when the store is back
            self._line.soon(self, shared.REST)

    def _call(self, function: Any, *args: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: the server is gone
            self._loop.call_soon_threadsafe(function, *args)


def _flag(value: bool) -> str:
    return "1" if value else ""
