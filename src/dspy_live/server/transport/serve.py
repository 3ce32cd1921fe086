"""Running the application: one process, uvicorn on uvloop, a shutdown that lets runs end and cuts no client."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from dspy_live.core.errors import ConfigurationError
from dspy_live.server.app import App
from dspy_live.server.transport.address import BACKLOG, is_loopback, listen, url_of
from dspy_live.server.transport.last_clients import HEAD_SECONDS, accept_waiting, await_heads
from dspy_live.server.transport.protocol import Protocol
from dspy_live.server.transport.tls import Certificate, certificate_of
from dspy_live.server.transport.ws_protocol import WebSocketProtocol

log = logging.getLogger("dspy_live.server")

GC_THRESHOLDS = (50_000, 20, 100)
"""A stream makes and drops many small objects; collecting every 700 of them cost a p99 of 138 ms against 12."""

KEEP_ALIVE = 75
"""Seconds that an unused connection is kept: longer than clients and balancers keep theirs, so that it is they who
close, and no request meets a closing connection."""

END_SECONDS = 5
"""Seconds that a client has to read the end of its reply after its run has ended, at a shutdown."""


RETIRE_SECONDS = 5.0
"""Seconds that kept connections have to be used once more, and told to go elsewhere, when their process is replaced."""


class LiveServer(uvicorn.Server):
    """uvicorn's server with a shutdown that drains.

    First comes the lame-duck time, in which readiness is off and all requests are served, each reply being the last one
    of its connection. Then no new runs are taken, and the running ones have the drain's time; what still runs then ends
    in an error.

    Args:
        app: the application, or one that wraps it.
        live: the application whose runs are drained.
        drain: seconds for the running ones; by default the application's own.
        lame_duck: seconds between the end of readiness and the refusal of new runs.
        on_ready: called once, on the loop, when connections are accepted.
    """

    def __init__(
        self,
        app: ASGIApp,
        live: App,
        *,
        drain: float | None = None,
        lame_duck: float = 0.0,
        on_ready: Callable[[], None] | None = None,
        **config: Any,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                live.entry if app is live else app,
                interface="asgi3",
                http=Protocol,
                ws=WebSocketProtocol,
                loop="uvloop",
                lifespan="on",
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE,
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                ws_max_size=live.max_body,
                ws_per_message_deflate=False,
                timeout_graceful_shutdown=END_SECONDS,
                **config,
            )
        )
        self._live = live
        self._drain = live.drain_seconds if drain is None else drain
        self._lame_duck = lame_duck
        self._on_ready = on_ready
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over: asyncio.Event | None = None
        self._hurried: asyncio.Event | None = None
        self._draining: asyncio.Task[None] | None = None
        self._retired = False

    def stop(self, *, at_once: bool = False) -> None:
        """Begin the shutdown, from any thread; with ``at_once`` there is no lame-duck time.

        A second call cuts lame-duck time and drain short.
        """
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop, at_once)

    def retire(self) -> None:
        """Begin the shutdown, on the loop, where another process listens on the same socket: leave new clients to it.

        Nothing more is accepted. In the lame-duck time, :data:`RETIRE_SECONDS` at least, each reply is the last one of
        its connection. What is idle then is closed, so that no client meets the drain.
        """
        self._lame_duck = max(self._lame_duck, RETIRE_SECONDS)
        for server in self.servers:
            server.close()
        self._retired = True
        self._stop(False)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start accepting connections."""
        self._loop = asyncio.get_running_loop()
        self._over, self._hurried = asyncio.Event(), asyncio.Event()
        await super().startup(sockets)
        if self.started and self._on_ready is not None:
            self._on_ready()

    async def main_loop(self) -> None:
        """Wait for the shutdown; once a second the ``Date`` header is renewed."""
        assert self._over is not None
        while not self._over.is_set() and not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), 1.0)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, answer the clients that had connected before, and close."""
        if self._lame_duck and not self._retired:
            accepted = accept_waiting(listener for server in self.servers for listener in server.sockets)
            for server in self.servers:
                server.close()  # in the same step, so that nobody connects in between
            await self._serve_accepted(accepted)
            await await_heads(self.server_state.connections)
        await super().shutdown(sockets)

    async def _serve_accepted(self, accepted: Sequence[socket.socket]) -> None:
        assert self._loop is not None
        config, connect = self.config, self._loop.connect_accepted_socket
        given = {"config": config, "server_state": self.server_state, "app_state": self.lifespan.state}
        connecting = (connect(lambda: Protocol(**given), one, ssl=config.ssl) for one in accepted)
        with contextlib.suppress(TimeoutError):
            # Some clients have left, and a handshake of TLS may never end.
            await asyncio.wait_for(asyncio.gather(*connecting, return_exceptions=True), HEAD_SECONDS)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals to :func:`serve`: uvicorn's own handler would raise them again at the end."""
        yield

    def _stop(self, at_once: bool) -> None:
        if self._draining is None:
            if at_once:
                self._lame_duck = 0.0
            self._draining = asyncio.ensure_future(self._finish())
        else:
            assert self._hurried is not None
            self._hurried.set()
            self._live.runs.stop_all()

    async def _finish(self) -> None:
        assert self._over is not None
        assert self._hurried is not None
        self._live.runs.leaving = True
        if self._lame_duck:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurried.wait(), self._lame_duck)
        if self._retired:
            for connection in list(self.server_state.connections):
                if isinstance(connection, Protocol):
                    connection.shutdown()
        await self._live.drain(0.0 if self._hurried.is_set() else self._drain)
        self._over.set()


