"""JSON-RPC: what a message is, and MCP's errors with the HTTP status that belongs to each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from dspy_live.core.errors import LiveError
from dspy_live.server.errors import error_object, error_status

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
HEADER_MISMATCH = -32020
UNSUPPORTED_VERSION = -32022


class RpcError(Exception):
    """A request that is answered by a JSON-RPC error.

    Args:
        code: JSON-RPC's or MCP's.
        message: for people.
        data: for programs.
        status: the HTTP status for a client of 2026; those of 2025 get 200 where the message could be read.
    """

    def __init__(self, code: int, message: str, data: Any = None, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.message, self.data, self.status = code, message, data, status


@dataclass(frozen=True, slots=True)
class Message:
    """A request, or a notification, which has no id."""

    method: str
    params: dict[str, Any]
    id: str | int | None = None

    @property
    def meta(self) -> dict[str, Any]:
        """What stands beside the parameters; empty where nothing does."""
        found = self.params.get("_meta")
        return found if isinstance(found, dict) else {}


def read(body: bytes) -> Message | None:
    """Read a message; ``None`` for a client's answer, which nobody waits for. Raises :class:`RpcError`."""
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise RpcError(PARSE_ERROR, f"the body is not valid JSON: {exc.msg}") from None
    if not isinstance(given, dict) or given.get("jsonrpc") != "2.0":
        raise RpcError(INVALID_REQUEST, "the body must be one JSON-RPC 2.0 message; several at once are not taken")
    method = given.get("method")
    if method is None and ("result" in given or "error" in given):
        return None
    request_id, params = given.get("id"), given.get("params")
    fits = request_id is None or (isinstance(request_id, (str, int)) and not isinstance(request_id, bool))
    if not isinstance(method, str) or not fits or ("id" in given and request_id is None):
        raise RpcError(INVALID_REQUEST, "a request has a method and an id, which is a string or a whole number")
    if not isinstance(params, (dict, type(None))):
        raise RpcError(INVALID_PARAMS, "'params' must be an object")
    return Message(method, params or {}, request_id)


def rpc_error_object(error: LiveError, run_id: str | None) -> dict[str, Any]:
    """Return the JSON-RPC body of a public error that came before a message was read."""
    code = INTERNAL_ERROR if error_status(error) >= 500 else INVALID_REQUEST
    told = error_object(error, run_id)["error"]
    return error_reply(None, RpcError(code, told["message"], told))


def error_reply(request_id: Any, error: RpcError) -> dict[str, Any]:
    """Return a JSON-RPC error."""
    told = {"code": error.code, "message": error.message} | ({} if error.data is None else {"data": error.data})
    return {"jsonrpc": "2.0", "id": request_id, "error": told}
