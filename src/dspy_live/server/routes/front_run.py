"""One run behind a chat front end: its protocol's events while it goes on, its protocol's error when it fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, TypeVar

from dspy_live.core.call import Call
from dspy_live.core.errors import Stop, StreamBroken
from dspy_live.core.events import Predicted
from dspy_live.server.encoders.front import FrontEncoder, FrontSink
from dspy_live.server.errors import ClientGone, public_error
from dspy_live.server.runs.registry import RegisteredRun
from dspy_live.server.runs.totals import RunTotals
from dspy_live.server.served import ServedProgram
from dspy_live.server.transport.disconnect import cancel_on_disconnect
from dspy_live.server.transport.event_stream import event_stream
from dspy_live.server.transport.http import Request

E = TypeVar("E", bound=FrontEncoder)
MakeEncoder: TypeAlias = Callable[[RunTotals, Callable[[StreamBroken], object]], E]
"""Makes a run's encoder of its totals and of what ends the run when its text is broken."""


async def stream_run(
    request: Request, program: ServedProgram, call: Call, make: MakeEncoder[E], opening: Callable[[E], bytes]
) -> None:
    """Reply with the run's events; the client's leaving cancels it.

    An error before the first byte is an HTTP error; after it, what the encoder makes of it. ``opening`` is what stands
    before all events.
    """
    run = RegisteredRun(request.app.runs, call.id, request.key)
    request.totals = run.totals
    encoder = make(run.totals, run.stop)
    with event_stream(request, run.stop, opening(encoder)) as stream:
        sink = FrontSink(encoder, run.totals, stream.write, stream.room, run.stop)
        try:
            with run:
                result = await program.run(call, sink, run.totals)
                last = encoder.finish(result)
        except ClientGone:
            raise
        except (Exception, Stop) as exc:
            if not request.began:
                raise
            last = encoder.fail(public_error(exc, call.id))
        await stream.end(last)


async def whole_run(request: Request, program: ServedProgram, call: Call, make: MakeEncoder[E]) -> tuple[E, Predicted]:
    """Run to the end and return the encoder, which has been told everything, with the result."""
    run = RegisteredRun(request.app.runs, call.id, request.key)
    request.totals = run.totals
    encoder = make(run.totals, run.stop)
    sink = FrontSink(encoder, run.totals, lambda piece: True, _no_wait, run.stop)
    with cancel_on_disconnect(request, run.stop), run:
        result = await program.run(call, sink, run.totals)
        encoder.finish(result)
    return encoder, result


async def _no_wait() -> None:
    return None
