"""The server's errors, as the same classes that a program in the process would raise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from dspy_live.core import errors
from dspy_live.core.errors import LiveError
from dspy_live.runtime.http.transport import ConnectFailed, TransportError
from dspy_live.runtime.http.transport import IdleTimeout as Silent


class RemoteError(LiveError):
    """An error of the server's for which this version has no class. ``details`` has ``type`` and ``status``."""

    code = "remote"
    status = 502


class Unreachable(LiveError):
    """No connection to the server; nothing was run."""

    code = "unreachable"
    status = 502


class ConnectionLost(LiveError):
    """The connection ended in the middle of a reply. A run that can't be resumed has been cancelled with it."""

    code = "connection_lost"
    status = 502


def _all(kind: type[LiveError]) -> Iterator[type[LiveError]]:
    for sub in kind.__subclasses__():
        yield sub
        yield from _all(sub)


_BY_CODE: dict[str, type[LiveError]] = {
    kind.code: kind for kind in _all(LiveError) if kind.__module__ == errors.__name__
}


def error_of(body: Any, status: int = 0) -> LiveError:
    """Return the exception for an ``{"error": …}`` object; ``details`` has what else the server said."""
    said = body.get("error") if isinstance(body, dict) else None
    if not isinstance(said, dict):
        return RemoteError(f"the server answered {status} with no error object", type="", status=status)
    code, message = str(said.get("type", "")), str(said.get("message", ""))
    details = {k: v for k, v in said.items() if k not in ("type", "message", "retry_after")}
    retry_after = said.get("retry_after")
    wait = float(retry_after) if isinstance(retry_after, (int, float)) else None
    kind = _BY_CODE.get(code)
    if kind is None:
        return RemoteError(
            message or f"the server answered {status}", retry_after=wait, type=code, status=status, **details
        )
    return kind(message, retry_after=wait, **details)


def error_of_reply(status: int, data: bytes) -> LiveError:
    """Return the exception for a reply with an error's status."""
    try:
        return error_of(orjson.loads(data), status)
    except orjson.JSONDecodeError:
        return RemoteError(f"the server answered {status}, and not as dspy-live does", type="", status=status)


def not_dspy_live(url: str) -> RemoteError:
    """Return the exception for a server whose replies are not of dspy-live's form."""
    return RemoteError(f"what answers at {url} is no dspy-live server", type="", status=200)


def transport_error(exc: TransportError) -> LiveError:
    """Return the exception for a failed connection."""
    if isinstance(exc, ConnectFailed):
        return Unreachable(str(exc))
    if isinstance(exc, Silent):
        return errors.IdleTimeout(str(exc))
    return ConnectionLost(str(exc))
