"""A server's process: open the programs, build the application, run it until it is told to stop."""

from __future__ import annotations

import re
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import closing

from dspy_live.cli.colours import coloured
from dspy_live.cli.observers import Observers, observe
from dspy_live.cli.open_program import how_to_name_one, settings_of
from dspy_live.cli.serve_options import ServeOptions
from dspy_live.core.errors import ConfigurationError, LiveError
from dspy_live.layers.budget import Budget
from dspy_live.loading.app import serve_services
from dspy_live.loading.ask_lm import asker_of
from dspy_live.loading.config.keys import ServerKeys, key_store_path
from dspy_live.loading.config.layers import LayerMaker
from dspy_live.loading.config.open import UNNAMED, OpenedProgram, located, named, open_programs
from dspy_live.loading.config.read import ConfigFile
from dspy_live.loading.config.sessions import sessions_of
from dspy_live.loading.config.shape import ProgramTable
from dspy_live.loading.config.store import store_of
from dspy_live.loading.descriptors import spare_descriptors
from dspy_live.server import App, create_app
from dspy_live.server.transport.serve import serve

ServeApp = Callable[[Mapping[str, OpenedProgram], App, ServeOptions, ServerKeys, list[socket.socket]], None]

_NAMED = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.-]*)=(.+)\Z", re.DOTALL)
_DESCRIPTORS = 65_536
"""A stream holds two sockets, its client's and its LM's: the usual 1024 are spent by 500 of them."""


def serve_process(
    options: ServeOptions, sockets: list[socket.socket] | None = None, serve_app: ServeApp | None = None
) -> None:
    """Serve until SIGINT or SIGTERM. Raises :class:`ConfigurationError` when a program can't be opened.

    ``serve_app`` runs the application in place of this process's own way, which has the signals: for a worker, which
    has a supervisor.
    """
    file = options.file()
    with closing(_open_keys(options, file)) as keys:
        programs = open_served(options, file, keys.keep)
        limit = _raise_descriptor_limit()
        with closing(observe(options.observe, file)) as observers:
            spare_descriptors(limit)
            app = make_app(programs, options, file, observers, keys)
            (serve_app or _serve)(programs, app, options, keys, sockets or [])


def _serve(
    programs: Mapping[str, OpenedProgram],
    app: App,
    options: ServeOptions,
    keys: ServerKeys,
    sockets: list[socket.socket],
) -> None:
    text = banner(programs, base_url(options.host, sockets[0], tls=bool(options.tls)), options, keys)
    ended_by = serve(
        app,
        drain=options.drain,
        lame_duck=options.lame_duck,
        sockets=sockets,
        on_ready=lambda _: print(text, flush=True),
        on_hangup=keys.reload,
        **options.tls,
    )
    if ended_by is signal.SIGINT:
        raise KeyboardInterrupt  # a shell that runs a script must see what ended it


def _open_keys(options: ServeOptions, file: ConfigFile) -> ServerKeys:
    return ServerKeys(file, options.keys, key_store_path(file, options.key_store), store_of(file))


def has_keys(options: ServeOptions, file: ConfigFile) -> bool:
    """True where the server would ask for a key."""
    with closing(_open_keys(options, file)) as keys:
        return bool(keys.keys)


def _raise_descriptor_limit() -> int:
    """Let the process open as many files as it may, and return how many those are."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return _DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError):  # macOS has a lower limit of its own
            return soft
        return wanted
    return _DESCRIPTORS if soft == resource.RLIM_INFINITY else soft


def serve_again(options: ServeOptions, sockets: list[socket.socket] | None = None) -> None:
    """Serve in the process of ``--reload``: what is wrong is told in one line, and the next change is waited for."""
    try:
        serve_process(options, sockets)
    except LiveError as exc:
        print(f"dspy-live: {exc.message}", file=sys.stderr)
        sys.exit(2)


def open_served(
    options: ServeOptions, file: ConfigFile, keep: Callable[[Budget], object] = lambda budget: None
) -> dict[str, OpenedProgram]:
    """Open every program, by its name: those of the command line, else those of the file.

    ``keep`` is told of each budget that outlives the process. Raises :class:`ConfigurationError` for what can't be
    opened.
    """
    flags = options.flags
    if flags.timeout is not None and not flags.timeout > 0:
        raise ConfigurationError(f"--timeout takes a positive number of seconds; got {flags.timeout:g}")
    opened = open_programs(
        file,
        _of_targets(options, file) if options.targets else _of_file(options, file),
        settings_of(flags, file, simulate=options.sim),
        LayerMaker(store_of(file), keep),
        one_lm=options.sim or bool(flags.lm),
    )
    return named(opened)


def _of_targets(options: ServeOptions, file: ConfigFile) -> dict[str, ProgramTable]:
    """Return the programs of the command line; one that the file has too, by its name or its target, is the file's."""
    flags, tables = options.flags, {}
    in_file = {table.target: name for name, table in reversed(file.config.programs.items())}
    for number, target in enumerate(options.targets):
        match = _NAMED.match(target) if "->" not in target.partition("=")[0] else None
        name, plain = (match[1], match[2]) if match else (f"{UNNAMED}{number}", target)
        known = plain if plain in file.config.programs else in_file.get(plain)
        if known is not None and flags.state is None:
            name = known if name.startswith(UNNAMED) else name
        if name in tables:
            raise ConfigurationError(f"two programs are called {name!r}; name them apart: first={plain} second=…")
        if known is not None and flags.state is None:
            tables[name] = located(file, file.config.programs[known])
            continue
        tables[name] = ProgramTable(
            target=plain,
            state=str(flags.state) if flags.state is not None else None,
            allow_pickle=flags.allow_pickle,
            execution=flags.execution,
        )
    return tables


