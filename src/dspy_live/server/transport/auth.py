"""Who asks: API keys, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable, Mapping
from urllib.parse import parse_qs

from starlette.types import Scope

from dspy_live.core.errors import ConfigurationError, Unauthorized

ANYONE = ""


class Keys:
    """The keys that may ask.

    Args:
        keys: key by name, or the keys alone (they are then named ``key-1``, ``key-2``, …). Without
            any, everybody may ask and nobody has a name.
    """

    def __init__(self, keys: Mapping[str, str] | Iterable[str] = ()) -> None:
        if isinstance(keys, str):
            keys = (keys,)
        named = keys.items() if isinstance(keys, Mapping) else ((f"key-{i}", key) for i, key in enumerate(keys, 1))
        self._salt = os.urandom(32)
        self._digests: list[tuple[str, bytes]] = []
        for name, key in named:
            if not name or not key or key != key.strip():
                raise ConfigurationError(f"the API key {name!r} is empty or has spaces around it")
            self._digests.append((name, self._digest(key)))

    def __len__(self) -> int:
        return len(self._digests)

    def check(self, scope: Scope, *, query: bool = False) -> str:
        """Return the name of the key that a request carries; raise :class:`Unauthorized`.

        A key comes as ``Authorization: Bearer KEY`` or ``X-API-Key: KEY``; with ``query`` also as
        ``?access_token=KEY``, for what a browser can't give headers to (EventSource, WebSocket).
        """
        if not self._digests:
            return ANYONE
        key = _given(scope, query)
        if key is None:
            # In words: an example of a header would be taken for a key, and be put out of sight.
            raise Unauthorized("an API key is needed, in the header Authorization (Bearer) or in X-API-Key")
        found = ANYONE
        given = self._digest(key)
        for name, digest in self._digests:  # no early end: the time must not tell which key was near
            if hmac.compare_digest(digest, given):
                found = name
        if not found:
            raise Unauthorized("this API key is not known here")
        return found

    def _digest(self, key: str) -> bytes:
        return hashlib.blake2b(key.encode("utf-8", "surrogateescape"), key=self._salt, digest_size=32).digest()


def _given(scope: Scope, query: bool) -> str | None:
    for name, value in scope["headers"]:
        if name == b"authorization":
            kind, _, key = value.decode("utf-8", "surrogateescape").partition(" ")
            if kind.lower() == "bearer":
                return str(key.strip())
        elif name == b"x-api-key":
            return str(value.decode("utf-8", "surrogateescape").strip())
    if query and scope["query_string"]:
        values = parse_qs(scope["query_string"].decode("latin-1")).get("access_token")
        return values[0] if values else None
    return None
