"""The ASGI application: it finds the route, asks for the key, and turns every failure into a reply."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp, Receive, Scope, Send

from dspy_live.core.errors import ConfigurationError, NotFound, Stop
from dspy_live.core.service import Layer
from dspy_live.layers.shed import Shed
from dspy_live.server.access_log import AccessLog
from dspy_live.server.errors import ClientGone, Forbidden, chat_error_object, public_error
from dspy_live.server.lm_watch import LMWatch
from dspy_live.server.option_names import OptionName, as_argument
from dspy_live.server.routes import (
    agui,
    health,
    mcp,
    openai,
    openapi,
    predict,
    programs,
    responses,
    runs,
    sessions,
    static,
    statistics,
    stream,
    ui_chat,
    websocket,
)
from dspy_live.server.runs.kept_runs import KeptRuns
from dspy_live.server.runs.registry import RunRegistry
from dspy_live.server.served import ServedProgram, by_name, find, layered, layers_of, shed_of
from dspy_live.server.sessions import Sessions, SessionStore
from dspy_live.server.transport.auth import Keys
from dspy_live.server.transport.heartbeat import Pulse
from dspy_live.server.transport.http import Headers, Request
from dspy_live.server.transport.origins import Origins
from dspy_live.server.transport.proxies import TOLD_PREFIX, Proxies, below_prefix, checked_prefix, is_below
from dspy_live.server.transport.routing import Route, Router

if TYPE_CHECKING:
    from dspy_live.server.runs.shared.shared_runs import SharedRuns
    from dspy_live.server.workers.siblings import Siblings

MAX_BODY = 10_000_000
KEEP_RUNS = 300.0
_WEBSOCKET = re.compile(r"(?:/programs/(?P<program>[^/]+))?/ws")


def _routes(playground: bool = True) -> list[Route]:
    pages = [
        Route("GET", "/", static.playground, open=True),
        Route("GET", "/docs", static.docs, open=True),
        Route("GET", "/static/{file}", static.asset, open=True),
    ]
    per_program = [
        Route("POST", "/predict", predict.predict),
        Route("POST", "/predict/stream", stream.predict_stream),
        Route("POST", "/runs", runs.create),
        Route("POST", "/ui/chat", ui_chat.ui_chat),
        Route("GET", "/ui/chat/{id}/stream", ui_chat.resume),
        Route("POST", "/agui", agui.agui),
    ]
    return [
        *per_program,
        *(Route(r.method, "/programs/{program}" + r.path, r.handler) for r in per_program),
        Route("GET", "/runs/{id}/events", runs.events, query_key=True, of_run=True),
        Route("GET", "/runs/{id}", runs.show, of_run=True),
        Route("DELETE", "/runs/{id}", runs.cancel, of_run=True),
        Route("POST", "/runs/{id}/stop", runs.cancel, of_run=True),
        Route("GET", "/programs", programs.index),
        Route("GET", "/programs/{program}", programs.show),
        Route("POST", "/v1/chat/completions", openai.chat_completions, error_object=chat_error_object),
        Route("POST", "/v1/responses", responses.responses, error_object=chat_error_object),
        Route("GET", "/v1/models", openai.models, error_object=chat_error_object),
        Route("GET", "/v1/models/{program}", openai.model, error_object=chat_error_object),
        Route("POST", "/mcp", mcp.mcp, error_object=mcp.rpc_error_object),
        Route("DELETE", "/mcp", mcp.leave, error_object=mcp.rpc_error_object),
        Route("GET", "/sessions", sessions.index),
        Route("GET", "/sessions/{id}", sessions.show),
        Route("DELETE", "/sessions/{id}", sessions.delete),
        Route("GET", "/metrics", statistics.metrics, wants=("metrics",)),
        Route("GET", "/stats", statistics.stats, wants=("metrics",)),
        Route("GET", "/usage", statistics.usage, wants=("run", "usage")),
        Route("GET", "/openapi.json", openapi.document),
        Route("GET", "/health/live", health.live, open=True),
        Route("GET", "/health/ready", health.ready, open=True),
        *(pages if playground else ()),
    ]


class App:
    """The server's ASGI application; :func:`create_app` says what its arguments mean."""

    def __init__(
        self,
        programs: dict[str, ServedProgram],
        *,
        keys: Keys,
        origins: Origins,
        runs: RunRegistry,
        max_body: int,
        body_timeout: float,
        drain: float,
        grace: float,
        heartbeat: float,
        metrics: Callable[[], bytes] | None,
        usage: Callable[[Mapping[str, str]], Any] | None,
        simulated: bool,
        title: str,
        access_log: AccessLog | None,
        sessions: Sessions,
        root_path: str = "",
        proxies: Sequence[str] = (),
        keep_runs: float = KEEP_RUNS,
        shared_runs: SharedRuns | None = None,
        playground: bool = True,
    ) -> None:
        self.programs = programs
        self.default = next(iter(programs.values()))
        self.keys = keys
        self.origins = origins
        self.runs = runs
        self.keep_runs = keep_runs
        self.resumables = KeptRuns()
        self.shared_runs = shared_runs
        """The runs of several servers; ``None`` where this one shares none."""
        self.openapi: dict[str, Any] | None = None
        self.max_body = max_body
        self.body_timeout = body_timeout
        self.drain_seconds = drain
        self.grace = grace
        self.pulse = Pulse(heartbeat)
        self.metrics = metrics
        self.usage = usage
        self.simulated = simulated
        self.title = title
        self.access_log = access_log
        self.sessions = sessions
        self.mcp_calls = mcp.McpCalls()
        self.root_path = checked_prefix(root_path)
        self.proxies = Proxies(self._serve, proxies) if proxies else None
        self.common_headers: Headers = [(b"x-simulated", b"1")] if simulated else []
        self.router = Router(_routes(playground))
        self.siblings: Siblings | None = None
        """The other workers of this server; ``None`` where this process is the whole server."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        await self.entry(scope, receive, send)

    @property
    def entry(self) -> ASGIApp:
        """What :meth:`__call__` calls, for a server that knows this application: it saves each request a frame."""
        return self._serve if self.proxies is None else self.proxies

    def _serve(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if self.root_path and scope["type"] != "lifespan" and not scope.get(TOLD_PREFIX):
            scope = below_prefix(scope, self.root_path)
        if scope["type"] == "http":
            if self.shared_runs is not None:
                self.shared_runs.begin(self)  # mounted in another app, it is not told of a beginning
            return self._http(Request(self, scope, receive, send), self.access_log)
        if scope["type"] == "websocket":
            return self._websocket(scope, receive, send)
        return self._lifespan(receive, send)

    @property
    def layers(self) -> list[Layer]:
        """The layers around the first program, the outermost first; every program has its own ``layers`` list."""
        return list(self.default.layers or ())

    def program(self, request: Request) -> ServedProgram:
        """Return the program that the path names, or the default one."""
        name = request.params.get("program")
        self.keys.check_program(request.key, self.default.name if name is None else name)
        program = self.default if name is None else find(self.programs, name)
        request.program = program.name
        return program

    async def drain(self, seconds: float | None = None) -> None:
        """Take no new runs and wait for the running ones: ``seconds``, by default the app's own ``drain``."""
        await self.runs.drain(self.drain_seconds if seconds is None else seconds)

    async def _http(self, request: Request, access_log: AccessLog | None) -> None:
        scope = request.scope
        method = scope["method"]
        try:
            refusal = self._check_origin(request)
            if method == "OPTIONS" and (request.cors or refusal):
                if refusal is not None:
                    raise refusal
                await request.start(204, self.origins.preflight())
                await request.write(b"", False)
                return
            route, request.params = self.router.find(method, route_path(scope))
            request.error_object = route.error_object
            if not route.open:
                if refusal is not None:
                    raise refusal
                request.key = self.keys.check(scope, query=route.query_key, wants=route.wants)
            if route.of_run and self.siblings is not None and await self.siblings.serve(request):
                return
            name = request.header(runs.CLIENT_RUN_ID) if method == "POST" else None
            if name is None:
                await route.handler(request)
            else:
                with self.runs.called(name, request.run_id, request.key):  # a run is found by its client's name for it
                    await route.handler(request)
        except ClientGone:
            return
        except (Exception, Stop) as exc:
            error = public_error(exc, request.run_id)
            if request.began:
                raise
            await request.reply_error(error)
        finally:
            if access_log is not None:
                access_log.request(request)

    async def serve_forwarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve an HTTP request that another worker has taken; that one logs it."""
        await self._http(Request(self, scope, receive, send), None)

    def _check_origin(self, request: Request) -> Forbidden | None:
        # Open routes give nothing of anybody's, and the page at / must be able to start and to say what is wrong.
        try:
            request.cors = self.origins.check(request.headers)
        except Forbidden as exc:
            return exc
        return None

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        born = time.perf_counter()
        match = _WEBSOCKET.fullmatch(route_path(scope))
        if match is None:
            await receive()
            wrong = NotFound("the WebSocket is at /ws and at /programs/NAME/ws")
            status, key = await websocket.reject(scope, send, wrong), ""
        else:
            status, key = await websocket.websocket(self, scope, receive, send, match["program"])
        if self.access_log is not None:
            self.access_log.socket(scope, status, key, born)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        if self.shared_runs is not None:
            self.shared_runs.begin(self)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.drain(0.0)
        if self.shared_runs is not None:
            await self.shared_runs.aclose()
        await self.sessions.store.aclose()
        await self.runs.lm.close()
        await send({"type": "lifespan.shutdown.complete"})


def route_path(scope: Scope) -> str:
    """Return the path below the mount point and the proxy's prefix."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and is_below(path, root):
        path = path[len(root) :]
    return path or "/"


