"""``/v1/chat/completions`` and ``/v1/models``: a program is a model.

The last user message is the program's input: its text where the program takes one, else a JSON
object of the inputs. Earlier turns go to an input of type ``dspy.History`` where there is one, and
nowhere otherwise; system messages are the program's own business and are ignored. The answer is the
program's last ``str`` output.
"""

from __future__ import annotations

from typing import Any

from dspy_live.core.call import Call
from dspy_live.core.errors import InputError, Stop
from dspy_live.core.schema import Schema
from dspy_live.server.encoders.chat import ChatEncoder
from dspy_live.server.encoders.plain import PlainText, plain_value
from dspy_live.server.encoders.sinks import TextSink
from dspy_live.server.errors import BadRequest, ClientGone, public_error
from dspy_live.server.routes.inputs import new_call
from dspy_live.server.routes.predict import run_call
from dspy_live.server.routes.question import question_inputs
from dspy_live.server.runs.registry import RegisteredRun
from dspy_live.server.served import ServedProgram, find
from dspy_live.server.transport.event_stream import event_stream
from dspy_live.server.transport.http import JSON, Request, parse_object

_CONFIG = (
    "temperature",
    "max_tokens",
    "max_completion_tokens",
    "top_p",
    "seed",
    "presence_penalty",
    "frequency_penalty",
)


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
    program = find(request.app.programs, str(body.get("model", "")))
    stream = body.get("stream", False) is True
    config = {name: body[name] for name in _CONFIG if body.get(name) is not None}
    inputs = chat_inputs(program.schema, body.get("messages"))
    call = new_call(program, inputs, config, request.run_id, request.key, stream=stream)
    encoder = ChatEncoder(call.id, program.name)
    if stream:
        options = body.get("stream_options") or {}
        with_usage = isinstance(options, dict) and options.get("include_usage") is True
        await _stream(request, program, call, encoder, with_usage)
        return
    prediction, totals = await run_call(request, program, call)
    content = plain_value(program.schema.last_text_output, prediction.outputs)
    await request.reply(200, encoder.whole(content, totals), JSON)


async def _stream(request: Request, program: ServedProgram, call: Call, encoder: ChatEncoder, with_usage: bool) -> None:
    run = RegisteredRun(request.app.runs, call.id, request.key)
    text = PlainText(program.schema, run.stop, hold=program.hold_text)
    with event_stream(request, run.stop, encoder.opening()) as stream:
        sink = TextSink(text, run.totals, lambda piece: stream.write(encoder.content(piece)), stream.room)
        try:
            async with run:
                if rest := text.rest(await program.run(call, sink)):
                    run.totals.token()
                    stream.write(encoder.content(rest))
        except ClientGone:
            raise
        except (Exception, Stop) as exc:
            if not request.began:
                raise
            await stream.end(encoder.error(public_error(exc, call.id)))
            return
        await stream.end(encoder.closing(run.totals if with_usage else None))


def chat_inputs(schema: Schema, messages: Any) -> dict[str, Any]:
    """Return the inputs that a list of chat messages stands for; raise :class:`InputError`."""
    if not isinstance(messages, list) or not messages:
        raise InputError("'messages' must be a list with a message in it", field="messages", expected="array")
    turns = [(m.get("role"), _content(m.get("content"))) for m in messages if isinstance(m, dict)]
    talk = [(role, text) for role, text in turns if role in ("user", "assistant")]
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


def _content(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    if not parts or not all(isinstance(p, dict) and p.get("type") == "text" for p in parts):
        raise InputError("a message's 'content' must be text", field="messages", expected="string")
    return "".join(str(p.get("text", "")) for p in parts)
