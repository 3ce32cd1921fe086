"""``POST /predict``: inputs in, outputs out, in one JSON object each."""

from __future__ import annotations

from typing import Any

from dspy_live.core.call import Call
from dspy_live.core.events import Predicted
from dspy_live.server.encoders.json import dumps
from dspy_live.server.encoders.sinks import UsageSink
from dspy_live.server.routes.inputs import make_call
from dspy_live.server.routes.stream import predict_stream
from dspy_live.server.runs.registry import RegisteredRun
from dspy_live.server.runs.totals import RunTotals
from dspy_live.server.served import ServedProgram
from dspy_live.server.transport.disconnect import cancel_on_disconnect
from dspy_live.server.transport.http import JSON, Request


async def predict(request: Request) -> None:
    """Run the program and reply with its outputs, or stream it where the request asks for that."""
    request.with_run = True
    program = request.app.program(request)
    accept = request.header(b"accept")
    wants_events = accept is not None and "text/event-stream" in accept
    call = make_call(request, program, await request.json(), stream=wants_events)
    if call.stream:
        await predict_stream(request, program, call)
        return
    prediction, totals = await run_call(request, program, call)
    duration = totals.duration_ms
    body: dict[str, Any] = dict(prediction.outputs)
    body.setdefault("duration_ms", duration)
    body.setdefault("run", totals.run(call.id))
    await request.reply(200, dumps(body), JSON, (b"server-timing", b"run;dur=%.3f" % duration))


async def run_call(request: Request, program: ServedProgram, call: Call) -> tuple[Predicted, RunTotals]:
    """Run a call to its end. The client's leaving cancels it."""
    run = RegisteredRun(request.app.runs, call.id, request.key)
    request.totals = run.totals
    with cancel_on_disconnect(request.receive, run.stop):
        async with run:
            return await program.run(call, UsageSink(run.totals), run.totals), run.totals
