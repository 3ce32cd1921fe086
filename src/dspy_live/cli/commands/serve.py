"""``dspy-live serve``: programs over HTTP, SSE and WebSocket."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from dspy_live.cli.flags import ProgramFlags
from dspy_live.cli.observers import ObserveFlags
from dspy_live.core.errors import ConfigurationError
from dspy_live.loading.lm_settings import load_dotenv

if TYPE_CHECKING:
    import socket

    from dspy_live.cli.server_process import ServeOptions

_KEYS = "DSPY_LIVE_KEYS"

LAME_DUCK = 5.0
"""Seconds of ``--lame-duck`` where nobody sits at a terminal: balancers ask for readiness every 2 to 5 seconds."""


def serve(
    target: str,
    /,
    *more: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    key: Annotated[tuple[str, ...], Parameter(negative="", negative_iterable="")] = (),
    no_auth: Annotated[bool, Parameter(negative="")] = False,
    origin: Annotated[tuple[str, ...], Parameter(negative="", negative_iterable="")] = (),
    max_active: int | None = None,
    max_body: int = 16 << 20,
    drain: float = 30.0,
    lame_duck: float | None = None,
    grace: float = 30.0,
    title: str = "dspy-live",
    access_log: bool = True,
    access_log_rate: float = 1.0,
    reload: Annotated[bool, Parameter(negative="")] = False,
    flags: ProgramFlags | None = None,
    observe: ObserveFlags | None = None,
) -> int:
    """Serve programs over HTTP, server-sent events, WebSocket and OpenAI's API, with a playground.

    Args:
        target: file.py:object, package.module:object, a saved program's folder or 'question -> answer'; NAME=TARGET
            gives it a name.
        more: further programs, at /programs/NAME.
        host: address to listen on; another than loopback needs keys or --no-auth, and a real LM or --sim.
        port: port to listen on; 0 takes a free one.
        key: a key that clients must send, as KEY or NAME=KEY; may be given several times. DSPY_LIVE_KEYS (separated
            by commas) keeps keys out of the list of processes.
        no_auth: serve another address than loopback without keys.
        origin: another origin whose pages may ask, * for any; may be given several times.
        max_active: the most runs at once; further ones get 503.
        max_body: the largest request, in bytes.
        drain: seconds that running calls have after SIGTERM or Ctrl-C.
        lame_duck: seconds after SIGTERM in which readiness is off and requests are still served; 5 by default, none on
            a terminal, with --reload and after Ctrl-C.
        grace: seconds that a run of POST /runs goes on with nobody reading it.
        access_log: log a line for each request.
        access_log_rate: the share of requests that are logged, over 0 and at most 1; those that fail are logged all.
        title: shown in the playground and the API's documentation.
        reload: start again when a Python file below the working folder changes.
    """
    flags = flags or ProgramFlags()
    load_dotenv(Path(".env"), os.environ)
    keys = _keys(key, os.environ.get(_KEYS, ""))
    from dspy_live.server.transport.address import is_loopback, listen

    loopback = is_loopback(host)
    if not loopback and not keys and not no_auth:
        raise ConfigurationError(
            f"{host} can be reached from elsewhere: give --key (or {_KEYS}), or --no-auth to serve without keys"
        )

    from dspy_live.cli.server_process import ServeOptions, open_programs, serve_process
    from dspy_live.server.transport.serve import on_terminal

    app = {"origins": origin, "max_active": max_active, "max_body": max_body, "grace": grace, "title": title}
    app["access_log"] = access_log_rate if access_log else 0.0
    if not 0 < access_log_rate <= 1:
        raise ConfigurationError(f"--access-log-rate must be over 0 and at most 1; got {access_log_rate:g}")
    for name, value in (("--drain", drain), ("--lame-duck", lame_duck)):
        if value is not None and not value >= 0:
            raise ConfigurationError(f"{name} must be 0 or more seconds; got {value:g}")
    if lame_duck is None:
        lame_duck = 0.0 if reload or on_terminal() else LAME_DUCK
    options = ServeOptions((target, *more), flags, host, keys, app, observe or ObserveFlags(), drain, lame_duck)
    if not loopback and not flags.sim and any(program.lm.simulated for program in open_programs(options).values()):
        raise ConfigurationError(
            f"no LM is configured, and {host} can be reached from elsewhere: name an LM, or give --sim to serve "
            "simulated answers there"
        )
    sockets = [listen(host, port)]
    try:
        if reload:
            _reloading(options, sockets)
        else:
            serve_process(options, sockets)
    finally:
        for listener in sockets:
            listener.close()
    return 0


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

    from dspy_live.cli.server_process import serve_again

    config = uvicorn.Config("unused:unused", reload=True, reload_dirs=[str(Path.cwd())], log_level="warning")
    ChangeReload(config, target=partial(serve_again, options), sockets=sockets).run()
