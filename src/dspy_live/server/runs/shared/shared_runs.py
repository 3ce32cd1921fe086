"""The runs of several servers as one: each is told to a Redis or Valkey, where all of them find it."""

from __future__ import annotations

import asyncio
import itertools
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from dspy_live.core.errors import Cancelled, ConfigurationError
from dspy_live.runtime.stores.line import Ask, Exchange, Line
from dspy_live.sansio.store_name import store_name
from dspy_live.server.runs.registry import may_name_a_run
from dspy_live.server.runs.shared.bell import Bell
from dspy_live.server.runs.shared.errors import StoreUnreachable
from dspy_live.server.runs.shared.followed_run import FollowedRun
from dspy_live.server.runs.shared.look import Look, Seen
from dspy_live.server.runs.shared.places import Places
from dspy_live.server.runs.shared.presence import Presence
from dspy_live.server.runs.shared.scripts import PUBLISH
from dspy_live.server.runs.shared.told_run import ToldRun

if TYPE_CHECKING:
    from dspy_live.server.app import App
    from dspy_live.server.runs.resumable import Resumable

LEASE = 6.0
"""Seconds without a sign of life after which a process's runs count as lost."""
_EMPTY = (
    "this server has no such run, and the store that tells of the others' has just come back empty, and is being told "
    "again; try again soon"
)
MOST_BYTES = 1 << 20
"""Bytes of frames that are kept of each run: some 8,000 tokens."""


class Stopped(NamedTuple):
    """What there was to stop: whether runs were found that are under way, and whether one was that is over."""

    found: bool
    over: bool