def serve(
    app: App,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    drain: float | None = None,
    lame_duck: float = 0.0,
    no_auth: bool = False,
    allow_simulated: bool = False,
    wrap: Callable[[App], ASGIApp] | None = None,
    on_ready: Callable[[str], None] | None = None,
    on_hangup: Callable[[], object] | None = None,
    sockets: Sequence[socket.socket] | None = None,
    steered: Callable[[LiveServer], AbstractAsyncContextManager[None]] | None = None,
    ssl_certfile: str | None = None,
    ssl_keyfile: str | None = None,
    ssl_keyfile_password: str | None = None,
) -> signal.Signals | None:
    """Serve ``app`` until SIGTERM or SIGINT, then drain; a second signal cuts the drain short.

    SIGHUP, which the end of a terminal sends, counts as SIGTERM for a server that was started on a terminal. Any other
    server logs it and goes on.

    Returns the signal that ended it, ``None`` where something else did.

    Args:
        app: what :func:`~dspy_live.server.create_app` returned.
        host: an address or a name; another one than loopback needs keys in ``app`` or ``no_auth``.
        port: 0 for any free one.
        drain: seconds for the running calls at the end; by default the app's own.
        lame_duck: seconds after SIGTERM in which readiness is off and requests are still served, so that a balancer
            can send its clients elsewhere; SIGINT goes without.
        no_auth: serve another address than loopback without keys.
        allow_simulated: serve another address than loopback with the simulated LM.
        wrap: returns the ASGI application to run in place of ``app``, for middleware.
        on_ready: called with the server's URL when it accepts connections.
        on_hangup: called on the loop for each SIGHUP that does not end the server, to read settings again; must be
            quick and must not raise.
        sockets: listening sockets to use in place of ``host`` and ``port``, for worker processes.
        steered: a context around the server's life that ends it with ``stop()`` or ``retire()``, in place of signals,
            which are then let be: for a worker process, whose supervisor has them.
        ssl_certfile: a certificate chain, in PEM; the server then speaks TLS 1.2 or newer. SIGHUP reads it again.
        ssl_keyfile: its private key, in PEM; by default it is in ``ssl_certfile`` too.
        ssl_keyfile_password: of an encrypted key.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` for an address that can't or must not be used, for a
    certificate that can't, and for a time below 0.
    """
    for name, value in (("drain", drain), ("lame_duck", lame_duck)):
        if value is not None and not value >= 0:
            raise ConfigurationError(f"{name} must be 0 or more seconds; got {value!r}")
    certificate = certificate_of(ssl_certfile, ssl_keyfile, ssl_keyfile_password)
    if sockets is None:
        check_address(app, host, no_auth=no_auth, allow_simulated=allow_simulated)
        sockets = [listen(host, port)]
    app.origins.local_only = is_loopback(sockets[0].getsockname()[0]) and not app.keys and app.proxies is None
    url = url_of(sockets[0], tls=certificate is not None)

    def ready() -> None:
        _settle_memory()
        if on_ready is not None:
            on_ready(url)

    server = LiveServer(
        app if wrap is None else wrap(app),
        app,
        drain=drain,
        lame_duck=lame_duck,
        on_ready=ready,
        ssl_context_factory=None if certificate is None else lambda config, default: certificate.context,
    )
    if certificate is not None:
        on_hangup = _renewing(certificate, on_hangup)
    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        if steered is not None:
            return runner.run(_steered(server, list(sockets), steered))
        return runner.run(_until_signal(server, list(sockets), on_hangup))


