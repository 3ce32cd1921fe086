"""``POST /predict``: inputs in, outputs out, in one JSON object each."""

from __future__ import annotations

from typing import Any

from dspy_live.server.encoders.json import dumps
from dspy_live.server.encoders.sinks import UsageSink
from dspy_live.server.routes.inputs import make_call
from dspy_live.server.routes.stream import predict_stream
from dspy_live.server.runs.registry import RegisteredRun
from dspy_live.server.transport.disconnect import cancel_on_disconnect
from dspy_live.server.transport.http import JSON, Request


async def predict(request: Request) -> None:
    """Run the program and reply with its outputs, or stream it where the request asks for that.

    The client's leaving cancels the run.
    """
    request.with_run = True
    program = request.app.program(request)
    wants_events = b"text/event-stream" in request.headers.get(b"accept", b"")
    call = make_call(request, program, await request.json(), stream=wants_events)
    if call.stream:
        await predict_stream(request, program, call)
        return
    run = RegisteredRun(request.app.runs, call.id, request.key)
    totals = request.totals = run.totals
    with cancel_on_disconnect(request, run.stop), run:
        prediction = await program.run(call, UsageSink(totals), totals)
    duration = totals.duration_ms
    body: dict[str, Any] = dict(prediction.outputs)
    body.setdefault("duration_ms", duration)
    body.setdefault("run", totals.run(call.id))
    await request.reply(200, dumps(body), JSON, (b"server-timing", b"run;dur=%.3f" % duration))
