"""The host and the port that an LM's endpoint asks, for the books. No path, user, key or query is a part of it."""

from __future__ import annotations

import functools
from typing import Any
from urllib.parse import urlsplit

from dspy_live.core.service import Service

_PORTS = {"http": 80, "https": 443}


def server_of(endpoint: Service) -> str:
    """Return ``"host:port"`` of an endpoint, or an empty string where it tells no address."""
    url: Any = getattr(endpoint, "url", None)
    if url is None:
        settings = getattr(getattr(endpoint, "lm", None), "kwargs", None) or {}
        url = settings.get("api_base") or settings.get("base_url")
    return _host_and_port(url) if isinstance(url, str) else ""


@functools.lru_cache(maxsize=256)
def _host_and_port(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return ""
    if not host or port is None:
        return ""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
