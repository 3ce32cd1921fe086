"""``/v1/chat/completions`` and ``/v1/models``: a program is a model.

The last user message is the program's input: its text where the program takes one, else a JSON
object of the inputs; images, files and sounds go to inputs of those types. Earlier turns go to an
input of type ``dspy.History`` where there is one, and nowhere otherwise. The answer is the program's
last ``str`` output, or with ``response_format`` its outputs as JSON. What a program can't do is refused
by its name; system messages that it has no input for are named in ``ignored``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dspy_live.core.call import Call
from dspy_live.core.errors import NotFound, Stop
from dspy_live.core.events import Predicted
from dspy_live.core.schema import Schema
from dspy_live.server.encoders.chat import ChatEncoder
from dspy_live.server.encoders.json import dumps
from dspy_live.server.encoders.plain import PlainText, plain_value
from dspy_live.server.encoders.sinks import TextSink
from dspy_live.server.errors import ClientGone, public_error
from dspy_live.server.routes.chat_messages import chat_turns
from dspy_live.server.routes.chat_options import ChatOptions, chat_options
from dspy_live.server.routes.choices import run_choices
from dspy_live.server.routes.inputs import in_session, new_call, session_name
from dspy_live.server.routes.messages import conversation
from dspy_live.server.runs.registry import RegisteredRun
from dspy_live.server.served import ServedProgram, find
from dspy_live.server.transport.disconnect import cancel_on_disconnect
from dspy_live.server.transport.event_stream import event_stream
from dspy_live.server.transport.http import JSON, Request


async def models(request: Request) -> None:
    """List the programs as models."""
    names = [name for name in request.app.programs if request.app.keys.may_run(request.key, name)]
    data = [{"id": name, "object": "model", "created": 0, "owned_by": "dspy-live"} for name in names]
    await request.reply_json({"object": "list", "data": data})


async def model(request: Request) -> None:
    """Show one program as a model."""
    name = find_model(request, request.params["program"]).name
    await request.reply_json({"id": name, "object": "model", "created": 0, "owned_by": "dspy-live"})


async def chat_completions(request: Request) -> None:
    """Answer a chat completion with a run of the program that ``model`` names."""
    request.with_run = True
    body = await request.json()
    program = find_model(request, body.get("model"))
    options = chat_options(body, program.schema)
    told = conversation(program.schema, chat_turns(body.get("messages")))
    trace = request.header(b"traceparent") or ""
    run_id, key = request.run_id, request.key
    call = new_call(program, told.inputs, options.config, run_id, key, stream=options.stream, trace=trace)
    session = body.get("session") or request.header(b"x-session")
    if session:
        call = in_session(call, program, session_name(session))
    tell_ignored(request, told.ignored)
    encoder = ChatEncoder(call.id, program.name, told.ignored)
    if options.stream:
        await _stream(request, program, call, encoder, options)
        return
    run = RegisteredRun(request.app.runs, call.id, request.key)
    request.totals = run.totals
    with cancel_on_disconnect(request, run.stop), run:
        choices = await run_choices(program, call, options.n, run.totals)
    contents = [(_content_of(program.schema, prediction, options), totals) for prediction, totals in choices]
    await request.reply(200, encoder.whole(contents, run.totals), JSON)


def tell_ignored(request: Request, ignored: Iterable[str]) -> None:
    """Name in ``X-Ignored`` what the program could not be told."""
    if places := ", ".join(ignored):
        request.reply_headers.append((b"x-ignored", places.encode()))


def find_model(request: Request, name: Any) -> ServedProgram:
    """Return the program that is the model ``name``; raise :class:`NotFound`."""
    try:
        may_run = request.app.keys.may_run
        shown = {one: program for one, program in request.app.programs.items() if may_run(request.key, one)}
        program = find(shown, str(name or ""))
    except NotFound as exc:
        exc.details["param"] = "model"
        raise
    request.program = program.name
    return program


def _content_of(schema: Schema, prediction: Predicted, options: ChatOptions) -> str:
    outputs = prediction.outputs
    if options.fields is None:
        return plain_value(schema.last_text_output, outputs)
    if not schema.outputs:  # not known beforehand
        return dumps(outputs).decode()
    return dumps({name: outputs[name] for name in options.fields if name in outputs}).decode()


async def _stream(
    request: Request, program: ServedProgram, call: Call, encoder: ChatEncoder, options: ChatOptions
) -> None:
    run = RegisteredRun(request.app.runs, call.id, request.key)
    request.totals = run.totals
    hold = program.hold_text or options.fields is not None
    text = PlainText(program.schema, run.stop, hold=hold)
    with event_stream(request, run.stop, encoder.opening()) as stream:
        sink = TextSink(
            text,
            run.totals,
            lambda piece: stream.write(encoder.content(piece)),
            stream.room,
            lambda: encoder.loan(stream.exchange, run.totals),
        )
        try:
            with run:
                result = await program.run(call, sink, run.totals)
                rest = text.rest(result) if options.fields is None else _content_of(program.schema, result, options)
                if rest:
                    run.totals.token()
                    stream.write(encoder.content(rest))
        except ClientGone:
            raise
        except (Exception, Stop) as exc:
            if not request.began:
                raise
            await stream.end(encoder.error(public_error(exc, call.id)))
            return
        await stream.end(encoder.closing(run.totals, with_usage=options.with_usage))
