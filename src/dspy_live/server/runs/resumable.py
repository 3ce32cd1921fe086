"""A run that outlives its reader: its frames are kept for a while, and a reader may come back for them."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from dspy_live.core.call import Call
from dspy_live.core.errors import Cancelled, LiveError, Stop
from dspy_live.runtime.door import Door
from dspy_live.server.encoders.events import SSE_END, Encoder, sse
from dspy_live.server.errors import Gone, public_error
from dspy_live.server.runs.registry import ActiveRun

if TYPE_CHECKING:
    from dspy_live.server.app import App
    from dspy_live.server.served import Mounted

REPLAY_BYTES = 256 << 10
"""Frames already delivered that are kept, per run, for a reader who comes back: some 2,000 tokens."""


class Resumable:
    """One run, pumped into a log by a task of its own.

    The pump waits while more frames than the call's buffer holds have not been delivered, and so the
    LM waits. Without a reader for ``grace`` seconds the run is stopped; when it is over, its log is
    kept for as long.
    """

    def __init__(self, app: App, mounted: Mounted, call: Call, key: str) -> None:
        self.id = call.id
        self.key = key
        self.ended = False
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._app = app
        self._mounted = mounted
        self._call = call
        self._active = ActiveRun(app.runs, call.id, key, mounted.name)
        self._encoder: Encoder = sse(call.id, self._active.account)
        self._log: deque[bytes] = deque()
        self._first = 1
        self._bytes = 0
        self._delivered = 0
        self._readers = 0
        self._room = asyncio.Event()
        self._news = asyncio.Event()
        self._alone: asyncio.TimerHandle | None = None
        self.task = asyncio.create_task(self._pump())

    @property
    def last(self) -> int:
        """The number of the last frame so far."""
        return self._encoder.seq

    def attach(self) -> int:
        """Count a reader in and return its number; the newest one is the one that is served."""
        self._readers += 1
        if self._alone is not None:
            self._alone.cancel()
            self._alone = None
        self._wake()
        return self._readers

    def detach(self, reader: int) -> None:
        """Count a reader out; if no other has come meanwhile, the run is alone now."""
        if reader == self._readers:
            self._leave_alone()

    def current(self, reader: int) -> bool:
        """True while no newer reader has taken over."""
        return reader == self._readers

    def after(self, seq: int) -> bytes:
        """Return the frames after number ``seq``; raise :class:`Gone` when some are no longer kept."""
        skip = seq + 1 - self._first
        if skip < 0:
            raise Gone(f"the events before number {self._first} of this run are no longer kept")
        if skip == 0:
            return b"".join(self._log)
        return b"".join(self._log[i] for i in range(skip, len(self._log)))

    def delivered(self, seq: int) -> None:
        """Say that a reader was given the frames up to ``seq``: there is room for as many again."""
        if seq > self._delivered:
            self._delivered = seq
        while self._bytes > REPLAY_BYTES and self._first <= self._delivered:
            self._bytes -= len(self._log.popleft())
            self._first += 1
        self._room.set()

    async def news(self) -> None:
        """Wait until there may be something new for a reader."""
        await self._news.wait()

    async def _pump(self) -> None:
        try:
            self._app.runs.check()
            with self._active:
                self.begun.set_result(None)
                self._leave_alone()
                await self._take()
        except (Exception, Stop) as exc:
            if not self.begun.done():
                self.begun.set_exception(exc)
                return
            self._append(self._encoder.error(public_error(exc, self.id)))
        self._append(self._encoder.frame("done", SSE_END))
        self.ended = True
        self._wake()
        if self._alone is not None:
            self._leave_alone()

    async def _take(self) -> None:
        size = self._call.buffer.size
        async with Door(self._mounted.service.open(self._call)) as events:
            while batch := await events.receive_many():
                for event in batch:
                    self._append(self._encoder.encode(event))
                self._active.count(self._encoder.tokens)
                self._wake()
                while self.last - self._delivered >= size:
                    self._room.clear()
                    await self._room.wait()

    def _append(self, frame: bytes) -> None:
        self._log.append(frame)
        self._bytes += len(frame)

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _leave_alone(self) -> None:
        if self._alone is not None:
            self._alone.cancel()
        self._alone = asyncio.get_running_loop().call_later(self._app.grace, self._abandoned)

    def _abandoned(self) -> None:
        self._alone = None
        if self.ended:
            self._app.resumables.forget(self)
            return
        error: LiveError = Cancelled(f"nobody read the run for {self._app.grace:g} seconds")
        self._active.stop(error)
        self._alone = asyncio.get_running_loop().call_later(self._app.grace, self._abandoned)


class Resumables:
    """The resumable runs of a server, and the names of those that are over."""

    OVER = 4096

    def __init__(self) -> None:
        self._runs: dict[str, Resumable] = {}
        self._over: dict[str, str] = {}

    def add(self, run: Resumable) -> None:
        """Keep a run."""
        self._runs[run.id] = run

    def get(self, run_id: str, key: str) -> Resumable | None:
        """Return a run of this key, if it is kept."""
        run = self._runs.get(run_id)
        return run if run is not None and run.key == key else None

    def is_over(self, run_id: str, key: str) -> bool:
        """True for a run of this key that was kept once and is forgotten."""
        return self._over.get(run_id) == key

    def forget(self, run: Resumable) -> None:
        """Drop a run's log; only its name is remembered, for some thousand runs."""
        if self._runs.pop(run.id, None) is not None:
            self._over[run.id] = run.key
            if len(self._over) > self.OVER:
                del self._over[next(iter(self._over))]
