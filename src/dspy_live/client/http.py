"""Requests to one server over our own transport."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson

from dspy_live.client.errors import error_of_reply, not_dspy_live, transport_error
from dspy_live.client.wire import loads
from dspy_live.core.errors import ConfigurationError, DeadlineExceeded
from dspy_live.runtime.http.transport import Exchange, Timeouts, TransportError, pool_for_running_loop

_AGENT = "dspy-live"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server's address, and how it is asked.

    Args:
        url: with the path that it is mounted under, such as ``http://127.0.0.1:8000`` or ``…/llm``.
        api_key: sent as ``Authorization: Bearer``.
        connect: seconds until the connection must stand.
        idle: the longest silence within a stream, in seconds; the server sends heartbeats, every
            15 s by default. ``None`` waits for ever.
    """

    url: str
    api_key: str | None = None
    connect: float | None = 10.0
    idle: float | None = 60.0

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            names_a_host = bool(parts.hostname) and parts.port != 0
        except ValueError:
            names_a_host = False
        if not names_a_host or parts.scheme not in ("http", "https"):
            raise ConfigurationError(
                f"a server's URL begins with http:// or https:// and names a host; got {self.url!r}"
            )
        object.__setattr__(self, "url", self.url.rstrip("/"))

    def headers(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the headers of a request."""
        headers = {"User-Agent": _AGENT, **(more or {})}
        if self.api_key is not None:
            headers["Authorization"] = f"Bearer {self.api_key}"
        return headers

    def exchange(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Exchange:
        """Prepare a request whose reply is a stream."""
        data, all_headers = self._with_body(body, headers)
        timeouts = Timeouts(self.connect, None, self.idle)
        return pool_for_running_loop().exchange(method, self.url + path, all_headers, data, timeouts)

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> tuple[Any, Mapping[str, str]]:
        """Send a request and return its reply's JSON (``None`` for 204) and headers.

        Raises the server's error as its class; :class:`DeadlineExceeded` after ``timeout`` seconds.
        """
        data, all_headers = self._with_body(body, headers)
        try:
            async with asyncio.timeout(timeout):
                timeouts = Timeouts(self.connect)
                pool = pool_for_running_loop()
                async with pool.exchange(method, self.url + path, all_headers, data, timeouts) as exchange:
                    reply = await exchange.read()
        except TimeoutError:
            raise DeadlineExceeded(f"no reply within {timeout:g} s") from None
        except TransportError as exc:
            raise transport_error(exc) from exc
        if exchange.status >= 400:
            raise error_of_reply(exchange.status, reply)
        try:
            return (loads(reply) if reply else None), exchange.headers
        except ValueError:
            raise not_dspy_live(self.url) from None

    def _with_body(self, body: Any, headers: Mapping[str, str] | None) -> tuple[bytes, dict[str, str]]:
        if body is None:
            return b"", self.headers(headers)
        try:
            data = orjson.dumps(body)
        except TypeError as exc:
            raise TypeError(f"the inputs can't be sent as JSON: {exc}") from None
        return data, self.headers({"Content-Type": "application/json", **(headers or {})})


def programs_of(body: Any, url: str) -> list[dict[str, Any]]:
    """Return the programs that a reply of ``/programs`` lists; raise :class:`RemoteError` for another's reply."""
    found = body.get("programs") if isinstance(body, dict) else None
    if not isinstance(found, list) or not all(isinstance(one, dict) and "name" in one for one in found):
        raise not_dspy_live(url)
    return found


def prefix(program: str | None) -> str:
    """Return the path of a program's routes."""
    return "" if program is None else f"/programs/{program}"


def config_header(config: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the header that carries LM options, as JSON in ASCII."""
    return {"X-Config": json.dumps(dict(config), separators=(",", ":"))} if config else {}
