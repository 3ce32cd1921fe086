"""``POST /agui``: a run as an agent's, for AG-UI's clients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dspy_live.core.errors import InputError, StreamBroken
from dspy_live.core.schema import Schema
from dspy_live.server.encoders.agui import AgentInput, AguiEncoder
from dspy_live.server.errors import BadRequest, Unsupported
from dspy_live.server.routes.chat_messages import Part, needed, parts_of
from dspy_live.server.routes.front_run import stream_run
from dspy_live.server.routes.inputs import in_session, new_call, session_name
from dspy_live.server.routes.messages import Attachment, Role, Turn, conversation, history_input
from dspy_live.server.routes.openai import tell_ignored
from dspy_live.server.routes.ui_chat import media_attachment
from dspy_live.server.runs.totals import RunTotals
from dspy_live.server.transport.http import Request

_ROLES: dict[Any, Role] = {
    "user": "user",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
}
_UNSAID = ("reasoning", "activity")


async def agui(request: Request) -> None:
    """Answer the last message of a ``RunAgentInput``.

    ``state`` and ``context`` go to inputs of these names where the program has them.
    """
    request.with_run = True
    program = request.app.program(request)
    body = await request.json()
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InputError("'messages' must be a list with a message in it", field="messages", expected="array")
    beside, unplaced = _beside(program.schema, body)
    turns = [turn for i, message in enumerate(messages) if (turn := _turn(message, f"messages[{i}]")) is not None]
    told = conversation(_without(program.schema, beside), turns)
    ignored = [*told.ignored, *unplaced]
    trace = request.header(b"traceparent") or ""
    inputs = told.inputs | beside
    call = new_call(program, inputs, None, request.run_id, request.key, stream=True, trace=trace)
    if (session := request.header(b"x-session")) is not None:
        call = in_session(call, program, session_name(session))
    tell_ignored(request, ignored)
    ids = [body.get(name) for name in ("threadId", "runId")]
    thread, run = (one if isinstance(one, str) and one else call.id for one in ids)
    given = AgentInput(thread, run, messages, body.get("state"), ignored)

    def make(totals: RunTotals, stop: Callable[[StreamBroken], object]) -> AguiEncoder:
        return AguiEncoder(given, call.id, program.schema, totals, hold=program.hold_text)

    await stream_run(request, program, call, make, lambda encoder: b"")


def _beside(schema: Schema, body: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the inputs that stand beside the messages, and the names of those that no input takes."""
    inputs: dict[str, Any] = {}
    unplaced = ["tools"] if body.get("tools") else []
    fields = {f.name: f for f in schema.inputs if f.name != history_input(schema)}
    if len(fields) < 2:  # the only input is the question's
        fields = {}
    if state := body.get("state"):
        if "state" in fields:
            inputs["state"] = state
        else:
            unplaced.append("state")
    if context := body.get("context"):
        if "context" in fields:
            inputs["context"] = _context(context) if fields["context"].is_text else context
        else:
            unplaced.append("context")
    return inputs, unplaced


def _context(context: Any) -> str:
    if not isinstance(context, list) or not all(isinstance(one, dict) for one in context):
        raise InputError("'context' must be a list of objects", field="context", expected="array")
    return "\n\n".join(f"{one.get('description', '')}:\n{one.get('value', '')}" for one in context)


def _without(schema: Schema, names: dict[str, Any]) -> Schema:
    inputs = tuple(f for f in schema.inputs if f.name not in names)
    return Schema(schema.name, inputs, schema.outputs, open=schema.open)


def _turn(message: Any, where: str) -> Turn | None:
    given = message.get("role") if isinstance(message, dict) else None
    if given in _UNSAID:
        return None
    role = _ROLES.get(str(given))
    if role is None:
        raise BadRequest(f"{where} must be an object with a role: {', '.join(_ROLES)}", param=f"{where}.role")
    if role == "tool":
        return Turn("tool", "", where=where)
    content = message.get("content")
    if content is None and role == "assistant":
        return None  # it called tools
    if content == [] and role == "assistant":
        return None
    text, attachments = parts_of(content, where, _PARTS, user=role == "user")
    return Turn(role, text, attachments, where)


def _text(part: dict[str, Any], where: str) -> str:
    return needed(part, "text", where)


def _media(kind: str) -> Part:
    def read(part: dict[str, Any], where: str) -> Attachment:
        source = part.get("source")
        if not isinstance(source, dict) or source.get("type") not in ("url", "data"):
            raise Unsupported(f"{where}.source must be of the type url or data", param=f"{where}.source")
        value, mime = needed(source, "value", f"{where}.source"), source.get("mimeType") or f"{kind}/*"
        url = value if source["type"] == "url" else f"data:{mime};base64,{value}"
        named = part.get("metadata")
        filename = named.get("filename") if isinstance(named, dict) else None
        return media_attachment(mime, url, filename, where)

    return read


_PARTS: dict[str, Part] = {
    "text": _text,
    "image": _media("image"),
    "audio": _media("audio"),
    "document": _media("application"),
}
