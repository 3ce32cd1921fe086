"""``POST /ui/chat``: a run as the answer in a chat of the Vercel AI SDK (``useChat``, ``DefaultChatTransport``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dspy_live.core.call import Call
from dspy_live.core.errors import InputError, StreamBroken
from dspy_live.server.encoders.ui_stream import UiStreamEncoder
from dspy_live.server.errors import BadRequest, Unsupported
from dspy_live.server.routes.chat_messages import needed
from dspy_live.server.routes.front_run import stream_run
from dspy_live.server.routes.inputs import in_session, new_call, session_name
from dspy_live.server.routes.messages import Attachment, Role, Turn, conversation
from dspy_live.server.routes.openai import tell_ignored
from dspy_live.server.runs.totals import RunTotals
from dspy_live.server.served import ServedProgram
from dspy_live.server.transport.http import Request

VERSION: tuple[bytes, bytes] = (b"x-vercel-ai-ui-message-stream", b"v1")
_ROLES: dict[Any, Role] = {"user": "user", "assistant": "assistant", "system": "system"}


async def ui_chat(request: Request) -> None:
    """Answer the last message of a chat.

    A body with ``messages`` brings its own history. One with ``message`` alone goes on with the session whose name is
    the chat's ``id``.
    """
    request.with_run = True
    program = request.app.program(request)
    body = await request.json()
    told = conversation(program.schema, _turns(body))
    call = _call(request, program, body, told.inputs)
    tell_ignored(request, told.ignored)
    request.reply_headers.append(VERSION)
    metadata: dict[str, Any] = {"ignored": told.ignored} if told.ignored else {}

    def make(totals: RunTotals, stop: Callable[[StreamBroken], object]) -> UiStreamEncoder:
        return UiStreamEncoder(call.id, program.schema, totals, metadata, hold=program.hold_text)

    await stream_run(request, program, call, make, UiStreamEncoder.opening)


async def resume(request: Request) -> None:
    """Say that there is nothing to resume: a chat's answer ends with its reply."""
    request.app.program(request)
    await request.reply_empty(204)


def _turns(body: dict[str, Any]) -> list[Turn]:
    if "message" in body and "messages" not in body:
        return [_turn(body["message"], "message")]
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InputError("'messages' must be a list with a message in it", field="messages", expected="array")
    return [_turn(message, f"messages[{i}]") for i, message in enumerate(messages)]


def _call(request: Request, program: ServedProgram, body: dict[str, Any], inputs: dict[str, Any]) -> Call:
    config = body.get("config") or {}
    again = body.get("trigger") == "regenerate-message"
    if again and isinstance(config, dict):
        config.setdefault("rollout_id", request.run_id)  # else the cache would give the same answer
    trace = request.header(b"traceparent") or ""
    call = new_call(program, inputs, config, request.run_id, request.key, stream=True, trace=trace)
    session = body.get("session") or request.header(b"x-session")
    if session is None and "messages" not in body:
        session = body.get("id")
    if session is None:
        return call
    if again:
        raise Unsupported("a session's answer can't be made anew; send the messages", param="trigger")
    return in_session(call, program, session_name(session))


def _turn(message: Any, where: str) -> Turn:
    role = _ROLES.get(str(message.get("role"))) if isinstance(message, dict) else None
    parts = message.get("parts") if isinstance(message, dict) else None
    if role is None or not isinstance(parts, list):
        raise BadRequest(f"{where} must be an object with a role ({', '.join(_ROLES)}) and parts", param=where)
    texts: list[str] = []
    attachments: list[Attachment] = []
    for i, part in enumerate(parts):
        place = f"{where}.parts[{i}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text":
            texts.append(needed(part, "text", place))
        elif kind == "file" and role == "user":
            attachments.append(_attachment(part, place))
    return Turn(role, "".join(texts), tuple(attachments), where)


def _attachment(part: dict[str, Any], where: str) -> Attachment:
    kind, url = needed(part, "mediaType", where), needed(part, "url", where)
    return media_attachment(kind, url, part.get("filename"), where)


def media_attachment(kind: str, url: str, filename: Any, where: str) -> Attachment:
    """Return an image, a sound or a file from its media type and its address, which for the last two has the data."""
    if kind.startswith("image/"):
        return Attachment("Image", {"url": url}, where)
    head, _, data = url.partition(",")
    if not head.startswith("data:") or not head.endswith(";base64"):
        raise Unsupported(f"{where}: this server fetches nothing; send the data, as a data: URL in base64", param=where)
    if kind.startswith("audio/"):
        return Attachment("Audio", {"data": data, "audio_format": kind.removeprefix("audio/")}, where)
    return Attachment("File", {"file_data": url} | ({"filename": filename} if filename else {}), where)
