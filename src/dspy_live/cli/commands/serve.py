"""``dspy-live serve``: programs over HTTP, SSE and WebSocket."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Group, Parameter

from dspy_live.cli.flags import ProgramFlags
from dspy_live.cli.observers import ObserveFlags
from dspy_live.core.errors import ConfigurationError
from dspy_live.loading.lm_settings import load_dotenv

if TYPE_CHECKING:
    import socket

    from dspy_live.cli.serve_options import ServeOptions
    from dspy_live.loading.config.read import ConfigFile

_KEYS = "DSPY_LIVE_KEYS"
MOST_WORKERS = 1024
"""Processes of one server at most: a slip of the finger must not fill the machine."""

_ADDRESS, _KEY, _TLS, _RUNS, _END, _SHOWN, _MANY = (
    Group(name, sort_key=number)
    for number, name in enumerate(
        ("Address", "Keys", "TLS", "Runs and sessions", "Ending", "Pages and log", "Processes and replicas")
    )
)


def serve(
    *targets: str,
    host: Annotated[str | None, Parameter(group=_ADDRESS)] = None,
    port: Annotated[int | None, Parameter(group=_ADDRESS)] = None,
    key: Annotated[tuple[str, ...], Parameter(group=_KEY, negative="", negative_iterable="")] = (),
    key_store: Annotated[Path | None, Parameter(group=_KEY)] = None,
    no_auth: Annotated[bool, Parameter(group=_KEY, negative="")] = False,
    origin: Annotated[tuple[str, ...], Parameter(group=_ADDRESS, negative="", negative_iterable="")] = (),
    root_path: Annotated[str, Parameter(group=_ADDRESS)] = "",
    forwarded_allow_ips: Annotated[tuple[str, ...], Parameter(group=_ADDRESS, negative="", negative_iterable="")] = (),
    tls_cert: Annotated[Path | None, Parameter(group=_TLS)] = None,
    tls_key: Annotated[Path | None, Parameter(group=_TLS)] = None,
    tls_password_file: Annotated[Path | None, Parameter(group=_TLS)] = None,
    max_active: Annotated[int | None, Parameter(group=_RUNS)] = None,
    max_body: Annotated[int | None, Parameter(group=_RUNS)] = None,
    drain: Annotated[float | None, Parameter(group=_END)] = None,
    lame_duck: Annotated[float | None, Parameter(group=_END)] = None,
    ready_lm: Annotated[float | None, Parameter(group=_ADDRESS)] = None,
    grace: Annotated[float | None, Parameter(group=_RUNS)] = None,
    keep_runs: Annotated[float | None, Parameter(group=_RUNS)] = None,
    sessions: Annotated[str | None, Parameter(group=_RUNS)] = None,
    title: Annotated[str | None, Parameter(group=_SHOWN)] = None,
    playground: Annotated[bool | None, Parameter(group=_SHOWN)] = None,
    access_log: Annotated[bool | None, Parameter(group=_SHOWN)] = None,
    access_log_rate: Annotated[float | None, Parameter(group=_SHOWN)] = None,
    reload: Annotated[bool, Parameter(group=_MANY, negative="")] = False,
    workers: Annotated[int | None, Parameter(group=_MANY)] = None,
    on: Annotated[Literal["ray"] | None, Parameter(group=_MANY)] = None,
    replicas: Annotated[str | None, Parameter(group=_MANY)] = None,
    runs_per_replica: Annotated[int | None, Parameter(group=_MANY)] = None,
    flags: ProgramFlags | None = None,
    observe: ObserveFlags | None = None,
) -> int:
    """Serve programs over HTTP, server-sent events, WebSocket and OpenAI's API, with a playground.

    Everything can also stand in a file: --config FILE, or dspy-live.toml in the working folder; `dspy-live init` writes
    one. A flag goes before the file, and targets before the file's programs; one that the file names brings its LM and
    its layers along.

    Args:
        targets: file.py:object, package.module:object, a saved program's folder or 'question -> answer'; NAME=TARGET
            gives it a name; or a program's name in the file. The first is behind /predict, each at /programs/NAME.
        host: address to listen on, 127.0.0.1 by default; another than loopback needs keys or --no-auth, and a real LM
            or --sim.
        port: port to listen on, 8000 by default; 0 takes a free one.
        key: a key that clients must send, as KEY or NAME=KEY; may be given several times. DSPY_LIVE_KEYS (separated
            by commas) keeps keys out of the list of processes.
        key_store: the file of the keys that `dspy-live keys` makes; keys.db beside the configuration by default, else
            in ~/.dspy_live. It counts where it is there.
        no_auth: serve another address than loopback without keys.
        origin: another origin whose pages may ask, * for any; may be given several times.
        root_path: the path below which a proxy shows the server, such as /qa; links begin with it.
        forwarded_allow_ips: a proxy's address or network, several separated by commas, whose X-Forwarded-For, -Proto,
            -Host and -Prefix count; may be given several times.
        tls_cert: a certificate chain in PEM; the server then speaks TLS, and reads the file again at SIGHUP.
        tls_key: its private key in PEM; by default it is in the same file.
        tls_password_file: a file with the password of an encrypted key.
        max_active: the most runs at once; further ones get 503.
        max_body: the largest request, in bytes; 16 MB by default.
        drain: seconds that running calls have after SIGTERM or Ctrl-C; 30 by default.
        lame_duck: seconds after SIGTERM in which readiness is off and requests are still served; 5 by default, none on
            a terminal, with --reload and after Ctrl-C.
        ready_lm: make readiness depend on the LM, which is then asked at most once in so many seconds: an
            OpenAI-compatible one for its list of models, another one for one token.
        grace: seconds that a run of POST /runs goes on with nobody reading it; 30 by default.
        keep_runs: seconds that a run of POST /runs can be read again after its end; 300 by default.
        sessions: where conversations are kept: a file, postgresql://…, redis://… or memory; by default the store of the
            configuration file, else DSPY_LIVE_SESSIONS, else sessions.db in ~/.dspy_live.
        access_log: log a line for each request, which is the default.
        access_log_rate: the share of requests that are logged, over 0 and at most 1; those that fail are logged all.
        title: shown in the playground and the API's documentation.
        playground: show the pages for people, / and /docs; they are on by default.
        reload: start again when a Python file below the working folder changes.
        workers: processes that serve; 1 by default. More use more cores: SIGHUP then replaces them one after the other.
        on: ray serves with replicas on Ray, on the cluster of RAY_ADDRESS or on one of this machine that ends with the
            command; SIGHUP renews them. Needs dspy-live[ray].
        replicas: with --on ray, how many replicas, or MIN:MAX; 1 by default.
        runs_per_replica: with --replicas MIN:MAX, the runs under way for which there is one replica; 100 by default.
    """
    flags = flags or ProgramFlags()
    load_dotenv(Path(".env"), os.environ)
    from dspy_live.cli.serve_options import LAME_DUCK, ServeOptions, app_options, read_file, seconds, tls_options
    from dspy_live.loading.config.read import find_config
    from dspy_live.server.option_names import as_flag
    from dspy_live.server.transport.serve import on_terminal

    config = find_config(flags.config)
    file = read_file(config)
    table = file.config.server
    proxies = [each.strip() for given in forwarded_allow_ips for each in given.split(",") if each.strip()]
    app = app_options(
        file,
        {
            "origins": origin,
            "root_path": root_path,
            "forwarded_allow_ips": tuple(proxies),
            "max_body": max_body,
            "grace": grace,
            "ready_lm": ready_lm,
            "keep_runs": keep_runs,
            "sessions": sessions,
            "title": title,
            "playground": playground,
            "access_log": access_log,
            "access_log_rate": access_log_rate,
        },
    )
    options = ServeOptions(
        targets,
        flags,
        config,
        host=host or table.host or "127.0.0.1",
        port=port if port is not None else table.port if table.port is not None else 8000,
        keys=_keys(key, os.environ.get(_KEYS, "")),
        key_store=key_store,
        app=app | {"option_name": as_flag},
        observe=observe or ObserveFlags(),
        drain=seconds("--drain", drain, table.drain, 30.0),
        lame_duck=seconds("--lame-duck", lame_duck, table.lame_duck, 0.0 if reload or on_terminal() else LAME_DUCK),
        tls=tls_options(file, tls_cert, tls_key, tls_password_file),
        sim=flags.sim or table.sim,
        max_active=max_active if max_active is not None else table.max_active,
        timeout=flags.timeout,
        no_auth=no_auth or bool(table.no_auth),
    )
    if on is not None or replicas is not None or runs_per_replica is not None:
        return _serve_on_ray(options, file, (on, replicas, runs_per_replica), workers, reload)
    size = workers if workers is not None else table.workers or 1
    if size != 1:
        return _serve_with_workers(options, file, size, sessions, reload)
    check_address(options, file)
    return _serve(options, reload)


def _serve_on_ray(
    options: ServeOptions,
    file: ConfigFile,
    given: tuple[str | None, str | None, int | None],
    workers: int | None,
    reload: bool,
) -> int:
    import signal

    from dspy_live.cli.on_ray.cluster import check_ray
    from dspy_live.cli.on_ray.replicas import replicas_of
    from dspy_live.cli.on_ray.serving import serve_on_ray

    on, replicas, runs_per_replica = given
    if on is None:
        raise ConfigurationError("--replicas and --runs-per-replica are Ray's: give --on ray too, or --workers")
    if reload or workers is not None:
        raise ConfigurationError("--on ray has replicas of its own: give it without --workers and --reload")
    many = replicas_of(replicas, runs_per_replica)
    check_ray()
    check_address(options, file)
    if serve_on_ray(options, many) is signal.SIGINT:
        raise KeyboardInterrupt  # a shell that runs a script must see what ended it
    return 0


def _serve_with_workers(options: ServeOptions, file: ConfigFile, size: int, sessions: str | None, reload: bool) -> int:
    import signal

    from dspy_live.cli.workers.per_worker import told
    from dspy_live.cli.workers.supervisor import serve_with_workers
    from dspy_live.loading.config.store import store_of

    if not 1 <= size <= MOST_WORKERS:
        raise ConfigurationError(f"--workers must be 1 to {MOST_WORKERS}; got {size}")
    if reload:
        raise ConfigurationError("--reload starts one process again and again: give it without --workers")
    notice = told(
        size,
        file,
        max_active=options.max_active,
        sessions=sessions,
        store=store_of(file),
        key_store=options.key_store,
    )
    if serve_with_workers(options, size, notice) is signal.SIGINT:
        raise KeyboardInterrupt  # a shell that runs a script must see what ended it
    return 0


def _serve(options: ServeOptions, reload: bool) -> int:
    from dspy_live.cli.server_process import serve_process
    from dspy_live.server.transport.address import listen

    sockets = [listen(options.host, options.port)]
    try:
        if reload:
            _reloading(options, sockets)
        else:
            serve_process(options, sockets)
    finally:
        for listener in sockets:
            listener.close()
    return 0


def check_address(options: ServeOptions, file: ConfigFile) -> None:
    """Refuse another address than loopback without keys, or with the simulated LM, where nobody has asked for that."""
    from dspy_live.cli.server_process import has_keys, open_served
    from dspy_live.server.transport.address import is_loopback

    if is_loopback(options.host):
        return
    if not options.no_auth and not has_keys(options, file):
        raise ConfigurationError(
            f"{options.host} can be reached from elsewhere: give --key (or {_KEYS}), make one with `dspy-live keys "
            "create`, or give --no-auth to serve without keys"
        )
    if not options.sim and any(program.ready.lm.simulated for program in open_served(options, file).values()):
        raise ConfigurationError(
            f"no LM is configured, and {options.host} can be reached from elsewhere: name an LM, or give --sim to "
            "serve simulated answers there"
        )


def _keys(given: tuple[str, ...], variable: str) -> dict[str, str]:
    if any(not item.strip() for item in given):
        raise ConfigurationError("--key is empty: everybody could ask; leave it out if that is meant")
    keys: dict[str, str] = {}
    for item in (*given, *(part.strip() for part in variable.split(","))):
        if not item:
            continue
        name, _, key = item.partition("=")
        if not key.strip("="):  # no name stands before it: base64 ends in such signs
            name, key = f"key{len(keys) + 1}", item
        if name in keys:
            raise ConfigurationError(f"two keys are called {name!r}: give each a name of its own, NAME=KEY")
        keys[name] = key
    return keys


def _reloading(options: ServeOptions, sockets: list[socket.socket]) -> None:
    from functools import partial
    from pathlib import Path

    import uvicorn
    from uvicorn.supervisors import ChangeReload
    from uvicorn.supervisors.statreload import StatReload

    from dspy_live.cli.reload import ReloadFromTheStart
    from dspy_live.cli.server_process import serve_again

    config = uvicorn.Config("unused:unused", reload=True, reload_dirs=[str(Path.cwd())], log_level="warning")
    supervisor = ReloadFromTheStart if ChangeReload is StatReload else ChangeReload  # the other one where watchfiles is
    supervisor(config, target=partial(serve_again, options), sockets=sockets).run()
