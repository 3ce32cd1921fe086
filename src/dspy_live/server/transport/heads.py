"""The head of a request as bytes: how large it is, which protocol it asks for, and what answers one that is none."""

from __future__ import annotations

from dspy_live.server.encoders.json import dumps

Headers = list[tuple[bytes, bytes]]

MOST_HEAD = 65_536
"""Bytes of a request's line and headers: four times what browsers and balancers send at most."""


class HeadTooLarge(Exception):
    """The request's line and headers are over :data:`MOST_HEAD` bytes."""


class TooManyTogether(Exception):
    """More requests came in one piece than a connection keeps."""


def size_of(url: bytes, headers: Headers) -> int:
    """Return about how many bytes a head has."""
    return len(url) + sum([len(name) + len(value) + 4 for name, value in headers])


def wants_websocket(headers: Headers) -> bool:
    """True for the headers that ask for a WebSocket, of a request without a body, which nobody would read."""
    wishes = b",".join(value.lower() for name, value in headers if name == b"connection").split(b",")
    found = dict(headers)
    if b"transfer-encoding" in found or found.get(b"content-length", b"0").strip(b"0"):
        return False
    return b"upgrade" in map(bytes.strip, wishes) and found.get(b"upgrade", b"").lower() == b"websocket"


def without_upgrade(headers: Headers) -> Headers:
    """Return the headers without the wish for another protocol."""
    kept = []
    for name, value in headers:
        if name == b"connection":
            value = b", ".join(one for one in value.split(b",") if one.strip().lower() != b"upgrade")
        if name != b"upgrade":
            kept.append((name, value))
    return kept


def written(method: bytes, url: bytes, version: str, headers: Headers) -> bytes:
    """Return a head as it goes over the wire."""
    line = method + b" " + url + b" HTTP/" + version.encode()
    return b"\r\n".join([line, *(name + b": " + value for name, value in headers), b"", b""])


def refusal(status: str, kind: str, message: str) -> bytes:
    """Return the reply, in JSON, to what is no request that could be answered; it is the connection's last."""
    body = dumps({"error": {"type": kind, "message": message, "run_id": None}})
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return head.encode() + b"connection: close\r\n\r\n" + body