def create_app(
    programs: Mapping[str, ServedProgram] | ServedProgram,
    *,
    api_keys: Mapping[str, str] | Iterable[str] | Keys = (),
    origins: Sequence[str] = (),
    max_body: int = MAX_BODY,
    body_timeout: float = 30.0,
    max_active: int | None = None,
    timeout: float | None = None,
    layers: Sequence[Layer] | None = None,
    drain: float = 30.0,
    grace: float = 30.0,
    heartbeat: float = 15.0,
    metrics: Callable[[], bytes] | None = None,
    usage: Callable[[Mapping[str, str]], Any] | None = None,
    simulated: bool | None = None,
    title: str | None = None,
    access_log: float = 0.0,
    sessions: Sessions | SessionStore | str | None = None,
    root_path: str = "",
    forwarded_allow_ips: Sequence[str] = (),
    option_name: OptionName = as_argument,
    keep_runs: float = KEEP_RUNS,
    ready_lm: float | None = None,
    ask_lm: Callable[[], Awaitable[object]] | None = None,
    shared_runs: SharedRuns | None = None,
    playground: bool = True,
) -> App:
    """Return the ASGI application that serves ``programs``.

    Args:
        programs: one program, or several by name; the first is the one behind ``/predict``.
        api_keys: key by name, or the keys alone, or a :class:`~dspy_live.server.transport.auth.Keys` with limits for
            each; without any, no key is asked for.
        origins: other origins whose pages may ask (``"*"`` for any); the server's own always may.
        max_body: the largest request body and WebSocket message, in bytes.
        body_timeout: how long a request's body may take to arrive, in seconds.
        max_active: the most runs at once, of all programs together; further ones get 503. ``None``: no limit here.
        timeout: the most seconds that a run may take; a longer one gets 504. ``None``: no limit here.
        layers: what stands around every program, the outermost first, in place of ``Deadline(timeout)``
            and ``Shed(max_active)``. A program with a list of its own keeps that.
        drain: how long running calls may go on after a shutdown has begun, in seconds.
        grace: how long a run of ``POST /runs`` goes on while nobody reads it, in seconds.
        heartbeat: the longest silence on an event stream, in seconds.
        metrics: returns the text of ``/metrics``; by default the server's own counts.
        usage: takes the query parameters of ``/usage`` and returns what it replies; may be a
            coroutine function. Without it ``/usage`` is not found.
        simulated: replies carry ``X-Simulated: 1``; by default when a program says that it is.
        title: shown in the documentation and in the playground; by default the program's name, where there is one.
        access_log: the share of requests that get a line of the logger ``dspy_live.access``, from 0 (none) to 1.
        sessions: where conversations are kept: a ``Sessions``, a store, or the address of one (see
            :func:`dspy_live.server.sessions.open_sessions`); by default this process's memory.
        root_path: the path below which a proxy shows the server, such as ``"/qa"``; links begin with it. A proxy may
            take it off a request's path or leave it there.
        forwarded_allow_ips: addresses and networks of the proxies whose ``X-Forwarded-For``, ``-Proto``, ``-Host`` and
            ``-Prefix`` count; nobody else's do.
        option_name: how errors name these options; by default as arguments.
        keep_runs: how long a run of ``POST /runs`` can be read again after its end, in seconds.
        ready_lm: readiness depends on the LM, which is asked at most this often, in seconds, when readiness is asked
            for. ``None``: readiness tells what the last runs have shown, and does not depend on it.
        ask_lm: returns where the LM is there and raises where it is not; needed with ``ready_lm``.
        shared_runs: where runs of ``POST /runs`` are told, so that other servers find them: a
            :class:`~dspy_live.server.runs.shared.shared_runs.SharedRuns`. ``None``: this process has them for itself.
        playground: show the pages for people, ``/`` and ``/docs``; without them both are not found, as for any other
            unknown path, and ``/openapi.json`` is still there.

    Raises :class:`~dspy_live.core.errors.ConfigurationError` for values that can't work.
    """
    for name, value in (("drain", drain), ("grace", grace), ("keep_runs", keep_runs)):
        if not value >= 0:
            raise ConfigurationError(f"{option_name(name, value)} can't be: it must be 0 or more seconds")
    for name, value in (("max_body", max_body), ("body_timeout", body_timeout), ("heartbeat", heartbeat)):
        if not value > 0:
            raise ConfigurationError(f"{option_name(name, value)} can't be: it must be more than 0")
    if ready_lm is not None and not ready_lm > 0:
        raise ConfigurationError(f"{option_name('ready_lm', ready_lm)} can't be: it must be more than 0 seconds")
    around = layers_of(shed_of(max_active), timeout, layers)
    served = {name: layered(program, around) for name, program in by_name(programs).items()}
    keys = api_keys if isinstance(api_keys, Keys) else Keys(api_keys)
    if keys is api_keys:  # else they have no limits
        served = keys.around(served)
    talks = Sessions.at(sessions)
    served = {name: talks.around(program) for name, program in served.items()}
    first = next(iter(served.values()))
    limits = [layer.active for layer in first.layers or () if isinstance(layer, Shed)]
    return App(
        served,
        keys=keys,
        origins=Origins(origins, option_name),
        runs=RunRegistry(next(iter(limits), None), LMWatch(ready_lm, ask_lm)),
        max_body=max_body,
        body_timeout=body_timeout,
        drain=drain,
        grace=grace,
        heartbeat=heartbeat,
        metrics=metrics,
        usage=usage,
        simulated=any(program.simulated for program in served.values()) if simulated is None else simulated,
        title=title or (first.name if len(served) == 1 else "dspy-live"),
        access_log=AccessLog(access_log) if access_log else None,
        sessions=talks,
        root_path=root_path,
        proxies=forwarded_allow_ips,
        keep_runs=keep_runs,
        shared_runs=shared_runs,
        playground=playground,
    )
