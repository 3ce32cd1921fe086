"""What a store is called in messages, logs and pages: its address without user and password."""

from __future__ import annotations

from urllib.parse import urlsplit


def store_name(url: str, scheme: str | None = None) -> str:
    """Return an address without its user, password and options, with another ``scheme`` if one is given.

    Raises ``ValueError`` for an address whose host or port can't be read.
    """
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{scheme or parts.scheme}://{parts.hostname or ''}{port}{parts.path}"
