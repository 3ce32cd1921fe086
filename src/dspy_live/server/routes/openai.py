"""``/v1/chat/completions`` and ``/v1/models``: a program is a model.

The last user message is the program's input: its text where the program takes one, else a JSON
object of the inputs. Earlier turns go to an input of type ``dspy.History`` where there is one, and
nowhere otherwise. The answer is the program's last ``str`` output, or with ``response_format`` its
outputs as JSON. What a program can't do is refused by its name, system messages too.
"""

from __future__ import annotations

from typing import Any

from dspy_live.core.call import Call
from dspy_live.core.errors import InputError, NotFound, Stop
from dspy_live.core.events import Predicted
from dspy_live.core.schema import Schema
from dspy_live.server.encoders.chat import ChatEncoder
from dspy_live.server.encoders.json import dumps
from dspy_live.server.encoders.plain import PlainText, plain_value
from dspy_live.server.encoders.sinks import TextSink
from dspy_live.server.errors import BadRequest, ClientGone, Unsupported, public_error
from dspy_live.server.routes.chat_options import ChatOptions, chat_options
from dspy_live.server.routes.choices import run_choices
from dspy_live.server.routes.inputs import new_call
from dspy_live.server.routes.question import question_inputs
from dspy_live.server.runs.registry import RegisteredRun
from dspy_live.server.served import ServedProgram, find
from dspy_live.server.transport.disconnect import cancel_on_disconnect
from dspy_live.server.transport.event_stream import event_stream
from dspy_live.server.transport.http import JSON, Request, parse_object

_ROLES = ("user", "assistant", "system", "developer", "tool", "function")


async def models(request: Request) -> None:
    """List the programs as models."""
    data = [{"id": name, "object": "model", "created": 0, "owned_by": "dspy-live"} for name in request.app.programs]
    await request.reply_json({"object": "list", "data": data})


async def model(request: Request) -> None:
    """Show one program as a model."""
    name = find(request.app.programs, request.params["program"]).name
    await request.reply_json({"id": name, "object": "model", "created": 0, "owned_by": "dspy-live"})


async def chat_completions(request: Request) -> None:
    """Answer a chat completion with a run of the program that ``model`` names."""
    request.with_run = True
    body = await request.json()
    program = find_model(request, body.get("model"))
    options = chat_options(body, program.schema)
    inputs = chat_inputs(program.schema, body.get("messages"))
    call = new_call(program, inputs, options.config, request.run_id, request.key, stream=options.stream)
    encoder = ChatEncoder(call.id, program.name)
    if options.stream:
        await _stream(request, program, call, encoder, options)
        return
    run = RegisteredRun(request.app.runs, call.id, request.key)
    request.totals = run.totals
    with cancel_on_disconnect(request.receive, run.stop):
        async with run:
            choices = await run_choices(program, call, options.n, run.totals)
    contents = [(_content_of(program.schema, prediction, options), totals) for prediction, totals in choices]
    await request.reply(200, encoder.whole(contents, run.totals), JSON)


def find_model(request: Request, name: Any) -> ServedProgram:
    """Return the program that is the model ``name``; raise :class:`NotFound`."""
    try:
        program = find(request.app.programs, str(name or ""))
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
        sink = TextSink(text, run.totals, lambda piece: stream.write(encoder.content(piece)), stream.room)
        try:
            async with run:
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


def chat_inputs(schema: Schema, messages: Any) -> dict[str, Any]:
    """Return the inputs that a list of chat messages stands for; raise :class:`InputError`."""
    if not isinstance(messages, list) or not messages:
        raise InputError("'messages' must be a list with a message in it", field="messages", expected="array")
    talk = _turns(messages)
    if not talk or talk[-1][0] != "user":
        raise InputError("the last message must be the user's", field="messages", expected="a user message last")
    question = talk[-1][1]
    history = next((f.name for f in schema.inputs if f.type.rpartition(".")[2] == "History"), None)
    rest = Schema(schema.name, tuple(f for f in schema.inputs if f.name != history), schema.outputs, open=schema.open)
    inputs = _question(rest, question)
    if history is not None and history not in inputs:
        answer = schema.last_text_output or "answer"
        inputs[history] = {"messages": _pairs(rest, talk[:-1], answer)}
    return inputs


def _question(schema: Schema, text: str) -> dict[str, Any]:
    try:
        return question_inputs(schema, text)
    except InputError as unclear:
        try:
            return parse_object(text, "the last user message")
        except BadRequest:
            raise unclear from None


def _pairs(schema: Schema, talk: list[tuple[Any, str]], answer: str) -> list[dict[str, Any]]:
    pairs: list[dict[str, Any]] = []
    for role, text in talk:
        if role == "user":
            pairs.append(_question(schema, text))
        elif pairs:
            pairs[-1][answer] = text
    return pairs


def _turns(messages: list[Any]) -> list[tuple[str, str]]:
    """Return role and text of the messages that are said by user and assistant; tools' are no part of a history."""
    turns = []
    for i, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            raise BadRequest(
                f"messages[{i}] must be an object with a role: {', '.join(_ROLES)}", param=f"messages[{i}].role"
            )
        role, content = message["role"], message.get("content")
        if role in ("tool", "function"):
            turns.append((role, ""))
        elif content is None and role == "assistant":
            continue  # it called tools
        elif role in ("system", "developer"):
            if _content(content).strip():
                raise Unsupported(
                    f"messages[{i}] is a {role} message: a program has instructions of its own and takes no others; "
                    "leave it out, or put what it says into the user's message",
                    param=f"messages[{i}].role",
                )
        else:
            turns.append((role, _content(content)))
    if turns and turns[-1][0] in ("tool", "function"):
        return turns
    return [turn for turn in turns if turn[0] in ("user", "assistant")]


def _content(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    if not parts or not all(isinstance(p, dict) and p.get("type") == "text" for p in parts):
        raise InputError("a message's 'content' must be text", field="messages", expected="string")
    return "".join(str(p.get("text", "")) for p in parts)
