"""Where a request goes, and the bytes of its head."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, unquote, urlsplit

_PORTS = {"http": 80, "https": 443}
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FORBIDDEN = re.compile(r"[\x00\r\n]")


@dataclass(frozen=True, slots=True)
class Target:
    """One URL, taken apart. ``authority`` is the ``Host`` header, ``basic`` an ``Authorization`` or empty."""

    scheme: str
    host: str
    port: int
    path: str
    authority: str
    basic: str

    @property
    def address(self) -> str:
        """``host:port``, for messages."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@lru_cache(maxsize=1024)
def parse_target(url: str) -> Target:
    """Take an ``http`` or ``https`` URL apart. Raises ``ValueError`` that says what is wrong with it."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        shown = f"{parts.scheme}://{parts.hostname}" if parts.hostname else "it"
        raise ValueError(f"an LM endpoint's URL must begin with http:// or https:// and name a host; {shown} does not")
    try:
        port = parts.port or _PORTS[parts.scheme]
        host = parts.hostname if parts.hostname.isascii() else parts.hostname.encode("idna").decode()
    except ValueError as exc:
        raise ValueError(f"the host or port of the URL is invalid: {exc}") from None
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    if parts.query:
        path += "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~-._?[]")
    authority = f"[{host}]" if ":" in host else host
    if port != _PORTS[parts.scheme]:
        authority += f":{port}"
    return Target(parts.scheme, host, port, path, authority, basic_auth(parts.username, parts.password))


def basic_auth(user: str | None, password: str | None) -> str:
    """Return the value of a Basic authorization header, or an empty string when there is no user."""
    if not user:
        return ""
    pair = f"{unquote(user)}:{unquote(password or '')}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def request_head(
    method: str, target: Target, headers: Mapping[str, str], *, absolute: bool = False, extra: str = ""
) -> bytes:
    """Return the request line and headers, without ``Content-Length`` and the blank line.

    ``absolute`` writes the whole URL into the request line, as a plain HTTP proxy wants it;
    ``extra`` is finished header lines. ``Host``, ``Accept-Encoding`` and ``User-Agent`` are added
    where ``headers`` has none. Raises ``ValueError`` for a header that
    cannot be written safely, naming it but not its value.
    """
    seen = set()
    lines = []
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"{name!r} is not a valid header name")
        if _FORBIDDEN.search(value):
            raise ValueError(f"the value of header {name!r} has a line break or a NUL in it")
        lower = name.lower()
        if lower in ("content-length", "transfer-encoding", "connection"):
            continue
        seen.add(lower)
        lines.append(f"{name}: {value}\r\n")
    if "host" not in seen:
        lines.insert(0, f"Host: {target.authority}\r\n")
    if "authorization" not in seen and target.basic:
        lines.append(f"Authorization: {target.basic}\r\n")
    if "accept-encoding" not in seen:
        # A compressing server holds tokens back until it has a block of them.
        lines.append("Accept-Encoding: identity\r\n")
    if "user-agent" not in seen:
        lines.append("User-Agent: dspy-live\r\n")
    address = f"{target.scheme}://{target.authority}{target.path}" if absolute else target.path
    text = f"{method} {address} HTTP/1.1\r\n{''.join(lines)}{extra}"
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        bad = next(n for n, v in headers.items() if not _latin(n + v))
        raise ValueError(f"header {bad!r} has characters that HTTP headers cannot carry") from None


def _latin(text: str) -> bool:
    return all(ord(c) < 256 for c in text)
