"""``POST /predict/stream``: one run as server-sent events, in one reply."""

from __future__ import annotations

from dspy_live.core.call import Call
from dspy_live.core.errors import LMBadReply, Stop
from dspy_live.server.encoders.events import sse
from dspy_live.server.encoders.sinks import StreamSink
from dspy_live.server.errors import ClientGone, public_error
from dspy_live.server.routes.inputs import make_call
from dspy_live.server.runs.registry import RegisteredRun
from dspy_live.server.served import ServedProgram
from dspy_live.server.transport.event_stream import event_stream
from dspy_live.server.transport.http import Request


async def predict_stream(request: Request, program: ServedProgram | None = None, call: Call | None = None) -> None:
    """Run the program and stream its events; it runs in the request's own task.

    An error before the first event is an HTTP error; after it, one ``error`` event. When the client
    leaves, the call is cancelled at once. ``program`` and ``call`` are given where the request was read already.
    """
    if program is None or call is None:
        request.with_run = True
        program = request.app.program(request)
        call = make_call(request, program, await request.json(), stream=True)
    run = RegisteredRun(request.app.runs, call.id, request.key)
    request.totals = run.totals
    encoder = sse(call.id, run.totals)
    stop = run.stop  # one object for both
    with event_stream(request, stop) as stream:
        try:
            with run:
                try:  # as program.run() does it, without a coroutine of its own: streams wait here by the thousand
                    result = await program.service(call, StreamSink(encoder, stream, stop))
                except LMBadReply as exc:
                    program.explain(exc, run.totals)
                    raise
                predicted = program.prediction(result, run.totals)
        except ClientGone:
            raise
        except (Exception, Stop) as exc:
            if not request.began:
                raise
            last = encoder.error(public_error(exc, call.id))
        else:
            last = encoder.prediction(predicted)
        await stream.end(last + encoder.end())
