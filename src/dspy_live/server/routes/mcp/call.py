"""``tools/call``: one run of a program, with progress while it goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dspy_live.core.call import Call
from dspy_live.core.errors import Stop
from dspy_live.core.sink import Sink
from dspy_live.server.encoders.front import FrontSink
from dspy_live.server.encoders.json import dumps
from dspy_live.server.encoders.mcp import PREFIX, McpEncoder, sse
from dspy_live.server.encoders.sinks import UsageSink
from dspy_live.server.errors import ClientGone, public_error
from dspy_live.server.routes.inputs import LONGEST_SESSION, begin_history, in_session, new_call, session_name
from dspy_live.server.routes.mcp.rpc import INVALID_PARAMS, Message, RpcError
from dspy_live.server.routes.mcp.tools import SESSION
from dspy_live.server.routes.messages import history_input
from dspy_live.server.runs.registry import RegisteredRun
from dspy_live.server.served import ServedProgram
from dspy_live.server.transport.disconnect import cancel_on_disconnect
from dspy_live.server.transport.event_stream import EventStream, event_stream
from dspy_live.server.transport.http import JSON, Request


async def call_tool(request: Request, message: Message, meta: dict[str, Any], *, modern: bool) -> None:
    """Run the program that the tool is, and reply with its outputs. Raises :class:`RpcError` for an unknown tool.

    The reply is an event stream once there is progress to tell or silence to fill, else one JSON object. The client's
    leaving cancels the run, and so does ``notifications/cancelled`` of a client of 2025.
    """
    request.with_run = True
    program = request.app.programs.get(str(message.params.get("name")))
    if program is None or not request.app.keys.may_run(request.key, program.name):
        raise RpcError(INVALID_PARAMS, f"there is no tool {message.params.get('name')!r}; tools/list has all")
    request.program = program.name
    arguments = message.params.get("arguments")
    if not isinstance(arguments, (dict, type(None))):
        raise RpcError(INVALID_PARAMS, "'arguments' must be an object")
    accept = request.header(b"accept") or ""
    streams = "text/event-stream" in accept or "*/*" in accept
    token = message.meta.get("progressToken") if streams else None
    run = RegisteredRun(request.app.runs, request.run_id, request.key)
    request.totals = run.totals
    encoder = McpEncoder(message.id, run.id, token, run.totals, meta, modern=modern)
    mcp_session = request.header(b"mcp-session-id") or ""
    with (
        _event_stream(request, run, streams) as stream,
        request.app.mcp_calls.of(request.key, mcp_session, message.id, run),
    ):
        sink = UsageSink(run.totals) if stream is None else _sink(encoder, run, stream)
        try:
            call = _call(request, program, message, arguments or {}, mcp_session, stream=token is not None)
            with run:
                reply = encoder.result(await program.run(call, sink, run.totals))
        except ClientGone:
            raise
        except (Exception, Stop) as exc:
            reply = encoder.failure(public_error(exc, run.id))
        if stream is not None and request.began:
            await stream.end(sse(reply))
            return
    await request.reply(200, dumps(reply), JSON)


@contextmanager
def _event_stream(request: Request, run: RegisteredRun, streams: bool) -> Iterator[EventStream | None]:
    """Reply with an event stream to a client that takes one; for another one, watch for its leaving only."""
    if streams:
        with event_stream(request, run.stop) as stream:
            yield stream
    else:
        with cancel_on_disconnect(request, run.stop):
            yield None


def _sink(encoder: McpEncoder, run: RegisteredRun, stream: EventStream) -> Sink:
    return FrontSink(encoder, run.totals, stream.write, stream.room, run.stop)


def _call(
    request: Request,
    program: ServedProgram,
    message: Message,
    arguments: dict[str, Any],
    mcp_session: str,
    *,
    stream: bool,
) -> Call:
    """Return the checked call; one of a program with a history is in the session that is named, or in MCP's own."""
    inputs = dict(arguments)
    names = {f.name for f in program.schema.inputs}
    session: Any = message.meta.get(f"{PREFIX}session") or request.header(b"x-session")
    if SESSION in inputs and SESSION not in names:
        session = inputs.pop(SESSION)
    if history_input(program.schema) is not None:
        begin_history(program, inputs)
        session = session or (f"mcp-{mcp_session}-{program.name}"[:LONGEST_SESSION] if mcp_session else None)
    trace = request.header(b"traceparent") or ""
    call = new_call(program, inputs, None, request.run_id, request.key, stream=stream, trace=trace)
    return call if session is None else in_session(call, program, session_name(session))
