"""One worker's view of the others: it sums what all have counted, and hands a request to the worker of its run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from dspy_live.core.errors import Overloaded
from dspy_live.server.routes.health import readiness
from dspy_live.server.routes.statistics import metrics_text
from dspy_live.server.workers.counts import Counts, DeadCounts, latest, read_dead, read_files, write
from dspy_live.server.workers.forward import FORWARDED, forward, forward_unheard, portable, serve_forwarded
from dspy_live.server.workers.link import LinkServer, ask, others, socket_of, write_frame
from dspy_live.server.workers.sums import merged_texts, summed_readiness, summed_statistics

if TYPE_CHECKING:
    from dspy_live.server.app import App
    from dspy_live.server.transport.http import Request

ANSWER_SECONDS = 2.0
"""Seconds that another worker has to answer; then its file says what it has counted."""
FIND_SECONDS = 10.0
"""Seconds that another worker has to say whether it has a run: as long as one is busy, its runs are not unknown."""
WRITE_SECONDS = 1.0
"""Seconds between two looks at what has changed: what a killed worker has counted and not written, at most."""
_SILENT = "silent"


class Siblings:
    """The other workers of this server; inside ``async with`` this worker answers them.

    Args:
        app: this worker's application.
        folder: where all workers of the server have their sockets and files; only this user may open it.
        worker: this worker's number.
        began: when the server began, by ``time.monotonic()``, which all processes of a machine share.
    """

    def __init__(self, app: App, folder: Path, worker: int, began: float) -> None:
        self._app = app
        self._folder = folder
        self._worker = worker
        self._began = began
        self._link = LinkServer(socket_of(folder, worker), self._answer)
        self._written: tuple[Any, ...] = ()
        self._writing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Siblings:
        await self._counts()
        await self._link.__aenter__()
        self._writing = asyncio.create_task(self._keep_writing())
        self._app.siblings = self
        return self

    async def __aexit__(self, *_: object) -> None:
        self._app.siblings = None
        if self._writing is not None:
            self._writing.cancel()
        await self._link.__aexit__()
        await self._counts()

    async def metrics(self) -> bytes:
        """Return the text of the whole server's metrics."""
        live, dead = await self._all()
        texts = [(str(one.worker), one.metrics) for one in live]
        return merged_texts([*texts, ("", dead.metrics)]).encode()

    async def statistics(self) -> dict[str, Any]:
        """Return the statistics of the whole server."""
        live, dead = await self._all()
        return summed_statistics(
            [one.statistics for one in live],
            dead.statistics,
            [seconds for one in live for seconds in one.durations],
            [seconds for one in live for seconds in one.first],
            time.monotonic() - self._began,
        )

    async def readiness(self) -> dict[str, Any]:
        """Return the readiness of the whole server. A worker that does not answer is not ready."""
        told = await self._ask_all({"ask": "readiness"})
        return summed_readiness([await readiness(self._app), *told])

    async def serve(self, request: Request) -> bool:
        """Let the worker of the run that ``request`` names answer it. False where that is this one, or nobody.

        A stop goes to all workers that have a run of that name. Raises :class:`Overloaded` where no worker says that
        it has the run, and one says nothing at all.
        """
        if FORWARDED in request.scope:
            return False
        run_id, stop = request.params["id"], request.scope["method"] not in ("GET", "HEAD")
        mine = self._knows(run_id, request.key)
        if mine and not stop:
            return False
        theirs, silent = await self._who_know(run_id, request.key)
        if mine:
            await asyncio.gather(*(forward_unheard(path, portable(request)) for path in theirs))
            return False
        if not theirs and silent:
            raise Overloaded(
                "another worker of this server may have this run and is too busy to say so; ask again soon"
            )
        if not theirs:
            return False
        await asyncio.gather(*(forward_unheard(path, portable(request)) for path in theirs[1:]))
        await forward(theirs[0], request)
        return True

    async def cancel_mcp(self, key: str, session: str, request_id: Any) -> None:
        """Cancel an MCP client's call in whichever worker it is."""
        await self._ask_all({"ask": "cancel_mcp", "key": key, "session": session, "id": request_id})

    async def _all(self) -> tuple[list[Counts], DeadCounts]:
        own, told = await self._counts(), await self._ask_all({"ask": "counts"})
        live = [own, *(msgspec.convert(one, Counts) for one in told)]
        files = read_files(self._folder)
        dead = read_dead(self._folder)  # the last: see read_files
        return latest(live, files, dead), dead

    async def _ask_all(self, question: Any) -> list[Any]:
        """Return the answers of those that answer in time."""
        paths = others(self._folder, self._worker)
        answers = await asyncio.gather(*(ask(path, question, ANSWER_SECONDS) for path in paths))
        return [one for one in answers if one is not None]

    async def _who_know(self, run_id: str, key: str) -> tuple[Sequence[Path], bool]:
        """Return the workers that have a run, and whether one of them is silent."""
        paths = others(self._folder, self._worker)
        question = {"ask": "knows", "id": run_id, "key": key}
        answers = await asyncio.gather(*(ask(path, question, FIND_SECONDS, late=_SILENT) for path in paths))
        knowing = [path for path, answer in zip(paths, answers, strict=True) if answer is True]
        return knowing, _SILENT in answers

    def _knows(self, run_id: str, key: str) -> bool:
        return self._app.resumables.knows(run_id, key) or self._app.runs.knows(run_id, key)

    async def _answer(self, question: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        match question["ask"]:
            case "http":
                await serve_forwarded(self._app, question["scope"], reader, writer)
            case "counts":
                write_frame(writer, msgspec.to_builtins(await self._counts()))
            case "readiness":
                write_frame(writer, await readiness(self._app))
            case "knows":
                write_frame(writer, self._knows(question["id"], question["key"]))
            case "cancel_mcp":
                self._app.mcp_calls.cancel(question["key"], question["session"], question["id"])
                write_frame(writer, True)

    async def _counts(self) -> Counts:
        """Return what this worker has counted; it is in its file before anybody hears of it."""
        runs = self._app.runs
        self._written = self._marks()
        durations, first = runs.recent()
        counts = Counts(
            worker=self._worker,
            statistics=runs.statistics(),
            durations=durations,
            first=first,
            metrics=metrics_text(self._app).decode(),
        )
        write(self._folder, counts)
        return counts

    async def _keep_writing(self) -> None:
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            if self._marks() != self._written:
                await self._counts()

    def _marks(self) -> tuple[Any, ...]:
        runs = self._app.runs
        return (runs.started, runs.succeeded, runs.failed, runs.cancelled, runs.refused, runs.tokens)
