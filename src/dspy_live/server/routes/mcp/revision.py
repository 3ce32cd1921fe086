"""Which revision of MCP a request speaks, and whether its headers say what its body says."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from dspy_live.server.routes.mcp.rpc import HEADER_MISMATCH, INVALID_PARAMS, UNSUPPORTED_VERSION, Message, RpcError
from dspy_live.server.transport.http import Request

MODERN = ("2026-07-28",)
"""Revisions without a handshake: every request says what its client speaks."""
HANDSHAKE = ("2025-11-25", "2025-06-18", "2025-03-26")
"""Revisions that begin with ``initialize``."""

_META = "io.modelcontextprotocol/"
VERSION = _META + "protocolVersion"
CAPABILITIES = _META + "clientCapabilities"
SERVER_INFO = _META + "serverInfo"

_NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
_ENCODED = re.compile(r"=\?base64\?(.*)\?=")


def is_modern(request: Request, message: Message) -> bool:
    """Return whether a request is one of 2026 or later. Raises :class:`RpcError` for one that contradicts itself."""
    header = request.header(b"mcp-protocol-version")
    if VERSION not in message.meta and (header is None or header in HANDSHAKE):
        return False
    if message.id is None:
        _check_version(header)
        return True
    missing = [name for name in (VERSION, CAPABILITIES) if name not in message.meta]
    if missing:
        raise RpcError(INVALID_PARAMS, f"params._meta lacks {' and '.join(missing)}")
    _check_headers(request, message, header)
    _check_version(message.meta[VERSION])
    return True


def _check_headers(request: Request, message: Message, version: str | None) -> None:
    wanted: dict[str, tuple[str | None, Any]] = {
        "MCP-Protocol-Version": (version, message.meta[VERSION]),
        "Mcp-Method": (request.header(b"mcp-method"), message.method),
    }
    if (named := _NAMED.get(message.method)) is not None and message.params.get(named) is not None:
        wanted["Mcp-Name"] = (_decoded(request.header(b"mcp-name")), message.params[named])
    names = [key for key, _ in request.scope["headers"]]
    for name, (given, told) in wanted.items():
        if given != told:
            raise RpcError(HEADER_MISMATCH, f"the header {name} is not what the body says: {told!r}")
        if names.count(name.lower().encode()) > 1:
            raise RpcError(HEADER_MISMATCH, f"the header {name} stands there more than once")


def _check_version(version: Any) -> None:
    if version not in MODERN:
        supported = {"supported": [*MODERN, *HANDSHAKE], "requested": str(version)}
        raise RpcError(UNSUPPORTED_VERSION, f"this server does not speak the revision {version!r}", supported)


def _decoded(value: str | None) -> str | None:
    """Return a header's value, which is in base64 where it is no plain ASCII."""
    match = _ENCODED.fullmatch(value) if value is not None else None
    if match is None:
        return value
    try:
        found = base64.b64decode(match[1], validate=True)
        return found.decode() if base64.b64encode(found).decode() == match[1] else None
    except (binascii.Error, UnicodeDecodeError):
        return None
