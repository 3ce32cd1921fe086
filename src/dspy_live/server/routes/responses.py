"""``POST /v1/responses``: a run of a program as an OpenAI response.

A text, or the last message of ``input``, is the program's input; see ``routes/messages.py``. A program with an input
of type ``dspy.History`` keeps its conversations: ``previous_response_id`` and ``conversation`` go on with one.
"""

from __future__ import annotations

from collections.abc import Callable

from dspy_live.core.call import Call
from dspy_live.core.errors import StreamBroken
from dspy_live.server.encoders.json import dumps
from dspy_live.server.encoders.responses import ResponseHead, ResponsesEncoder
from dspy_live.server.errors import BadRequest
from dspy_live.server.routes.front_run import stream_run, whole_run
from dspy_live.server.routes.inputs import new_call, session_name
from dspy_live.server.routes.messages import conversation, history_input
from dspy_live.server.routes.openai import find_model, tell_ignored
from dspy_live.server.routes.response_items import response_turns
from dspy_live.server.routes.response_options import ResponseOptions, response_options
from dspy_live.server.runs.totals import RunTotals
from dspy_live.server.served import ServedProgram
from dspy_live.server.transport.http import JSON, Request

_PREFIX = "resp_"


async def responses(request: Request) -> None:
    """Answer with a run of the program that ``model`` names."""
    request.with_run = True
    body = await request.json()
    program = find_model(request, body.get("model"))
    options = response_options(body, program.schema)
    told = conversation(program.schema, response_turns(body.get("input"), body.get("instructions")), "input")
    trace = request.header(b"traceparent") or ""
    run_id, key = request.run_id, request.key
    call = new_call(program, told.inputs, options.config, run_id, key, stream=options.stream, trace=trace)
    call, kept = await _in_session(request, program, call, options)
    tell_ignored(request, told.ignored)
    settings = options.settings | {"store": kept} | ({"ignored": told.ignored} if told.ignored else {})
    head = ResponseHead(call.id, settings, options.fields, program.hold_text)

    def make(totals: RunTotals, stop: Callable[[StreamBroken], object]) -> ResponsesEncoder:
        return ResponsesEncoder(head, program.schema, totals, stop)

    if options.stream:
        await stream_run(request, program, call, make, ResponsesEncoder.opening)
        return
    encoder, _ = await whole_run(request, program, call, make)
    status = "incomplete" if encoder.truncated else "completed"
    await request.reply(200, dumps(encoder.response(status)), JSON)


async def _in_session(
    request: Request, program: ServedProgram, call: Call, options: ResponseOptions
) -> tuple[Call, bool]:
    """Return the call in the session that it goes on with, and whether its turn will be kept there."""
    sessions = request.app.sessions
    remembers = history_input(program.schema) is not None
    conversation_id = options.conversation or ("" if options.previous else request.header(b"x-session") or "")
    if conversation_id or options.previous:
        param = "previous_response_id" if options.previous else "conversation"
        if not remembers:
            raise BadRequest(
                "this program has no input of type dspy.History, so it can't go on with a conversation", param=param
            )
        if options.previous:
            turn = options.previous.removeprefix(_PREFIX)
            session = await sessions.session_of(request.key, turn)
            if session is None:
                raise BadRequest(f"the response {options.previous!r} is not kept here", param=param)
            return call.but(session=session, follows=turn, keep=options.store), options.store
        return call.but(session=session_name(conversation_id), keep=options.store), options.store
    if remembers and options.store:
        return call.but(session=call.id), True
    return call, False
