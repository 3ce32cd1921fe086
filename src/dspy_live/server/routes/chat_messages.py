"""The messages of a chat completion as turns (https://platform.openai.com/docs/api-reference/chat/create)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dspy_live.core.errors import InputError
from dspy_live.server.errors import BadRequest, Unsupported
from dspy_live.server.routes.messages import Attachment, Role, Turn

_ROLES: dict[Any, Role] = {
    "user": "user",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "function": "tool",
}


def chat_turns(messages: Any) -> list[Turn]:
    """Return the turns of a list of chat messages. Raises :class:`InputError` and :class:`BadRequest`.

    An assistant's message that only called tools says nothing, and neither does a tool's: both are read over.
    """
    if not isinstance(messages, list) or not messages:
        raise InputError("'messages' must be a list with a message in it", field="messages", expected="array")
    return [turn for i, message in enumerate(messages) if (turn := _turn(message, f"messages[{i}]")) is not None]


def _turn(message: Any, where: str) -> Turn | None:
    role = _ROLES.get(str(message.get("role"))) if isinstance(message, dict) else None
    if role is None:
        raise BadRequest(f"{where} must be an object with a role: {', '.join(_ROLES)}", param=f"{where}.role")
    content = message.get("content")
    if role == "tool":
        return Turn("tool", "", where=where)
    if content is None and role == "assistant":
        return None  # it called tools
    text, attachments = parts_of(content, where, _PARTS, user=role == "user")
    return Turn(role, text, attachments, where)


Part = Callable[[dict[str, Any], str], "str | Attachment"]


def parts_of(content: Any, where: str, kinds: dict[str, Part], *, user: bool) -> tuple[str, tuple[Attachment, ...]]:
    """Return the text and the attachments of a message's content: a text, or a list of parts of these ``kinds``."""
    if isinstance(content, str):
        return content, ()
    if not isinstance(content, list) or not content:
        raise InputError(
            f"{where}: a message's 'content' must be text or a list of parts", field="messages", expected="string"
        )
    texts: list[str] = []
    attachments: list[Attachment] = []
    for i, part in enumerate(content):
        place = f"{where}.content[{i}]"
        kind = part.get("type") if isinstance(part, dict) else None
        read = kinds.get(str(kind))
        if read is None:
            raise InputError(
                f"{place} must be a part of the type {', '.join(kinds)}; got {kind!r}",
                field="messages",
                expected=list(kinds),
            )
        made = read(part, place)
        if isinstance(made, str):
            texts.append(made)
        elif user:
            attachments.append(made)
        else:
            raise Unsupported(f"{place}: only a user's message may have a part of the type {kind}", param=place)
    return "".join(texts), tuple(attachments)


def needed(part: dict[str, Any], name: str, where: str) -> str:
    """Return a text that a part must have."""
    value = part.get(name)
    if not isinstance(value, str):
        raise InputError(f"{where}.{name} must be a string", field="messages", expected="string")
    return value


def _inner(part: dict[str, Any], name: str, where: str) -> dict[str, Any]:
    value = part.get(name)
    if not isinstance(value, dict):
        raise InputError(f"{where}.{name} must be an object", field="messages", expected="object")
    return value


def _text(part: dict[str, Any], where: str) -> str:
    return needed(part, "text", where)


def _refusal(part: dict[str, Any], where: str) -> str:
    return needed(part, "refusal", where)


def _image(part: dict[str, Any], where: str) -> Attachment:
    url = needed(_inner(part, "image_url", where), "url", f"{where}.image_url")
    return Attachment("Image", {"url": url}, where)


def _file(part: dict[str, Any], where: str) -> Attachment:
    return file_attachment(_inner(part, "file", where), where)


def file_attachment(given: dict[str, Any], where: str) -> Attachment:
    """Return a file from ``file_data``, ``file_id`` and ``filename``."""
    value = {name: given[name] for name in ("file_data", "file_id", "filename") if given.get(name) is not None}
    if "file_data" not in value and "file_id" not in value:
        raise InputError(f"{where} must have file_data or file_id", field="messages", expected="object")
    return Attachment("File", value, where)


def _audio(part: dict[str, Any], where: str) -> Attachment:
    return audio_attachment(_inner(part, "input_audio", where), where)


def audio_attachment(given: dict[str, Any], where: str) -> Attachment:
    """Return a recording from ``data`` and ``format``."""
    data = needed(given, "data", f"{where}.input_audio")
    return Attachment("Audio", {"data": data, "audio_format": needed(given, "format", f"{where}.input_audio")}, where)


_PARTS: dict[str, Part] = {
    "text": _text,
    "refusal": _refusal,
    "image_url": _image,
    "file": _file,
    "input_audio": _audio,
}