class SharedRuns:
    """Runs of ``POST /runs`` in Redis or Valkey, so that every server finds, reads and stops those of all.

    A run never waits for the store. What a reader at the run's own server sees does not depend on it; others see each
    event once, about 20 ms later. A run whose process has died ends for them with an error event, after the lease.

    Args:
        url: ``redis://[user:password@]host:port/db``, ``rediss://…`` for TLS, ``unix://…``.
        prefix: the beginning of all keys and channels; servers that share runs give the same.
        most_bytes: bytes of events that are kept of each run, of those that a reader has been given already; the oldest
            go first.
        timeout: seconds to wait for the store.
        lease: seconds after which a process, or a reader, that was not heard of is gone.

    A run is kept for the server's ``keep_runs`` seconds after its end.
    Raises :class:`~dspy_live.core.errors.ConfigurationError` without the ``redis`` extra, or for values that can't be.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "dspy-live:",
        most_bytes: int = MOST_BYTES,
        timeout: float = 1.0,
        lease: float = LEASE,
    ) -> None:
        if not lease > 0 or most_bytes < 1:
            raise ConfigurationError(f"lease and most_bytes must be above 0; got {lease!r} and {most_bytes!r}")
        self._url, self._prefix, self._most_bytes, self._lease = url, prefix, most_bytes, lease
        self._line = Line(url, timeout)  # of its own: events never hold up what limits have to tell
        self.name = store_name(url)
        self._places = Places(prefix, 0.0, most_bytes, lease)
        self._presence = Presence(self._line, prefix, lease, self._tell_all, self.name)
        self._told: dict[str, ToldRun] = {}
        self._followed: dict[str, FollowedRun] = {}
        self._readers = itertools.count(1)
        self._questions: dict[str, asyncio.Queue[bool]] = {}
        self._app: App | None = None
        self._bell: Bell | None = None

    def __repr__(self) -> str:
        return f"SharedRuns({self.name!r}, prefix={self._prefix!r})"

    def begin(self, app: App) -> None:
        """Be found by other servers from now on; on the server's loop. Once is enough."""
        if self._app is not None:
            return
        self._app = app
        self._loop = asyncio.get_running_loop()
        keep = max(app.keep_runs, app.grace)
        self._places = Places(self._prefix, keep, self._most_bytes, self._lease, self._line.database)
        channels = (self._places.inbox(self._line.holder), self._places.everybody)
        self._bell = Bell(self._line.connect(), channels, self._heard)
        self._line.soon(self._presence)

    async def aclose(self) -> None:
        """Tell what is left to be told, and be found no longer."""
        if self._app is None:
            return
        self._app = None
        self._presence.close()
        if self._bell is not None:
            self._bell.close()
        await asyncio.to_thread(self._leave)

    def _leave(self) -> None:
        if not self._presence.down:
            self._line.exchange()
            try:
                self._line.run([["DEL", self._presence.key]])
            except OSError:
                return  # the lease ends by itself

    async def share(self, run: Resumable) -> None:
        """Let other servers find a run; returns when they can, or when the store does not answer."""
        name = self._places.name(run.key, run.name)
        told = ToldRun(run, self._line, self._places, name, lambda: self._presence.down)
        self._told[run.id] = run.told = told
        if not self._presence.down:
            await told.known.wait(self._line, self._line.timeout)

    def forget(self, run: Resumable) -> None:
        """Tell nothing more of a run; the store keeps it for its own time."""
        self._told.pop(run.id, None)
        run.told = None

    async def find(self, run_id: str, key: str) -> FollowedRun | None:
        """Return a key's run of another server, by its id or by its client's name for it.

        Raises :class:`StoreUnreachable` where nobody knows.
        """
        if not may_name_a_run(run_id):
            return None
        seen, settled = await self._look(run_id, key)
        if seen is None:
            if not settled:
                raise StoreUnreachable(_EMPTY)
            return None
        reader = f"{self._line.holder}:r{next(self._readers)}"
        return FollowedRun(self._line, self._places, key, seen, reader, self._followed)

    async def stop(self, run_id: str, key: str) -> Stopped:
        """Stop the runs of a key elsewhere that have this id, or this name of their client's, and tell what was found.

        Runs of ``POST /runs`` are found in the store, others by asking every server. Raises :class:`StoreUnreachable`
        where nobody knows.
        """
        if not may_name_a_run(run_id):
            return Stopped(found=False, over=False)
        seen, settled = await self._look(run_id, key, "stop")
        if seen is not None and seen.id == run_id:
            return Stopped(found=seen.runs, over=not seen.runs)
        asked = await self._ask_all(run_id, key)
        if seen is None and not asked and not settled:
            raise StoreUnreachable(_EMPTY)
        return Stopped(found=asked or (seen is not None and seen.runs), over=seen is not None and not seen.runs)

    async def _look(self, run_id: str, key: str, act: str = "look") -> tuple[Seen | None, bool]:
        look = Look(self._line, self._places, run_id, key, act)
        try:
            answer = await look.ask.wait(self._line, 2 * self._line.timeout)
        except BaseException:
            look.ask.withdraw()
            raise
        if answer is None or isinstance(answer, Exception):
            raise StoreUnreachable(
                "this server has no such run, and the store that tells of the others' does not answer; try again later"
            )
        return answer[0] if answer else None, look.settled

    async def _ask_all(self, run_id: str, key: str) -> bool:
        """Have every server stop its runs of that id or name; true where one had any."""
        nonce, answers = uuid4().hex, asyncio.Queue[bool]()
        self._questions[nonce] = answers
        message = json.dumps({"stop": run_id, "key": key, "from": self._line.holder, "nonce": nonce})
        said = _Said(self._line, self._places.everybody, message)
        try:
            async with asyncio.timeout(self._line.timeout):
                for _ in range(await said.heard_by.wait(self._line) or 0):
                    if await answers.get():
                        return True
        except TimeoutError:
            pass  # a server that has just died was counted too
        finally:
            del self._questions[nonce]
        return False

    def _tell_all(self) -> None:
        """The store was away, or has come back empty: have it told of every run."""
        for told in list(self._told.values()):
            self._line.soon(told)

    def _heard(self, channel: str, message: str) -> None:
        kind, _, rest = message.partition(" ")
        if kind == "run":
            if (told := self._told.get(rest)) is not None:
                self._line.soon(told)
            if (run := self._followed.get(rest)) is not None:
                run.ring()
            return
        with suppress(ValueError, RuntimeError):  # it is nobody's of ours; the server is gone
            told = json.loads(message)
            self._loop.call_soon_threadsafe(self._answer if channel == self._places.everybody else self._take, told)

    def _answer(self, question: dict[str, Any]) -> None:
        """Another server, or this one, wants runs to be stopped."""
        app = self._app
        if app is None:
            return
        runs = app.runs.named(question["stop"], question["key"])
        for run in runs:
            run.stop(Cancelled("the run was cancelled"))
        told = json.dumps({"nonce": question["nonce"], "found": bool(runs)})
        _Said(self._line, self._places.inbox(question["from"]), told)

    def _take(self, told: dict[str, Any]) -> None:
        if (answers := self._questions.get(told["nonce"])) is not None:
            answers.put_nowait(told["found"])


class _Said:
    """A party of the line that tells something once; ``heard_by`` is how many have heard it."""

    def __init__(self, line: Line, channel: str, message: str) -> None:
        self.heard_by: Ask[int] = Ask()
        self._exchange = Exchange(PUBLISH, channel, [message])
        line.soon(self)

    def prepare(self, holder: str) -> Exchange:
        return self._exchange

    def answered(self, answer: list[Any]) -> None:
        self.heard_by.answer(answer[0])

    def failed(self, error: Exception) -> None:
        self.heard_by.answer(0)
