"""``POST /runs``, ``GET /runs/{id}/events``, ``DELETE /runs/{id}``: runs that a reader may come back to."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from dspy_live.core.errors import Cancelled, NotFound, Overloaded
from dspy_live.runtime.scope import Scope
from dspy_live.server.encoders.json import dumps
from dspy_live.server.errors import BadRequest, Gone
from dspy_live.server.routes.inputs import make_call
from dspy_live.server.runs.resumable import Resumable
from dspy_live.server.transport.event_stream import EVENT_STREAM, event_stream
from dspy_live.server.transport.http import JSON, Request

if TYPE_CHECKING:
    from dspy_live.server.runs.shared.followed_run import FollowedRun
    from dspy_live.server.runs.shared.shared_runs import SharedRuns

CLIENT_RUN_ID = b"x-client-run-id"
"""A header with a client's own name for its run, to find it by: the reply with the run's id may come late, or never."""
_EVENT_ID = re.compile(r"(?:(?P<run>[0-9a-f]+):)?(?P<seq>\d{1,15})")


async def create(request: Request) -> None:
    """Start a run; the reply says where its events are."""
    request.with_run = True
    app = request.app
    program = app.program(request)
    call = make_call(request, program, await request.json(), stream=True)
    run = Resumable(app, program, call, request.key, request.header(CLIENT_RUN_ID) or "")
    await run.begun()
    app.resumables.add(run)
    if app.shared_runs is not None:
        await app.shared_runs.share(run)
    where = f"{request.scope.get('root_path', '')}/runs/{run.id}/events"
    body = dumps({"run": {"id": run.id}, "events": where})
    await request.reply(201, body, JSON, (b"location", where.encode()))


async def events(request: Request) -> None:
    """Stream a run's events from the beginning, or after ``Last-Event-ID``; 204 when there is nothing more.

    A newer reader of the same run takes over: the older one's stream ends without ``done``.
    """
    run_id, resumables = request.params["id"], request.app.resumables
    run = resumables.get(run_id, request.key) or await _shared(request)
    if run is None:
        if not resumables.is_over(run_id, request.key):
            raise NotFound(f"no run {run_id!r}; runs are kept for {request.app.keep_runs:g} seconds after their end")
        await request.reply_empty(204)
        return
    request.run_id, request.with_run = run.id, True
    seq = run.resume_after(_last_event(request, run.id))  # Gone is an HTTP error only before the reply has begun
    if run.ended and seq == run.last:
        await request.reply_empty(204)
        return
    if request.scope["method"] == "HEAD":
        await request.reply_empty(200, *EVENT_STREAM)
        return
    reader = run.attach()
    try:
        await _read(request, run, reader, seq)
    finally:
        run.detach(reader)


async def _shared(request: Request) -> FollowedRun | None:
    """Return the run of another server that the request names, where servers share them."""
    shared = request.app.shared_runs
    return None if shared is None else await shared.find(request.params["id"], request.key)


async def _read(request: Request, run: Resumable | FollowedRun, reader: int, seq: int) -> None:
    scope = Scope()
    with event_stream(request, scope.fail) as stream:
        with scope:
            stream.open()
            while run.current(reader) and not (run.ended and seq == run.last):
                if seq == run.last:
                    await run.news()
                    continue
                frames, seq = run.after(seq), run.last
                if not stream.write(frames):
                    await stream.room()
                run.delivered(seq)
        await stream.end()


async def show(request: Request) -> None:
    """Tell how a run stands; one of ``POST /runs`` that is over, what came of it, as long as it is kept."""
    run_id, resumables = request.params["id"], request.app.resumables
    kept = resumables.get(run_id, request.key)
    if kept is not None:
        await request.reply_json(kept.describe())
        return
    if not request.app.runs.knows(run_id, request.key) and (shared := await _shared(request)) is not None:
        await request.reply_json(shared.describe())
        return
    if resumables.is_over(run_id, request.key):
        raise Gone(f"the run {run_id!r} is over, and no longer kept")
    run = request.app.runs.find(run_id, request.key)
    await request.reply_json({"run": run.totals.run(run.id), "status": "running"})


async def cancel(request: Request) -> None:
    """Stop a run of the asking key, any that is under way, however it was started: by its id, or its client's name.

    The name is what its request had as ``X-Client-Run-Id``. Where servers share runs, it may be any server's.
    """
    run_id, resumables, shared = request.params["id"], request.app.resumables, request.app.shared_runs
    kept = resumables.get(run_id, request.key)
    runs = request.app.runs.named(run_id, request.key)
    for run in runs:
        run.stop(Cancelled("the run was cancelled"))
    over = resumables.is_over(run_id, request.key) or (kept is not None and kept.ended)
    if shared is not None and not over and run_id not in (run.id for run in runs):
        over, found = await _stop_elsewhere(shared, run_id, request.key, found=bool(runs))
    else:
        found = bool(runs)
    if found:
        await request.reply_json({"run": {"id": run_id}, "status": "cancelling"}, 202)
    elif over:
        await request.reply_empty(204)
    else:
        raise NotFound(f"no run {run_id!r} is under way")


async def _stop_elsewhere(shared: SharedRuns, run_id: str, key: str, *, found: bool) -> tuple[bool, bool]:
    """Stop the runs of that id or name at other servers. Returns whether one is over, and whether any was found."""
    try:
        elsewhere = await shared.stop(run_id, key)
    except Overloaded:
        if not found:
            raise
        return False, True
    return elsewhere.over, found or elsewhere.found


def _last_event(request: Request, run_id: str) -> int:
    text = request.header(b"last-event-id")
    if text is None:
        query = parse_qs(request.scope["query_string"].decode("latin-1"))
        text = query.get("last_event_id", ["0"])[0]
    match = _EVENT_ID.fullmatch(text)
    if match is None or (match["run"] is not None and match["run"] != run_id):
        raise BadRequest(f"Last-Event-ID must be an id of this run's events, such as '{run_id}:12'; got {text[:80]!r}")
    return int(match["seq"])
