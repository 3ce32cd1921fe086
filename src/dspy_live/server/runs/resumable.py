"""A run that outlives its reader: its frames are kept for a while, and a reader may come back for them."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from dspy_live.core.call import Call
from dspy_live.core.errors import Cancelled, Stop
from dspy_live.runtime.scope import Room
from dspy_live.server.encoders.events import sse
from dspy_live.server.encoders.sinks import FrameSink
from dspy_live.server.errors import Gone, error_object, public_error
from dspy_live.server.runs.registry import RegisteredRun

if TYPE_CHECKING:
    from dspy_live.server.app import App
    from dspy_live.server.runs.shared.told_run import ToldRun
    from dspy_live.server.served import ServedProgram

REPLAY_BYTES = 256 << 10
"""Frames already delivered that are kept, per run, for a reader who comes back: some 2,000 tokens."""

UNDELIVERED = 64
"""Frames that may wait for a reader before the run is asked to pause."""


class Resumable:
    """One run, in a task of its own, that writes its frames into a log.

    Without a reader for ``app.grace`` seconds the run is stopped. When it is over, its log and its outcome are kept for
    ``app.keep_runs`` seconds, and what nobody has read yet for no less than the grace.
    """

    def __init__(self, app: App, program: ServedProgram, call: Call, key: str, name: str = "") -> None:
        self.id = call.id
        self.key = key
        self.name = name
        self.told: ToldRun | None = None
        """Tells the run to other servers; ``None`` where there are none."""
        self.ended = False
        self.outcome: dict[str, Any] = {"status": "running"}
        self._ended_at = 0.0
        self._app = app
        self._run = RegisteredRun(app.runs, call.id, key)
        self._encoder = sse(call.id, self._run.totals)
        self._log: deque[bytes] = deque()
        self._first = 1
        self._bytes = 0
        self._delivered = 0
        self._room = Room()
        self._readers = 0
        self._reader_elsewhere = ""
        self._waiting: list[asyncio.Future[None]] = []
        self._kept = False
        self._refusal: BaseException | None = None
        self._alone: asyncio.TimerHandle | None = None
        self._task = asyncio.create_task(self._serve(program, call))
        self._leave_alone()

    async def begun(self) -> None:
        """Let the run begin. Raises its failure where it comes at once and before any event: it was refused.

        Where servers share the limits of keys, it waits for the store to tell whether the run may begin; cancelled
        meanwhile, the run ends.
        """
        await asyncio.sleep(0)
        try:
            await self._app.keys.decided(self.id)
        except asyncio.CancelledError:
            self._run.stop(Cancelled("the client left before the run had begun"))
            raise
        if self._refusal is not None:
            raise self._refusal
        self._kept = True

    @property
    def size(self) -> int:
        """Bytes that are kept of it."""
        return self._bytes

    @property
    def is_read(self) -> bool:
        """True while somebody reads it."""
        return self._alone is None

    def describe(self) -> dict[str, Any]:
        """Return how the run stands: its status and usage, and when it is over its outputs or its error."""
        return {"run": self._run.totals.run(self.id), **self.outcome}

    def forget(self) -> None:
        """Let go of a run that is over."""
        self._cancel_timer()
        self._app.resumables.forget(self)
        if self.told is not None and self._app.shared_runs is not None:
            self._app.shared_runs.forget(self)

    @property
    def last(self) -> int:
        """The number of the last frame so far."""
        return self._encoder.seq

    @property
    def delivered_to(self) -> int:
        """The number of the last frame that a reader was given."""
        return self._delivered

    @property
    def lm_calls(self) -> int:
        """How many LM calls it has made."""
        return self._run.totals.lm_calls

    @property
    def waits(self) -> bool:
        """True while it waits for its reader."""
        return not self._room.open

    def kept(self) -> tuple[int, list[bytes]]:
        """Return the frames that are kept, and the number of the first one."""
        return self._first, list(self._log)

    def stop(self, error: BaseException) -> None:
        """End it with this error; nothing happens where it is over."""
        if not self.ended:
            self._run.stop(error)

    def resume_after(self, seq: int) -> int:
        """Return the number to begin after: the given one, or the last so far. Raises :class:`Gone`.

        Who comes back after it has been given all up to it, perhaps at another server, while the store was away.
        """
        seq = min(seq, self.last)
        self.after(seq)
        self.delivered(seq)
        return seq

    def attach(self) -> int:
        """Count a reader in and return its number; the newest one is the one that is served."""
        self._readers += 1
        self._reader_elsewhere = ""
        self._cancel_timer()
        self._wake()
        if self.told is not None:
            self.told.read_here(self._readers)
        return self._readers

    def read_elsewhere(self, reader: str, seq: int) -> None:
        """Another server has a reader, who has been given the frames up to ``seq``; a new one takes over."""
        if reader != self._reader_elsewhere:
            self._reader_elsewhere = reader
            self._readers += 1
            self._wake()
        if not self.ended:
            self._cancel_timer()
        self.delivered(min(seq, self.last))

    def left_elsewhere(self) -> None:
        """The reader at another server has left."""
        if self._reader_elsewhere:
            self._reader_elsewhere = ""
            self._leave_alone()

    def detach(self, reader: int) -> None:
        """Count a reader out; if no other has come meanwhile, the run is alone now."""
        if reader == self._readers:
            self._leave_alone()
            if self.told is not None:
                self.told.left_here()

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
        self._room.set(self.last - self._delivered < UNDELIVERED)

    async def news(self) -> None:
        """Wait until there may be something new for a reader."""
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        await waiting

    async def _serve(self, program: ServedProgram, call: Call) -> None:
        encoder = self._encoder
        try:
            with self._app.runs.called(self.name, self.id, self.key) if self.name else nullcontext():
                with self._run:
                    sink = FrameSink(encoder, self._append, self._room.wait, self._run.stop)
                    result = await program.run(call, sink, self._run.totals)
        except (Exception, Stop) as exc:
            if not (self._kept or self._log):
                self._refusal = exc
                self._cancel_timer()
                return
            error = public_error(exc, self.id)
            status = "cancelled" if isinstance(error, Cancelled) else "failed"
            self.outcome = {"status": status, **error_object(error, self.id)}
            self._append(encoder.error(error))
        else:
            self.outcome = {"status": "succeeded", "outputs": result.outputs}
            self._append(encoder.prediction(result))
        self._append(encoder.end())
        self.ended = True
        self._ended_at = asyncio.get_running_loop().time()
        if self._alone is not None or self._reader_elsewhere:
            self._leave_alone()
        self._app.resumables.ended(self)
        if self.told is not None:
            self.told.now()

    def _append(self, frame: bytes) -> bool:
        self._log.append(frame)
        self._bytes += len(frame)
        if self.told is not None:
            self.told.add(frame)
        if self.last - self._delivered >= UNDELIVERED and self._room.open:
            self._room.set(False)
            if self.told is not None:
                self.told.now()
        self._wake()
        return self._room.open

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if not one.done():
                one.set_result(None)

    def _leave_alone(self) -> None:
        self._cancel_timer()
        loop, grace, keep = asyncio.get_running_loop(), self._app.grace, self._app.keep_runs
        until = loop.time() + grace
        if self.ended:
            until = self._ended_at + (keep if self._delivered == self.last else max(keep, grace))
        self._alone = loop.call_at(until, self._abandoned)

    def _cancel_timer(self) -> None:
        if self._alone is not None:
            self._alone.cancel()
            self._alone = None

    def _abandoned(self) -> None:
        self._alone = None
        if self.ended:
            self.forget()
            return
        self._run.stop(Cancelled(f"nobody read the run for {self._app.grace:g} seconds"))
        self._leave_alone()
