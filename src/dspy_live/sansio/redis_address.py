"""The address of a Redis or Valkey server, looked at before anybody connects to it."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from dspy_live.core.errors import ConfigurationError

SCHEMES = ("redis", "rediss", "unix")
_OURS = frozenset({"decode_responses", "encoding", "encoding_errors"})
"""Options of the client that its user here has set."""


def checked_address(url: str) -> str:
    """Return ``url`` where it can be the address of a server.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` with what is wrong, and without the address: it may hold
    a password.
    """
    if (fault := _fault(url)) is not None:
        raise ConfigurationError(f"that is no address of a Redis or Valkey server: {fault}")
    return url


def _fault(url: str) -> str | None:
    if not url.startswith(tuple(f"{scheme}://" for scheme in SCHEMES)):
        return "it must begin with redis://, rediss:// or unix://"
    if any(char <= " " or char == "\x7f" for char in url):
        return "it has a space or a control character in it"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # its text may quote a part of the password
        return (
            "its host or its port, a number up to 65535, can't be read; in a password write / as %2F, # as %23, "
            "? as %3F and @ as %40"
        )
    if parts.fragment:
        return "it has a '#' in it; in a password write %23"
    if parts.scheme == "unix":
        return None if parts.path.strip("/") else "it must name a socket, such as unix:///run/redis.sock"
    database = parts.path.removeprefix("/")
    if database and not (database.isascii() and database.isdigit()):
        return "after the host comes the number of a database, such as redis://host:6379/0"
    if given := _OURS & parse_qs(parts.query).keys():
        return f"its option {min(given)} can't be chosen"
    return None
