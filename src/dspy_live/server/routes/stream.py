"""``POST /predict/stream``: one run as server-sent events, in one reply."""

from __future__ import annotations

from dspy_live.core.call import Call
from dspy_live.core.errors import LiveError, Stop
from dspy_live.runtime.door import Door
from dspy_live.server.encoders.events import SSE_END, SSE_HEARTBEAT, Encoder, sse
from dspy_live.server.errors import ClientGone, public_error
from dspy_live.server.routes.inputs import make_call
from dspy_live.server.runs.totals import Account
from dspy_live.server.served import Mounted
from dspy_live.server.transport.disconnect import Watch
from dspy_live.server.transport.heartbeat import Heartbeat
from dspy_live.server.transport.http import Headers, Request

EVENT_STREAM: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


async def predict_stream(request: Request) -> None:
    """Run the program and stream its events."""
    request.with_run = True
    mounted = request.app.program(request)
    await stream_call(request, mounted, make_call(request, mounted, await request.json(), stream=True))


async def stream_call(request: Request, mounted: Mounted, call: Call) -> None:
    """Stream one call.

    An error before the first event is an HTTP error; after it, one ``error`` event. When the client
    leaves, the call is left at once and nothing more is encoded.
    """
    active = request.app.runs.enter(call.id, request.key, mounted.name)
    account = active.account
    encoder = sse(call.id, account)
    send = request.send_raw

    async def beat() -> None:
        if not request.began:
            await start(request, account)
        await request.write(SSE_HEARTBEAT)

    try:
        with active, Watch(request.receive, active.stop), Heartbeat(request.app.pulse, beat) as heart:
            async with Door(mounted.service.open(call)) as events:
                while batch := await events.receive_many():
                    heart.busy = heart.sent = True
                    if heart.beating is not None:
                        await heart.settle()
                    body = encoder.many(batch)
                    active.count(encoder.tokens)
                    if not request.began:
                        await start(request, account)
                    await send({"type": "http.response.body", "body": body, "more_body": True})
                    heart.busy = False
    except ClientGone:
        raise
    except (Exception, Stop) as exc:
        if not request.began:
            raise
        await finish(request, encoder, public_error(exc, call.id))
        return
    if not request.began:
        await start(request, account)
    await request.write(encoder.frame("done", SSE_END), False)


async def start(request: Request, account: Account) -> None:
    """Send the head of an event stream; ``Server-Timing`` says how long the first event took."""
    timing = (b"server-timing", b"start;dur=%.3f" % account.duration_ms)
    await request.start(200, [*EVENT_STREAM, timing])


async def finish(request: Request, encoder: Encoder, error: LiveError) -> None:
    """End a stream that failed: an ``error`` event, then ``done``."""
    await request.write(encoder.error(error) + encoder.frame("done", SSE_END), False)
