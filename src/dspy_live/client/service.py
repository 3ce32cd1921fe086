"""A remote server as a Service: what wraps a program in the process wraps one elsewhere too."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import orjson

from dspy_live.client.http import Endpoint
from dspy_live.client.stream import StreamedRun
from dspy_live.core.call import Call
from dspy_live.core.errors import DeadlineExceeded
from dspy_live.core.events import Event
from dspy_live.core.service import Receiver


class RemoteService:
    """A program of a dspy-live server, as a :class:`~dspy_live.core.service.Service`.

    The call's deadline ends it here, which closes the connection and so cancels it there. Its config
    goes along; its attributes do not. The run's id is the server's own.

    Args:
        url: the server's, or an :class:`Endpoint`.
        api_key: for a ``url``.
        program: by name; the server's default program when ``None``.
    """

    def __init__(self, url: str | Endpoint, *, api_key: str | None = None, program: str | None = None) -> None:
        self.endpoint = url if isinstance(url, Endpoint) else Endpoint(url, api_key)
        self._prefix = prefix(program)

    def open(self, call: Call) -> AbstractAsyncContextManager[Receiver[Event]]:
        """Start the run. Leaving the context closes the connection, which cancels the run on the server."""
        timeout: float | None = None
        if call.deadline is not None:
            timeout = call.deadline - asyncio.get_running_loop().time()
            if timeout <= 0:
                raise DeadlineExceeded("the call's deadline has passed")
        headers = config_header(call.config)
        path = f"{self._prefix}/predict/stream"
        run: AbstractAsyncContextManager[Receiver[Event]] = StreamedRun(
            self.endpoint, path, dict(call.inputs), headers, buffer=call.buffer, timeout=timeout
        )
        return run


def prefix(program: str | None) -> str:
    """Return the path of a program's routes."""
    return "" if program is None else f"/programs/{program}"


def config_header(config: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the header that carries LM options; a header takes ASCII only."""
    if not config:
        return {}
    text = orjson.dumps(dict(config)).decode()
    return {"X-Config": text.encode("ascii", "backslashreplace").decode() if text.isascii() else _ascii(config)}


def _ascii(config: Mapping[str, Any]) -> str:
    import json

    return json.dumps(dict(config), separators=(",", ":"))