def _of_file(options: ServeOptions, file: ConfigFile) -> Mapping[str, ProgramTable]:
    if not file.config.programs:
        found = f"{file.path} has no table [programs.NAME]" if file.path is not None else "there is no dspy-live.toml"
        raise ConfigurationError(
            f"no program to serve: give file.py:object, package.module:object or 'question -> answer'; {found} "
            "(dspy-live init writes one)"
        )
    if options.flags.state is not None:
        raise ConfigurationError("--state needs a target; in the file it is a key of the program's table")
    return {name: located(file, table) for name, table in file.config.programs.items()}


def make_app(
    programs: Mapping[str, OpenedProgram],
    options: ServeOptions,
    file: ConfigFile,
    observers: Observers,
    keys: ServerKeys,
) -> App:
    """Return the application that serves the programs."""
    timeout = options.timeout if options.timeout is not None else file.config.server.timeout
    own = {name: one.deadline for name, one in programs.items() if one.deadline is not None}
    served = serve_services(
        {name: program.ready.service for name, program in programs.items()},
        options.max_active,
        timeout,
        deadlines=own if options.timeout is None else {},
        hold_text=[name for name, program in programs.items() if program.hold_text],
        simulated=[name for name, program in programs.items() if program.ready.lm.simulated],
    )
    more = observers.options() | dict(options.app)
    if more.get("ready_lm") is not None:
        more["ask_lm"] = asker_of(program.ready.service for program in programs.values())
    more["sessions"] = sessions_of(more.get("sessions"), file, served.values())
    shared = store_of(file)
    more["shared_runs"] = None if shared is None else shared.shared_runs()
    app = create_app(served, api_keys=keys.keys, drain=options.drain, **more)
    if observers.metrics is not None:
        observers.metrics.watch("server", app.runs)
    return app


def base_url(host: str, listener: socket.socket, *, tls: bool = False) -> str:
    """Return where a browser on this machine finds the server."""
    port = listener.getsockname()[1]
    host = host.strip("[]")
    url_host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"{'https' if tls else 'http'}://{url_host}:{port}"


def banner(programs: Mapping[str, OpenedProgram], url: str, options: ServeOptions, keys: ServerKeys) -> str:
    """Return what a starting server prints: its addresses, its programs, their LMs."""
    rows = []
    for name, program in programs.items():
        schema = program.ready.schema
        inputs = ", ".join(f.name for f in schema.inputs) or "…"
        outputs = ", ".join(f.name if f.is_text else f"{f.name}: {f.type}" for f in schema.outputs) or "…"
        rows.append((name, f"{inputs} -> {outputs}"))
    labels = dict.fromkeys(program.ready.lm.label for program in programs.values())
    rows.append(("LM", "; ".join(labels)))
    if any(program.ready.lm.simulated for program in programs.values()):
        made_up = f"SIMULATED: every answer is made up; {how_to_name_one()}"
        rows.append(("", coloured(made_up, "yellow", sys.stdout)))
    rows.append(("keys", keys.told()))
    if options.config is not None:
        rows.append(("configuration", str(options.config)))
    width = max(len(label) for label, _ in rows)
    lines = [f"  {label:<{width}}   {text}" for label, text in rows]
    pages = f"playground; {url}/docs for the API; " if options.app.get("playground", True) else ""
    return "\n".join((f"dspy-live serves {url}/   ({pages}Ctrl-C ends it)", *lines))
