"""The simulated LM as an OpenAI-compatible HTTP server."""

from __future__ import annotations

import asyncio
import contextlib
import math
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import orjson

from dspy_live.simulator.brain import HTML_PAGE, REFUSALS, Brain
from dspy_live.simulator.connection import Connection, Playback, Request
from dspy_live.simulator.faults import Faults
from dspy_live.simulator.options import Options
from dspy_live.simulator.plan import Action, Plan, error_body, response
from dspy_live.simulator.request import checked_body
from dspy_live.simulator.stats import Stats
from dspy_live.simulator.ticker import Ticker


class Simulator:
    """A simulated LM behind a socket: ``POST /v1/chat/completions``, ``GET /v1/models``.

    Also ``GET /stats``, ``POST /reset`` (zeroes them), ``POST /faults``, ``POST /options`` (new defaults) and
    ``POST /next`` (options for the next request) for tests that run it in another process.

    Args:
        seed: another seed gives other answers, jitter and faults.
        ttft: seconds before the first token.
        tokens_per_second: pace after it; ``None`` is as fast as the socket takes them.
        jitter: share by which each wait varies, 0 to 1.
        length: tokens of a reply's last text field; ``None`` is some whole sentences, by the seed.
        faults: what goes wrong, and how often.
        api_key: requests without it are refused with 401; ``None`` takes any.
        models: names that ``/v1/models`` lists; every name is answered.
        tls: serve HTTPS with this context.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        ttft: float = 0.0,
        tokens_per_second: float | None = None,
        jitter: float = 0.0,
        length: int | None = None,
        faults: Faults | None = None,
        api_key: str | None = None,
        models: tuple[str, ...] = ("simulated",),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        options = Options().but({"ttft": ttft, "tps": tokens_per_second, "jitter": jitter, "length": length})
        self.brain = Brain(seed, options, faults)
        self.stats = Stats()
        self.url = ""
        self.requests: list[Mapping[str, Any]] = []
        """The bodies of the chat requests so far, for tests; off where ``keep_requests`` is false."""
        self.keep_requests = False
        self._api_key = api_key
        self._models = models
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._last_gone: asyncio.Future[None] | None = None
        self._controls: dict[str, Callable[..., None]] = {
            "/reset": self.reset,
            "/faults": self.set_faults,
            "/options": self.set_options,
            "/next": self.next,
        }
        self.ticker: Ticker

    # Its life -----------------------------------------------------------------------------------

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Listen, and return the base URL for an LM: ``http://127.0.0.1:PORT/v1``. Port 0 takes a free one."""
        loop = asyncio.get_running_loop()
        self.ticker = Ticker(loop)
        self._server = await loop.create_server(lambda: Connection(self, loop), host, port, backlog=4096, ssl=self._tls)
        taken = self._server.sockets[0].getsockname()[1]
        url_host = f"[{host}]" if ":" in host else host
        self.url = f"http{'s' if self._tls else ''}://{url_host}:{taken}/v1"
        return self.url

    async def stop(self) -> None:
        """Stop listening and cut every connection."""
        if self._server is None:
            return
        server, self._server = self._server, None
        # asyncio loses the socket of a connection whose server closes between accepting it and making its transport.
        for listening in server.sockets:
            asyncio.get_running_loop().remove_reader(listening.fileno())
        for _ in range(3):
            await asyncio.sleep(0)
        server.close()
        for connection in list(self._connections):
            connection.cut()
        if self._connections:
            self._last_gone = asyncio.get_running_loop().create_future()
            await self._last_gone
        await server.wait_closed()
        self.ticker.close()

    async def __aenter__(self) -> Simulator:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @contextlib.contextmanager
    def running(self, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
        """Serve from a thread with a loop of its own, for as long as the block lasts; gives the base URL."""
        ready = threading.Event()
        box: dict[str, Any] = {}

        async def serve() -> None:
            try:
                box["loop"], box["end"] = asyncio.get_running_loop(), asyncio.Event()
                await self.start(host, port)
            except BaseException as exc:
                box["error"] = exc
                return
            finally:
                ready.set()
            await box["end"].wait()
            await self.stop()

        thread = threading.Thread(target=lambda: asyncio.run(serve()), name="dspy-live-simulator", daemon=True)
        thread.start()
        ready.wait()
        if "error" in box:
            raise box["error"]
        try:
            yield self.url
        finally:
            box["loop"].call_soon_threadsafe(box["end"].set)
            thread.join()

    # For tests ----------------------------------------------------------------------------------

    def next(self, **options: Any) -> None:
        """Options for the next request that has none queued before it: ``sim.next(fault="429")``."""
        self.brain.options.but(options)
        self.brain.next_options.append(options)

    def set_faults(
        self, faults: Faults | None = None, *, rates: Mapping[Any, float] | None = None, schedule: Sequence[Any] = ()
    ) -> None:
        """Change the faults while it runs: to ``faults``, or to those that the other two describe."""
        self.brain.set_faults(faults or Faults(dict(rates or {}), tuple(schedule)))

    def reset(self) -> None:
        """Zero the statistics; what is active goes on and stays counted."""
        self.stats = Stats(active=self.stats.active)

    def set_options(self, **options: Any) -> None:
        """Change the defaults while it runs; see :class:`Options`."""
        self.brain.options = self.brain.options.but(options)

    @property
    def bytes_taken(self) -> int:
        """Bytes that the sockets have accepted so far; what waits in this process is not among them."""
        return self.stats.bytes - sum(connection.buffered for connection in list(self._connections))

    def snapshot(self) -> dict[str, Any]:
        """The statistics, as ``GET /stats`` gives them."""
        counts = {"bytes_taken": self.bytes_taken, "open_connections": len(self._connections)}
        return {**self.stats.as_dict(), **counts}

    # Called by a connection

    def opened(self, connection: Connection) -> None:
        """A client has connected."""
        self.stats.connections += 1
        self._connections.add(connection)

    def wrote(self, size: int) -> None:
        """Bytes were handed to a socket."""
        self.stats.bytes += size

    def closed(self, connection: Connection) -> None:
        """A connection is gone."""
        self._connections.discard(connection)
        if not self._connections and self._last_gone is not None and not self._last_gone.done():
            self._last_gone.set_result(None)

    def handle(self, connection: Connection, request: Request) -> None:
        """Answer one request."""
        path = request.path.partition("?")[0].rstrip("/")
        routes: dict[tuple[str, str], Callable[[Connection, Request], None]] = {
            ("POST", "/v1/chat/completions"): self._chat,
            ("GET", "/v1/models"): self._list_models,
            ("GET", "/stats"): lambda c, _: self._json(c, self.snapshot()),
            **{("POST", path): partial(self._control, change) for path, change in self._controls.items()},
        }
        if path == "/chat/completions" or path == "/models":
            path = "/v1" + path
        route = routes.get((request.method, path))
        if route is not None:
            route(connection, request)
            return
        known = any(path == other for _, other in routes)
        status, reason = (405, "Method Not Allowed") if known else (404, "Not Found")
        message = f"{request.method} {path or '/'} is not served here"
        connection.reply(response(status, reason, error_body(message, "invalid_request_error")))

    # The routes ---------------------------------------------------------------------------------

    def _chat(self, connection: Connection, request: Request) -> None:
        self.stats.requests += 1
        if self._api_key is not None and request.headers.get("authorization") != f"Bearer {self._api_key}":
            self._refuse(connection, *REFUSALS["401"])
            return
        try:
            body = checked_body(request.body)
            options = self.brain.options_for(request.headers, body)
            if self.keep_requests:
                self.requests.append(body)
            if not self._refused(connection, body, options):
                self._play(connection, body, options)
        except (ValueError, TypeError, AttributeError, KeyError) as exc:
            self._refuse(connection, 400, "Bad Request", str(exc), "invalid_request_error", None)

    def _refused(self, connection: Connection, body: Mapping[str, Any], options: Options) -> bool:
        """Carry out a fault that takes the place of a reply."""
        fault = options.fault
        if fault is None or (fault == "no_stream_options" and not body.get("stream_options")):
            return False
        self.stats.faults[fault] += 1
        if fault in REFUSALS:
            seconds = options.retry_after if fault in ("429", "503") else None
            self._refuse(connection, *REFUSALS[fault], retry_after=seconds)
        elif fault == "html":
            self.stats.refused += 1
            connection.reply(response(502, "Bad Gateway", HTML_PAGE, {"Content-Type": "text/html"}))
        elif fault == "cut_start":
            connection.cut()
        elif fault == "stall_start":
            self._stall(connection, body, options)
        else:
            return False
        return True

    def _stall(self, connection: Connection, body: Mapping[str, Any], options: Options) -> None:
        """Silence, for ever or for a while, after which the reply comes as if nothing had been."""
        if options.stall is None:
            self.stats.began()
            connection.play(iter([Action(math.inf, b"")]), self._ended("stalled", lambda _: None))
        else:
            self._play(connection, body, options.but({"fault": None, "ttft": options.ttft + options.stall}))

    def _play(self, connection: Connection, body: Mapping[str, Any], options: Options) -> None:
        completion = self.brain.complete(body, options)
        plan = Plan(completion, options, self.brain.rng())
        if body.get("stream"):
            usage = bool((body.get("stream_options") or {}).get("include_usage"))
            actions = plan.stream(include_usage=usage)
        else:
            actions = plan.whole()

        def book(playback: Playback) -> None:
            served = completion.completion_tokens if plan.reported else playback.tokens
            self.stats.book(completion.model, completion.prompt_tokens, served, reported=plan.reported)

        self.stats.began()
        connection.play(actions, self._ended(completion.ident, book))

    def _ended(self, ident: str, book: Callable[[Playback], None]) -> Callable[[Playback, bool], None]:
        def ended(playback: Playback, whole: bool) -> None:
            stats = self.stats
            stats.active -= 1
            stats.chunks += playback.chunks
            stats.finished += whole
            if not whole and not playback.cut:
                stats.gone(ident, playback.chunks, playback.tokens)
            book(playback)

        return ended

    def _refuse(
        self,
        connection: Connection,
        status: int,
        reason: str,
        message: str,
        kind: str,
        code: str | None,
        retry_after: float | None = None,
    ) -> None:
        self.stats.refused += 1
        headers = {} if retry_after is None else {"Retry-After": f"{retry_after:g}"}
        connection.reply(response(status, reason, error_body(message, kind, code), headers))

    def _list_models(self, connection: Connection, request: Request) -> None:
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "dspy-live"} for name in self._models]
        self._json(connection, {"object": "list", "data": data})

    def _control(self, change: Callable[..., None], connection: Connection, request: Request) -> None:
        """Call what a control route changes with the fields of the body."""
        try:
            change(**orjson.loads(request.body or b"{}"))
        except (ValueError, TypeError) as exc:
            self._refuse(connection, 400, "Bad Request", str(exc), "invalid_request_error", None)
        else:
            self._json(connection, {"ok": True})

    def _json(self, connection: Connection, value: Any) -> None:
        connection.reply(response(200, "OK", orjson.dumps(value)))
