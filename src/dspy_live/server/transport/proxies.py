"""What the proxies in front of a server say of its clients: their address, and the address that they asked for."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, MutableMapping
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from dspy_live.core.errors import ConfigurationError

_PREFIX = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+\Z")
_HOST = re.compile(rb"(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?\Z")


TOLD_PREFIX = "dspy_live.told_prefix"
"""Stands in the scope of a request whose proxy has told the prefix: it goes before a ``root_path``."""


def checked_prefix(root_path: str) -> str:
    """Return a path prefix as it stands before each path, ``/qa``; ``""`` for none.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` for what is no path.
    """
    prefix = root_path.rstrip("/")
    if prefix and not _PREFIX.match(prefix):
        raise ConfigurationError(
            f"a root path is like /qa or /team/qa, of letters, digits and '. _ ~ -'; got {root_path!r}"
        )
    return prefix


def below_prefix(scope: Scope, prefix: str) -> Scope:
    """Return the scope of a request below ``prefix``, whether the proxy has taken the prefix off the path or not.

    ``root_path`` then begins with the prefix, and so does ``path``, as ASGI has it.
    """
    root: str = scope.get("root_path", "")
    if not prefix or is_below(root, prefix):
        return scope
    path: str = scope["path"]
    if root or not is_below(path, prefix):
        path = prefix + path
    return {**scope, "root_path": prefix + root, "path": path}


def is_below(path: str, prefix: str) -> bool:
    """True for the prefix itself and for what stands below it: ``/qa`` and ``/qa/x``, not ``/qatar``."""
    return path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in ("", "/")


class Proxies:
    """Takes the headers ``X-Forwarded-…`` of named proxies, and of nobody else.

    ``-For`` becomes the client's address, ``-Proto`` the scheme, ``-Host`` the ``Host``, ``-Prefix`` the path below
    which the proxy shows the server. The first two are uvicorn's own middleware; of several hosts and prefixes the
    last one counts, which the nearest proxy has written.

    Args:
        app: the application behind.
        trusted: addresses and networks of proxies, such as ``"10.0.0.7"`` and ``"172.16.0.0/12"``.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` for what is neither.
    """

    def __init__(self, app: ASGIApp, trusted: Iterable[str]) -> None:
        from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware  # the application alone needs no uvicorn

        named = [each.strip() for each in trusted]
        for each in named:
            _check_address(each)
        self._client_and_scheme = ProxyHeadersMiddleware(app, named)  # type: ignore[arg-type]
        self._trusted = self._client_and_scheme.trusted_hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        client = scope.get("client")
        if client and client[0] in self._trusted:
            scope = _as_asked_for(scope)
        await self._client_and_scheme(scope, receive, send)  # type: ignore[arg-type]


def _as_asked_for(scope: MutableMapping[str, Any]) -> Scope:
    host = prefix = b""
    for name, value in scope["headers"]:
        if name == b"x-forwarded-host":
            host = value.rpartition(b",")[2].strip()
        elif name == b"x-forwarded-prefix":
            prefix = value.rpartition(b",")[2].strip().rstrip(b"/")
    scope = dict(scope)
    if _HOST.match(host):
        headers = [(name, value) for name, value in scope["headers"] if name != b"host"]
        scope["headers"] = [(b"host", host), *headers]
    text = prefix.decode("latin-1")
    return {**below_prefix(scope, text), TOLD_PREFIX: True} if _PREFIX.match(text) else scope


def _check_address(given: str) -> None:
    if given == "*":
        raise ConfigurationError(
            "each proxy is named by its address or network: what any client says of itself must not count; got '*'"
        )
    try:
        ipaddress.ip_network(given)
    except ValueError as exc:
        raise ConfigurationError(
            f"a proxy is named by its address or network, such as 10.0.0.7 or 172.16.0.0/12: {exc}"
        ) from None
