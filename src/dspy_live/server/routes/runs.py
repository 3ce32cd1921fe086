"""``POST /runs``, ``GET /runs/{id}/events``, ``DELETE /runs/{id}``: runs that a reader may come back to."""

from __future__ import annotations

import asyncio
import re
from urllib.parse import parse_qs

from dspy_live.core.errors import Cancelled, NotFound
from dspy_live.server.encoders.events import SSE_HEARTBEAT
from dspy_live.server.encoders.json import dumps
from dspy_live.server.errors import BadRequest, ClientGone
from dspy_live.server.routes.inputs import make_call
from dspy_live.server.routes.stream import EVENT_STREAM
from dspy_live.server.runs.resumable import Resumable
from dspy_live.server.transport.disconnect import Watch
from dspy_live.server.transport.heartbeat import Heartbeat
from dspy_live.server.transport.http import JSON, Request

_EVENT_ID = re.compile(r"(?:(?P<run>[0-9a-f]+):)?(?P<seq>\d{1,15})")


async def create(request: Request) -> None:
    """Start a run; the reply says where its events are."""
    request.with_run = True
    app = request.app
    mounted = app.program(request)
    call = make_call(request, mounted, await request.json(), stream=True)
    run = Resumable(app, mounted, call, request.key)
    await run.begun
    app.resumables.add(run)
    where = f"{request.scope.get('root_path', '')}/runs/{run.id}/events"
    body = dumps({"run": {"id": run.id}, "events": where})
    await request.reply(201, body, JSON, (b"location", where.encode()))


async def events(request: Request) -> None:
    """Stream a run's events from the beginning, or after ``Last-Event-ID``; 204 when there is nothing more.

    A newer reader of the same run takes over: the older one's stream ends without ``done``.
    """
    run_id, resumables = request.params["id"], request.app.resumables
    run = resumables.get(run_id, request.key)
    if run is None:
        if not resumables.is_over(run_id, request.key):
            raise NotFound(f"no run {run_id!r}; runs are kept for {request.app.grace:g} seconds without a reader")
        await request.start(204, [])
        await request.write(b"", False)
        return
    request.run_id, request.with_run = run.id, True
    seq = min(_last_event(request, run.id), run.last)
    if run.ended and seq == run.last:
        await request.start(204, [])
        await request.write(b"", False)
        return
    if request.scope["method"] == "HEAD":
        await request.start(200, EVENT_STREAM)
        await request.write(b"", False)
        return
    run.after(seq)  # Gone is an HTTP error only before the reply has begun
    reader = run.attach()
    try:
        await _read(request, run, reader, seq)
    finally:
        run.detach(reader)


async def _read(request: Request, run: Resumable, reader: int, seq: int) -> None:
    async def beat() -> None:
        await request.write(SSE_HEARTBEAT)

    task = asyncio.current_task()
    gone: list[ClientGone] = []

    def leave(error: ClientGone) -> None:
        gone.append(error)
        if task is not None:
            task.cancel()

    try:
        with Watch(request.receive, leave), Heartbeat(request.app.pulse, beat) as heart:
            await request.start(200, EVENT_STREAM)
            while run.current(reader) and not (run.ended and seq == run.last):
                if seq == run.last:
                    heart.busy = False
                    await run.news()
                    continue
                heart.busy = heart.sent = True
                await heart.settle()
                frames, seq = run.after(seq), run.last
                await request.write(frames)
                run.delivered(seq)
    except asyncio.CancelledError:
        if gone and task is not None and task.uncancel() == 0:
            raise gone[0] from None
        raise
    await request.write(b"", False)


async def cancel(request: Request) -> None:
    """Stop a run of the asking key: any that is under way, however it was started."""
    run_id, resumables = request.params["id"], request.app.resumables
    kept = resumables.get(run_id, request.key)
    if resumables.is_over(run_id, request.key) or (kept is not None and kept.ended):
        await request.start(204, [])
        await request.write(b"", False)
        return
    request.app.runs.find(run_id, request.key).stop(Cancelled("the run was cancelled"))
    await request.reply_json({"run": {"id": run_id}, "status": "cancelling"}, 202)


def _last_event(request: Request, run_id: str) -> int:
    text = request.header(b"last-event-id")
    if text is None:
        query = parse_qs(request.scope["query_string"].decode("latin-1"))
        text = query.get("last_event_id", ["0"])[0]
    match = _EVENT_ID.fullmatch(text)
    if match is None or (match["run"] is not None and match["run"] != run_id):
        raise BadRequest(f"Last-Event-ID must be an id of this run's events, such as '{run_id}:12'; got {text[:80]!r}")
    return int(match["seq"])