def check_address(app: App, host: str, *, no_auth: bool, allow_simulated: bool) -> None:
    """Raise :class:`ConfigurationError` where other machines could ask and nothing says that they may."""
    if is_loopback(host):
        return
    if not app.keys and not no_auth:
        raise ConfigurationError(
            f"{host} can be reached from other machines: give the server an API key, "
            "or say no-auth to let everybody ask"
        )
    if app.simulated and not allow_simulated:
        raise ConfigurationError(
            f"{host} can be reached from other machines, and the LM is the simulated one: configure a real LM, "
            "or ask for the simulated one explicitly"
        )


def _renewing(certificate: Certificate, then: Callable[[], object] | None) -> Callable[[], None]:
    """Return what a SIGHUP does: read the certificate again, then ``then``."""

    def hangup() -> None:
        try:
            certificate.reload()
            log.warning("SIGHUP: the certificate %s was read again", certificate.chain)
        except ConfigurationError as exc:
            log.error("SIGHUP: the old certificate is kept: %s", exc.message)
        if then is not None:
            then()

    return hangup


async def _steered(
    server: LiveServer,
    sockets: list[socket.socket],
    steered: Callable[[LiveServer], AbstractAsyncContextManager[None]],
) -> None:
    async with steered(server):
        serving: Coroutine[Any, Any, None] = server.serve(sockets)
        await serving


async def _until_signal(
    server: LiveServer, sockets: list[socket.socket], on_hangup: Callable[[], object] | None
) -> signal.Signals | None:
    loop = asyncio.get_running_loop()
    signals = [signal.SIGTERM, signal.SIGINT]
    seen: list[signal.Signals] = []

    def stop(which: signal.Signals) -> None:
        seen.append(which)
        server.stop(at_once=which is signal.SIGINT)

    for each in signals:
        loop.add_signal_handler(each, stop, each)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signals.append(signal.SIGHUP)
        if on_terminal():
            loop.add_signal_handler(signal.SIGHUP, stop, signal.SIGTERM)
        elif on_hangup is not None:
            loop.add_signal_handler(signal.SIGHUP, on_hangup)
        else:
            loop.add_signal_handler(signal.SIGHUP, log.warning, "SIGHUP: nothing is reloaded; start the server again")
    try:
        serving: Coroutine[Any, Any, None] = server.serve(sockets)
        await serving
    finally:
        for each in signals:
            loop.remove_signal_handler(each)
    return seen[0] if seen else None


def on_terminal() -> bool:
    """True where a person sits at the process's terminal."""
    return sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()


def _settle_memory() -> None:
    # What was loaded until now lives as long as the process: the collector need never look at it again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
