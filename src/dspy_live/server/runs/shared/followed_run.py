"""A run of another server, read from the store by a reader of this one."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

import msgspec

from dspy_live.core.errors import LiveError, StreamBroken
from dspy_live.runtime.stores import line as shared
from dspy_live.runtime.stores.line import Exchange, Line
from dspy_live.server.errors import Gone, error_object
from dspy_live.server.runs.last_words import last_words
from dspy_live.server.runs.shared.errors import StoreUnreachable, run_lost
from dspy_live.server.runs.shared.look import Seen
from dspy_live.server.runs.shared.places import Places
from dspy_live.server.runs.shared.scripts import LOOK

POLL = 1.0
"""Seconds after which a reader looks by itself, if nobody has called it."""
_SOON = 0.25
"""Seconds after which it looks again for a run, or an owner, that is not there: the store may have been restarted."""
_TELL = 0.02
"""Seconds that the number that was read may wait for more frames before it is told."""
_READ_BYTES = 64 << 10


class FollowedRun:
    """Read like a run of this process; a party of the line. It asks for more when its client has taken what came.

    It ends with an error event where the run's server is not heard of for the lease, where the store does not answer
    for that long, and where it has lost the run.

    Args:
        line: the line to the store.
        places: where runs are kept.
        key: the name of the API key that the run belongs to.
        seen: what was found.
        reader: this reader's name, which no other has.
        followed: those that are read in this process, by the run's id; it is among them while it reads.
    """

    def __init__(
        self, line: Line, places: Places, key: str, seen: Seen, reader: str, followed: dict[str, FollowedRun]
    ) -> None:
        self.id = seen.id
        self.ended = False
        self.last = 0
        self._line, self._places, self._key, self._reader = line, places, key, reader
        self._seen, self._followed = seen, followed
        self._loop = asyncio.get_running_loop()
        self._act = "look"
        self._read = 0
        self._frames = b""
        self._superseded = False
        self._waiting: asyncio.Future[None] | None = None
        self._missed_since: float | None = None
        self._heard_at = time.monotonic()

    def resume_after(self, seq: int) -> int:
        """Begin after that number, or after the last one of a run that is over. Raises :class:`Gone`."""
        seen = self._seen
        if seq + 1 < seen.first:
            raise Gone(f"the events before number {seen.first} of this run are no longer kept")
        # Of one under way its server may have told this client more than it has told the store.
        self._read = self.last = min(seq, seen.last) if seen.over else seq
        self.ended = seen.over and self.last == seen.last
        return self.last

    def describe(self) -> dict[str, Any]:
        """Return how the run stands, as its server has told; one whose server is not heard of any more has failed."""
        seen = self._seen
        told: dict[str, Any] = msgspec.json.decode(seen.state) if seen.state else {"run": {"id": self.id}}
        if seen.over:
            return told
        if seen.alive:
            return told | {"status": "running"}
        return told | {"status": "failed", **error_object(run_lost(), self.id)}

    def attach(self) -> int:
        """Read from now on, in place of any other reader."""
        if (before := self._followed.get(self.id)) is not None:
            before._supersede()
        self._followed[self.id] = self
        self._act = "take"
        self._line.soon(self)
        return 1

    def detach(self, reader: int) -> None:
        """Read no longer."""
        if self._followed.get(self.id) is self:
            del self._followed[self.id]
        self._act = "leave"
        self._line.soon(self)

    def current(self, reader: int) -> bool:
        """True while no newer reader has taken over, at any server."""
        return not self._superseded

    def after(self, seq: int) -> bytes:
        """Return what came after ``seq``, the number that was read last."""
        frames, self._frames = self._frames, b""
        return frames

    async def news(self) -> None:
        """Wait until there may be something new."""
        self._waiting = self._loop.create_future()
        await self._waiting

    def delivered(self, seq: int) -> None:
        """Say that the client has taken the frames up to ``seq``, and ask for more."""
        self._read = seq
        if not self.ended:
            self._line.soon(self, 0.0 if self._seen.last > seq else _TELL)

    def ring(self) -> None:
        """Look at once: somebody has said that there is something new. In any thread."""
        self._line.soon(self)

    # A party of the line, in its thread.

    def prepare(self, holder: str) -> Exchange | None:
        """Tell how far the client has read, and ask for what comes after what is here."""
        act, read = self._act, self._read
        if act == "look":
            return None
        wanted = 0 if act == "leave" or self.last > read else _READ_BYTES
        args = [self._key, self._reader, act, read, holder, self._places.prefix, wanted, "", self._places.lease]
        return Exchange(LOOK, self._places.run(self.id), args)

    def answered(self, answer: list[Any]) -> None:
        """Hand on what came, and look again after a while."""
        self._heard_at = time.monotonic()
        if self._act == "leave":
            self._act = "look"
            return
        seen = Seen.of(answer)
        self._line.soon(self, POLL if seen is not None and seen.alive else _SOON)
        self._call(self._learn, seen)

    def failed(self, error: Exception) -> None:
        """Try again, for as long as the lease."""
        if self._act == "leave":
            return
        if time.monotonic() - self._heard_at > self._places.lease:
            self._call(self._end, StoreUnreachable("the store of runs does not answer; come back for this run later"))
        else:
            self._line.soon(self, shared.REST)

    def _call(self, function: Any, *args: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: the server is gone
            self._loop.call_soon_threadsafe(function, *args)

    # On the reader's loop.

    def _learn(self, seen: Seen | None) -> None:
        if self.ended or self._superseded or self._act in ("leave", "look"):
            return
        if seen is None:
            self._missed(StreamBroken("this run is no longer kept"), self._places.lease)
            return
        self._seen = seen
        if not self._reads_on(seen):
            return
        self._add(seen)
        if seen.over and self.last >= seen.last:
            self.ended = True
            self._wake()
        elif seen.alive or seen.over:
            self._missed_since = None
        elif self.last >= seen.last:
            self._missed(run_lost(), self._places.lease / 2)

    def _reads_on(self, seen: Seen) -> bool:
        if seen.reader == self._reader:
            self._act = "go"
        elif seen.reader:
            self._supersede()
            return False
        else:  # the store was restarted empty, and the run was told anew
            self._act = "take"
            self._line.soon(self)
        return True

    def _supersede(self) -> None:
        self._superseded = True
        self._wake()

    def _add(self, seen: Seen) -> None:
        if seen.known and seen.last < self.last and not self._frames:
            self.last = self._read = seen.last  # a number that the run has not reached
        if seen.ends <= self.last or self._frames:
            return
        if seen.begins > self.last + 1:
            self._end(Gone(f"the events before number {seen.begins} of this run are no longer kept"))
            return
        frames = seen.frames
        for _ in range(self.last + 1 - seen.begins):
            frames = frames[frames.index(b"\n\n") + 2 :]
        self._frames, self.last = frames, seen.ends
        self._wake()

    def _missed(self, error: LiveError, seconds: float) -> None:
        """End where the run, or its server, is missed for long: a store that was restarted is told of both again."""
        now = time.monotonic()
        self._missed_since = self._missed_since or now
        if now - self._missed_since > seconds:
            self._end(error)

    def _end(self, error: LiveError) -> None:
        if not self.ended:
            self.ended = True
            self._frames += last_words(error, self.id)
            self.last += 1
            self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
