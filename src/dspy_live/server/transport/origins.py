"""Which web pages may ask. A page of another site must not spend a developer's LM budget through their browser."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.types import Scope

from dspy_live.core.errors import ConfigurationError
from dspy_live.server.errors import Forbidden

Headers = list[tuple[bytes, bytes]]

_PREFLIGHT: Headers = [
    (b"access-control-allow-methods", b"GET, POST, DELETE"),
    (b"access-control-allow-headers", b"authorization, content-type, last-event-id, x-api-key, x-config"),
    (b"access-control-max-age", b"600"),
]


class Origins:
    """The origins of pages that may ask, besides the server's own.

    Args:
        allowed: origins such as ``"https://app.example"``, or ``"*"`` for any.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` for what no page can have as its origin.
    """

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        self.local_only = False
        """True when the server is on loopback and asks for no key. A page of any site can then get here by letting
        its own name resolve to 127.0.0.1, so only pages at an address or at localhost count as the server's own."""
        self._any = "*" in allowed
        self._allowed = {origin.rstrip("/").lower() for origin in allowed}
        for origin in self._allowed - {"*", "null"}:
            parts = urlsplit(origin)
            if not (parts.scheme and parts.netloc) or parts.path or parts.query:
                raise ConfigurationError(
                    f"an origin is like https://app.example or http://localhost:3000; got {origin!r}"
                )

    def check(self, scope: Scope) -> Headers:
        """Return the CORS headers of the reply; raise :class:`Forbidden` for a page of another origin.

        A request without ``Origin`` does not come from a page of another site and passes.
        """
        origin = host = b""
        for name, value in scope["headers"]:
            if name == b"origin":
                origin = value
            elif name == b"host":
                host = value
        if not origin:
            return []
        text = origin.decode("latin-1").lower()
        if self._any or text in self._allowed:
            return [
                (b"access-control-allow-origin", origin),
                (b"access-control-expose-headers", b"x-run-id, server-timing, x-simulated, retry-after"),
                (b"vary", b"origin"),
            ]
        own = urlsplit(text)
        if own.netloc == host.decode("latin-1").lower() and not (self.local_only and _is_name(own.hostname or "")):
            return []
        raise Forbidden(f"pages of {text[:200]} may not ask this server; allow it with origins=")

    @staticmethod
    def preflight() -> Headers:
        """Return the headers that answer a browser's ``OPTIONS`` request."""
        return _PREFLIGHT


def _is_name(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False
