"""The errors between us and an HTTP peer. Every message names ``host:port`` and no credential."""

from __future__ import annotations

from typing import ClassVar


class TransportError(Exception):
    """Base of the transport's errors.

    Args:
        address: ``host:port`` of the endpoint, with the proxy when there is one.
        reason: the cause, for people.
        received: true when at least one byte of the reply had come: asking again may then
            repeat work that the endpoint has done.

    ``transient`` says that another try has a chance, ``overload`` that the endpoint may have too much to do.
    """

    transient: ClassVar[bool] = True
    overload: ClassVar[bool] = False

    def __init__(self, address: str, reason: str, *, received: bool = False) -> None:
        super().__init__(f"{address}: {reason}")
        self.address = address
        self.reason = reason
        self.received = received


class ConnectFailed(TransportError):
    """No connection: unknown host, refused, a proxy that says no, or TLS that fails."""


class ConnectTimeout(ConnectFailed):
    """No connection within the connect timeout, which covers DNS, TCP, proxy and TLS."""


class ConnectionBroken(TransportError):
    """The connection ended before the reply did."""


class FirstByteTimeout(TransportError):
    """No byte of the reply's body within the first-byte timeout after the request was sent."""

    overload = True


class IdleTimeout(TransportError):
    """The body began and then fell silent for longer than the idle timeout."""

    overload = True


class ProtocolError(TransportError):
    """The peer's bytes are not HTTP/1.1 as we take it: malformed, too large, an unknown coding."""


class Redirected(ProtocolError):
    """The endpoint answered with a redirect, which is never followed. ``location`` has no query."""

    transient = False

    def __init__(self, address: str, status: int, location: str) -> None:
        super().__init__(address, f"redirect ({status}) to {location}; use that address as the API base", received=True)
        self.status = status
        self.location = location


class BodyTooLarge(TransportError):
    """The body is longer than the reader's limit."""

    transient = False


class PoolClosed(TransportError):
    """The pool was closed while the exchange ran, or before it began."""
