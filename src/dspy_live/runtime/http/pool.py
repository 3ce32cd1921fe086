"""Keep-alive connections of one event loop."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dspy_live.runtime.http.connect import Connector
from dspy_live.runtime.http.connection import Connection
from dspy_live.runtime.http.errors import PoolClosed
from dspy_live.runtime.http.exchange import Exchange
from dspy_live.runtime.http.proxy import Proxies, Proxy
from dspy_live.runtime.http.request import Target, parse_target, request_head
from dspy_live.runtime.http.silence import Timeouts
from dspy_live.runtime.http.splice import LoopSplicer, splicer_for_running_loop
from dspy_live.runtime.http.tls import TlsOptions

_DEFAULT_TIMEOUTS = Timeouts()
_DEFAULT_TLS = TlsOptions()
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_BODYLESS = ("GET", "DELETE")
_MOST_REMEMBERED = 512
"""Heads of requests that are remembered: one for each address and set of headers, as each LM has its own."""


class Route:
    """Where connections go: by which proxy, with which TLS options; and those of them that are unused now."""

    __slots__ = ("host", "idle", "port", "proxy", "scheme", "tls")

    def __init__(self, scheme: str, host: str, port: int, proxy: Proxy | None, tls: TlsOptions) -> None:
        self.scheme = scheme
        self.host = host
        self.port = port
        self.proxy = proxy
        self.tls = tls
        self.idle: dict[Connection, None] = {}

    @property
    def address(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        through = f" (through the proxy {self.proxy.address})" if self.proxy is not None else ""
        return f"{host}:{self.port}{through}"


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """Connections now (``open``, of them ``idle``; ``exchanges`` under way) and since the start."""

    open: int
    idle: int
    exchanges: int
    connects: int
    reuses: int
    stale: int
    total_exchanges: int


class HttpPool:
    """HTTP/1.1 connections of one event loop, kept between requests. There is no cap.

    Args:
        loop: the loop that it is for; the running one when ``None``.
        keep: seconds that an unused connection is kept.
        proxies: URL by scheme (``http``, ``https``, ``all``, and ``no`` for exceptions); ``None`` takes
            the environment's as it is when the pool is made.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop | None = None,
        *,
        keep: float = 30.0,
        proxies: Mapping[str, str] | None = None,
    ) -> None:
        # Weak, because the per-loop registry must not keep a loop alive through its value.
        self._loop = weakref.ref(loop or asyncio.get_running_loop())
        self._keep = keep
        self._proxies = Proxies(proxies)
        self._connector = Connector()
        self._routes: dict[tuple[object, ...], Route] = {}
        self._heads: dict[tuple[object, ...], tuple[Route, bytes]] = {}
        self._open: set[Connection] = set()
        self._exchanges: set[Exchange] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Future[None] | None = None
        self._splicer: LoopSplicer | None = None
        self._may_splice = True
        self._closed = False
        self._connects = self._reuses = self._stale = self._total = 0

    def exchange(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeouts: Timeouts = _DEFAULT_TIMEOUTS,
        on_body: Callable[[bytes], None] | None = None,
        *,
        tls: TlsOptions = _DEFAULT_TLS,
    ) -> Exchange:
        """Prepare one request; nothing is sent before ``async with``.

        Args:
            method: any but HEAD and CONNECT.
            url: ``http://`` or ``https://``.
            headers: ``Host``, ``Content-Length``, ``Accept-Encoding`` (identity) and ``User-Agent`` are
                added where missing.
            body: the whole body.
            timeouts: see :class:`Timeouts`.
            on_body: may be given later, on the exchange; until then at most 256 KB wait.
            tls: how an https endpoint is checked.

        Raises ``ValueError`` for a URL or header that cannot be sent.
        """
        headers = headers or {}
        key = (method, url, None if tls is _DEFAULT_TLS else tls, *headers.items())
        route, head = self._heads.get(key) or self._new_head(key, method, url, headers, tls)
        if body or method not in _BODYLESS:
            head += b"Content-Length: %d\r\n\r\n" % len(body)
        else:
            head += b"\r\n"
        return Exchange(self, route, head, body, timeouts, on_body)

    def _new_head(
        self, key: tuple[object, ...], method: str, url: str, headers: Mapping[str, str], tls: TlsOptions
    ) -> tuple[Route, bytes]:
        if method not in _METHODS:
            raise ValueError(f"method must be one of {', '.join(_METHODS)}; got {method!r}")
        target = parse_target(url)
        proxy = self._proxies.proxy_for(target)
        plain = proxy is not None and target.scheme == "http"
        extra = f"Proxy-Authorization: {proxy.auth}\r\n" if plain and proxy is not None and proxy.auth else ""
        head = request_head(method, target, headers, absolute=plain, extra=extra)
        if len(self._heads) >= _MOST_REMEMBERED:
            self._heads.clear()
        found = self._heads[key] = self._route(target, proxy, tls), head
        return found

    def _route(self, target: Target, proxy: Proxy | None, tls: TlsOptions) -> Route:
        tls = tls if target.scheme == "https" else _DEFAULT_TLS
        key = (target.scheme, target.host, target.port, proxy, tls)
        route = self._routes.get(key)
        if route is None:
            route = self._routes[key] = Route(*key)
        return route

    @property
    def closed(self) -> bool:
        """True after :meth:`aclose`."""
        return self._closed

    def statistics(self) -> PoolStatistics:
        """Return counts; cheap."""
        return PoolStatistics(
            open=len(self._open),
            idle=sum(len(route.idle) for route in self._routes.values()),
            exchanges=len(self._exchanges),
            connects=self._connects,
            reuses=self._reuses,
            stale=self._stale,
            total_exchanges=self._total,
        )

    async def aclose(self) -> None:
        """Close every connection and wait until the sockets are gone.

        Running exchanges fail with :class:`PoolClosed`. Cancelling it leaves the closing to go on.
        """
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for exchange in list(self._exchanges):
            exchange._fail(PoolClosed(exchange.address, "the connection pool was closed"))
        for connection in list(self._open):
            connection.abort()
        if self._splicer is not None:
            self._splicer.close()
            self._splicer = None
        if self._open:
            self._emptied = self._emptied or asyncio.get_running_loop().create_future()
            await asyncio.shield(self._emptied)

    def splicer(self) -> LoopSplicer | None:
        """Return the splicer of this loop's streams; ``None`` where there is no compiled part, or the loop can't watch
        its descriptor. Splicing is for chunked replies that are not encrypted."""
        if self._splicer is None and self._may_splice and not self._closed:
            self._splicer = splicer_for_running_loop()
            self._may_splice = self._splicer is not None
        return self._splicer

    # For the exchange

    def _begin(self, exchange: Exchange, route: Route) -> Connection | None:
        """Count the exchange in, and return a kept connection, or ``None`` where there is none."""
        if self._loop() is not exchange._loop:
            raise RuntimeError("this pool belongs to another event loop; use pool_for_running_loop()")
        if self._closed:
            raise PoolClosed(route.address, "the connection pool is closed")
        self._exchanges.add(exchange)
        self._total += 1
        while route.idle:
            connection, _ = route.idle.popitem()
            if connection.transport is not None and not connection.transport.is_closing():
                self._reuses += 1
                return connection
        return None

    async def _connect(self, route: Route, limit: float | None) -> Connection:
        connection = Connection(self._lost, route)
        await self._connector.connect(route, connection, limit)
        if self._closed:
            connection.abort()
            raise PoolClosed(route.address, "the connection pool is closed")
        self._connects += 1
        self._open.add(connection)
        return connection

    def _release(self, connection: Connection) -> None:
        keep = self._keep
        if connection.keep_alive_hint is not None:
            # A second less than the server promises, so that its close and our next request rarely meet.
            keep = min(keep, connection.keep_alive_hint - 1)
        if self._closed or keep <= 0 or not connection.reusable:
            connection.abort()
            return
        loop = asyncio.get_running_loop()
        connection.served += 1
        connection.expires = loop.time() + keep
        connection.route.idle[connection] = None
        if self._sweeper is None:
            self._sweeper = loop.call_later(min(keep, 1.0), self._sweep)

    def _went_stale(self) -> None:
        self._stale += 1

    # Inside

    def _lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        connection.route.idle.pop(connection, None)
        if not self._open and self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)

    def _sweep(self) -> None:
        """Close what has been idle for too long. Runs only while something is idle."""
        self._sweeper = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        soonest: float | None = None
        for key, route in list(self._routes.items()):
            for connection in [c for c in route.idle if c.expires <= now]:
                del route.idle[connection]
                connection.abort()
            for connection in route.idle:
                soonest = connection.expires if soonest is None else min(soonest, connection.expires)
            if not route.idle and len(self._routes) > _MOST_REMEMBERED:
                del self._routes[key]
        if soonest is not None:
            self._sweeper = loop.call_later(max(soonest - now, 0.05), self._sweep)
