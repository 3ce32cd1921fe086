"""Which web pages may ask. A page of another site must not spend a developer's LM budget through their browser."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from functools import lru_cache
from urllib.parse import SplitResult, urlsplit

from dspy_live.core.errors import ConfigurationError
from dspy_live.server.errors import Forbidden
from dspy_live.server.option_names import OptionName, as_argument

Headers = list[tuple[bytes, bytes]]

_PREFLIGHT: Headers = [
    (b"access-control-allow-methods", b"GET, POST, DELETE"),
    (
        b"access-control-allow-headers",
        (
            b"authorization, content-type, last-event-id, mcp-method, mcp-name, mcp-protocol-version, mcp-session-id, "
            b"x-api-key, x-client-run-id, x-config, x-session"
        ),
    ),
    (b"access-control-max-age", b"600"),
]
_READABLE = (
    b"mcp-session-id, x-run-id, server-timing, x-ignored, x-simulated, retry-after, "
    b"x-ratelimit-limit, x-ratelimit-remaining, x-ratelimit-reset"
)
_PORTS = {"http": 80, "https": 443}


class Origins:
    """The origins of pages that may ask, besides the server's own.

    Args:
        allowed: origins such as ``"https://app.example"``, or ``"*"`` for any.
        option_name: says how an option is set where the reader of an error can set it.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` for what no page can have as its origin.
    """

    def __init__(self, allowed: Sequence[str] = (), option_name: OptionName = as_argument) -> None:
        self.local_only = False
        """True when the server is on loopback, asks for no key and has no proxy in front. A page of any site can then
        get here by letting its own name resolve to 127.0.0.1, so only requests to an address or to localhost are for
        this server."""
        self._option_name = option_name
        self._any = "*" in allowed
        self._allowed = {origin.rstrip("/").lower() for origin in allowed}
        for origin in self._allowed - {"*", "null"}:
            parts = urlsplit(origin)
            if not (parts.scheme and parts.netloc) or parts.path or parts.query:
                raise ConfigurationError(
                    f"an origin is like https://app.example or http://localhost:3000; got {origin!r}"
                )
        self._names = {urlsplit(origin).hostname or "" for origin in self._allowed}

    def check(self, headers: Mapping[bytes, bytes]) -> Headers:
        """Return the CORS headers of the reply to a request with these headers, by their names in lower case.

        Raises :class:`Forbidden` for a page of another origin.

        A request without ``Origin`` does not come from a page of another site and passes, unless the page has made its
        own name point here.
        """
        host = headers.get(b"host", b"")
        if self.local_only and not self._any:
            self._check_host(_dns_name(host))
        origin = headers.get(b"origin")
        if not origin:
            return []
        text = origin.decode("latin-1").lower()
        asked = _split_host(host)
        if self._any or text in self._allowed:
            return [
                (b"access-control-allow-origin", origin),
                (b"access-control-expose-headers", _READABLE),
                (b"vary", b"origin"),
            ]
        # A browser says itself whether a page asks its own origin, whatever a proxy has made of the Host; no page can
        # write this header. Older browsers, and those that got the page over plain HTTP, send none.
        if headers.get(b"sec-fetch-site") == b"same-origin" or _same(_split(text), asked):
            return []
        raise Forbidden(
            f"pages of {text[:200]} may not ask this server, which was asked as {asked.netloc[:200]!r}: allow them "
            f"with {self._option_name('origins', text[:200])}; if that is the server's own address at a proxy, name "
            f"the proxy with {self._option_name('forwarded_allow_ips', 'ADDRESS')} and let it send X-Forwarded-Host"
        )

    def _check_host(self, name: str) -> None:
        if not name or name in self._names:
            return
        raise Forbidden(
            f"this server takes requests of its own machine, and was asked as {name[:200]!r}: behind a proxy, name the "
            f"proxy with {self._option_name('forwarded_allow_ips', 'ADDRESS')}; else allow the name with "
            f"{self._option_name('origins', f'http://{name[:200]}')}, or ask for a key"
        )

    @staticmethod
    def preflight() -> Headers:
        """Return the headers that answer a browser's ``OPTIONS`` request."""
        return _PREFLIGHT


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:  # brackets that don't close
        return urlsplit("")


def _same(origin: SplitResult, asked: SplitResult) -> bool:
    """True for one host and port; a Host without a port has that of the page's scheme: proxies change the scheme."""
    if origin.hostname is None or origin.hostname != asked.hostname:
        return False
    usual = _PORTS.get(origin.scheme)
    return (_port(origin) or usual) == (_port(asked) or usual)


def _port(parts: SplitResult) -> int | None:
    try:
        return parts.port
    except ValueError:  # no number
        return -1


def _split_host(host: bytes) -> SplitResult:
    return _split("//" + host.decode("latin-1").lower())


@lru_cache(maxsize=512)
def _dns_name(host: bytes) -> str:
    """Return the name in a ``Host`` that DNS can let point anywhere; empty for an address and for localhost."""
    name = _split_host(host).hostname or ""
    if name in ("", "localhost") or name.endswith(".localhost"):
        return ""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name
    return ""
