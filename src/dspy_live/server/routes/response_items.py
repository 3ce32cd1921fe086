"""The input of a response as turns: a text, or a list of items (https://www.openresponses.org/specification)."""

from __future__ import annotations

from typing import Any

from dspy_live.core.errors import InputError
from dspy_live.server.errors import BadRequest, Unsupported
from dspy_live.server.routes.chat_messages import Part, audio_attachment, file_attachment, needed, parts_of
from dspy_live.server.routes.messages import Attachment, Role, Turn

_ROLES: dict[Any, Role] = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
_TOOL_OUTPUTS = ("function_call_output", "custom_tool_call_output")


def response_turns(given: Any, instructions: Any) -> list[Turn]:
    """Return the turns of ``input`` and ``instructions``. Raises :class:`InputError` and :class:`BadRequest`.

    Items that nobody says, such as calls of tools and reasoning, are read over.
    """
    turns = []
    if instructions is not None:
        if not isinstance(instructions, str):
            raise InputError("'instructions' must be a string", field="instructions", expected="string")
        turns.append(Turn("system", instructions, where="instructions"))
    if isinstance(given, str):
        return [*turns, Turn("user", given, where="input")]
    if not isinstance(given, list) or not given:
        raise InputError("'input' must be text or a list with an item in it", field="input", expected="string")
    return [*turns, *(turn for i, item in enumerate(given) if (turn := _turn(item, f"input[{i}]")) is not None)]


def _turn(item: Any, where: str) -> Turn | None:
    if not isinstance(item, dict):
        raise BadRequest(f"{where} must be an object", param=where)
    kind = item.get("type", "message")
    if kind == "item_reference":
        raise Unsupported(
            f"{where}: items can't be named by their ids here; send them, or previous_response_id", param=where
        )
    if kind in _TOOL_OUTPUTS:
        return Turn("tool", "", where=where)
    if kind != "message":
        return None
    role = _ROLES.get(str(item.get("role")))
    if role is None:
        raise BadRequest(f"{where}.role must be one of {', '.join(_ROLES)}", param=f"{where}.role")
    text, attachments = parts_of(item.get("content"), where, _PARTS, user=role == "user")
    return Turn(role, text, attachments, where)


def _text(part: dict[str, Any], where: str) -> str:
    return needed(part, "text", where)


def _refusal(part: dict[str, Any], where: str) -> str:
    return needed(part, "refusal", where)


def _image(part: dict[str, Any], where: str) -> Attachment:
    if part.get("image_url") is None and part.get("file_id") is not None:
        raise Unsupported(f"{where}.file_id: this server keeps no images; send image_url", param=f"{where}.file_id")
    return Attachment("Image", {"url": needed(part, "image_url", where)}, where)


def _file(part: dict[str, Any], where: str) -> Attachment:
    if part.get("file_url") is not None:
        raise Unsupported(f"{where}.file_url: this server fetches no files; send file_data", param=f"{where}.file_url")
    return file_attachment(part, where)


def _audio(part: dict[str, Any], where: str) -> Attachment:
    given = part.get("input_audio")
    if not isinstance(given, dict):
        raise InputError(f"{where}.input_audio must be an object", field="input", expected="object")
    return audio_attachment(given, where)


_PARTS: dict[str, Part] = {
    "input_text": _text,
    "output_text": _text,
    "text": _text,
    "refusal": _refusal,
    "input_image": _image,
    "input_file": _file,
    "input_audio": _audio,
}
