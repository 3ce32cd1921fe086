"""``POST /predict``: inputs in, outputs out, in one JSON object each."""

from __future__ import annotations

from typing import Any

from dspy_live.core.call import Call
from dspy_live.core.errors import LifecycleError
from dspy_live.core.events import Predicted, Usage
from dspy_live.runtime.door import Door
from dspy_live.server.encoders.json import dumps
from dspy_live.server.routes.inputs import make_call
from dspy_live.server.routes.stream import stream_call
from dspy_live.server.runs.totals import Account
from dspy_live.server.served import Mounted
from dspy_live.server.transport.disconnect import Watch
from dspy_live.server.transport.http import JSON, Request


async def predict(request: Request) -> None:
    """Run the program and reply with its outputs, or stream it where the request asks for that."""
    request.with_run = True
    mounted = request.app.program(request)
    accept = request.header(b"accept")
    wants_events = accept is not None and "text/event-stream" in accept
    call = make_call(request, mounted, await request.json(), stream=wants_events)
    if call.stream:
        await stream_call(request, mounted, call)
        return
    account = await run(request, mounted, call)
    duration = account.duration_ms
    body: dict[str, Any] = dict(account.prediction.outputs) if account.prediction is not None else {}
    body.setdefault("duration_ms", duration)
    body.setdefault("run", account.run(call.id))
    await request.reply(200, dumps(body), JSON, (b"server-timing", b"run;dur=%.3f" % duration))


async def run(request: Request, mounted: Mounted, call: Call) -> Account:
    """Run a call to its end. The client's leaving stops it."""
    with request.app.runs.enter(call.id, request.key, mounted.name) as active, Watch(request.receive, active.stop):
        account = active.account
        async with Door(mounted.service.open(call)) as events:
            while batch := await events.receive_many():
                for event in batch:
                    if type(event) is Usage:
                        account.add(event)
                    elif type(event) is Predicted:
                        account.prediction = event
    if account.prediction is None:
        raise LifecycleError("the run ended without a prediction")
    return account
