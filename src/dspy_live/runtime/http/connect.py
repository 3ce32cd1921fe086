"""From a route to a connection that can send: DNS, TCP, proxy, TLS."""

from __future__ import annotations

import asyncio
import contextvars
import os
import socket
import ssl
from typing import TYPE_CHECKING

from dspy_live.runtime.http.connection import HEAD_LIMIT, Connection
from dspy_live.runtime.http.dial import dial
from dspy_live.runtime.http.errors import ConnectFailed, ConnectTimeout
from dspy_live.runtime.http.tls import TlsOptions, make_context
from dspy_live.runtime.vanished import notice_what_is_not_taken_in

if TYPE_CHECKING:
    from dspy_live.runtime.http.pool import Route


class Connector:
    """Makes connections, and keeps the TLS contexts, which cost 20 ms each to build."""

    def __init__(self) -> None:
        self._contexts: dict[TlsOptions, ssl.SSLContext] = {}

    async def connect(self, route: Route, connection: Connection, limit: float | None) -> None:
        """Bring ``connection`` up. Raises :class:`ConnectFailed` or :class:`ConnectTimeout`.

        Cancelling it, or running out of time, closes the socket at once at whatever step it is.
        """
        # A socket keeps the context that it was made in, and outlives the call that needed it first.
        steps = self._connect(route, connection, limit)
        try:
            await asyncio.get_running_loop().create_task(steps, context=contextvars.Context())
        except BaseException:
            _drop(connection)  # the task may have ended well in the same turn of the loop as the caller was cancelled
            raise

    async def _connect(self, route: Route, connection: Connection, limit: float | None) -> None:
        try:
            # Made before the time counts: the first one reads every certificate of the system.
            context = self._context(route.tls) if route.scheme == "https" else None
            async with asyncio.timeout(limit):
                await self._steps(route, connection, context, limit)
        except TimeoutError as exc:
            _drop(connection)
            if exc.errno is not None or limit is None:  # the system's own patience, not ours
                raise ConnectFailed(route.address, _reason(exc)) from exc
            raise ConnectTimeout(route.address, f"no connection within {limit:g} s") from None
        except (OSError, ValueError, EOFError) as exc:
            _drop(connection)
            raise ConnectFailed(route.address, _reason(exc)) from exc
        except BaseException:
            _drop(connection)
            raise

    async def _steps(
        self, route: Route, connection: Connection, context: ssl.SSLContext | None, limit: float | None
    ) -> None:
        proxy = route.proxy
        host, port = (route.host, route.port) if proxy is None else (proxy.host, proxy.port)
        tunnel = proxy is not None and route.scheme == "https"
        gate = _Gate(connection)
        await dial(gate, host, port)
        _set_options(gate.transport)
        if proxy is not None and proxy.scheme == "https":
            await gate.start_tls(self._context(TlsOptions()), proxy.host, limit)
        if tunnel:
            assert proxy is not None
            await gate.open_tunnel(route.host, route.port, proxy.auth)
        if context is not None:
            await gate.start_tls(context, route.host, limit)
        gate.hand_over()

    def _context(self, options: TlsOptions) -> ssl.SSLContext:
        context = self._contexts.get(options)
        if context is None:
            context = self._contexts[options] = make_context(options)
        return context


class _Gate(asyncio.Protocol):
    """The protocol of a connection that is not ready yet."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._reply = bytearray()
        self._waiter: asyncio.Future[None] | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self._connection.transport = self.transport

    def data_received(self, data: bytes) -> None:
        self._reply += data
        if len(self._reply) > HEAD_LIMIT or b"\r\n\r\n" in self._reply:
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wake(exc or ConnectionResetError("the peer closed the connection"))

    def _wake(self, error: Exception | None = None) -> None:
        if self._waiter is not None and not self._waiter.done():
            if error is None:
                self._waiter.set_result(None)
            else:
                self._waiter.set_exception(error)

    async def start_tls(self, context: ssl.SSLContext, host: str, limit: float | None) -> None:
        loop = asyncio.get_running_loop()
        # Our own limit is the one that counts; the loop's must only not come first.
        patience = 3600.0 if limit is None else limit + 5
        upgraded = await loop.start_tls(
            self.transport, self, context, server_hostname=host, ssl_handshake_timeout=patience
        )
        assert upgraded is not None
        self.transport = self._connection.transport = upgraded

    async def open_tunnel(self, host: str, port: int, auth: str) -> None:
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        extra = f"Proxy-Authorization: {auth}\r\n" if auth else ""
        self._reply.clear()
        self._waiter = asyncio.get_running_loop().create_future()
        self.transport.write(f"CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n{extra}\r\n".encode())
        await self._waiter
        head, found, rest = bytes(self._reply).partition(b"\r\n\r\n")
        self._reply.clear()
        line = head.partition(b"\r\n")[0].decode("latin-1")
        words = line.split(None, 2)
        if not found or len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
            raise ValueError(f"the proxy did not answer in HTTP ({line[:80]!r})")
        if not 200 <= int(words[1]) < 300:
            raise ValueError(f"the proxy refused the connection: {' '.join(words[1:])[:200]}")
        if rest:
            raise ValueError("the proxy sent bytes of its own into the tunnel")

    def hand_over(self) -> None:
        if self.transport.is_closing():
            raise ConnectionResetError("the peer closed the connection")
        self.transport.set_protocol(self._connection)


def _drop(connection: Connection) -> None:
    if connection.transport is not None:
        connection.transport.abort()


def _set_options(transport: asyncio.Transport) -> None:
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        notice_what_is_not_taken_in(sock)


def _reason(exc: BaseException) -> str:
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"its TLS certificate was not accepted: {exc.verify_message}"
    if isinstance(exc, ssl.SSLError):
        return f"TLS failed: {exc.reason or exc}"
    if isinstance(exc, socket.gaierror):
        return f"the host name cannot be resolved ({exc.strerror})"
    if isinstance(exc, OSError) and exc.errno:
        return os.strerror(exc.errno)
    if isinstance(exc, ConnectionError):
        return "the peer closed the connection"
    return str(exc) or type(exc).__name__
