"""A server's process: open the programs, build the application, run it until it is told to stop."""

from __future__ import annotations

import re
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dspy_live.cli.flags import ProgramFlags
from dspy_live.cli.observers import ObserveFlags, Observers, observe
from dspy_live.cli.open_program import how_to_name_one, open_program
from dspy_live.core.errors import ConfigurationError, LiveError
from dspy_live.loading.app import serve_services
from dspy_live.loading.open_program import ReadyProgram
from dspy_live.server import App, create_app
from dspy_live.server.served import is_name
from dspy_live.server.transport.serve import serve

_NAMED = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.-]*)=(.+)\Z", re.DOTALL)
_DESCRIPTORS = 65_536
"""A stream holds two sockets, its client's and its LM's: the usual 1024 are spent by 500 of them."""


@dataclass(frozen=True)
class ServeOptions:
    """The options of a server's process; the process of ``--reload`` gets them too."""

    targets: tuple[str, ...]
    flags: ProgramFlags
    host: str
    keys: Mapping[str, str]
    app: Mapping[str, Any] = field(default_factory=dict)
    observe: ObserveFlags = field(default_factory=ObserveFlags)
    drain: float = 30.0
    lame_duck: float = 0.0


def serve_process(options: ServeOptions, sockets: list[socket.socket] | None = None) -> None:
    """Serve until SIGINT or SIGTERM. Raises :class:`ConfigurationError` when a program can't be opened."""
    programs = open_programs(options)
    _raise_descriptor_limit()
    observers = observe(options.observe)
    try:
        _serve(programs, make_app(programs, options, observers), options, sockets or [])
    finally:
        observers.close()


def _serve(programs: Mapping[str, ReadyProgram], app: App, options: ServeOptions, sockets: list[socket.socket]) -> None:
    text = banner(programs, base_url(options.host, sockets[0]), options)
    ended_by = serve(
        app,
        drain=options.drain,
        lame_duck=options.lame_duck,
        sockets=sockets,
        on_ready=lambda _: print(text, flush=True),
    )
    if ended_by is signal.SIGINT:
        raise KeyboardInterrupt  # a shell that runs a script must see what ended it


def _raise_descriptor_limit() -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError):  # macOS has a lower limit of its own
            return


def serve_again(options: ServeOptions, sockets: list[socket.socket] | None = None) -> None:
    """Serve in the process of ``--reload``: what is wrong is told in one line, and the next change is waited for."""
    try:
        serve_process(options, sockets)
    except LiveError as exc:
        print(f"dspy-live: {exc.message}", file=sys.stderr)
        sys.exit(2)


def open_programs(options: ServeOptions) -> dict[str, ReadyProgram]:
    """Open every target, by its name. Two of one name are a :class:`ConfigurationError`."""
    programs: dict[str, ReadyProgram] = {}
    for target in options.targets:
        match = _NAMED.match(target) if "->" not in target.partition("=")[0] else None
        given, plain = (match[1], match[2]) if match else ("", target)
        program = open_program(plain, options.flags, served=True, pin=len(options.targets) > 1)
        name = given or program.loaded.name
        if not is_name(name):
            raise ConfigurationError(f"{name!r} can't stand in an address; give the program another name: NAME={plain}")
        if name in programs:
            raise ConfigurationError(f"two programs are called {name!r}; name them apart: first={plain} second=…")
        programs[name] = program
    return programs


def make_app(programs: Mapping[str, ReadyProgram], options: ServeOptions, observers: Observers) -> App:
    """Return the application that serves the programs."""
    more = dict(options.app)
    served = serve_services(
        {name: program.service for name, program in programs.items()},
        more.pop("max_active", None),
        options.flags.timeout,
        simulated=[name for name, program in programs.items() if program.lm.simulated],
    )
    app = create_app(served, api_keys=options.keys, drain=options.drain, **observers.options(), **more)
    observers.metrics.watch("server", app.runs)
    return app


def base_url(host: str, listener: socket.socket) -> str:
    """Return where a browser on this machine finds the server."""
    port = listener.getsockname()[1]
    host = host.strip("[]")
    url_host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{url_host}:{port}"


def banner(programs: Mapping[str, ReadyProgram], url: str, options: ServeOptions) -> str:
    """Return what a starting server prints: its addresses, its programs, their LMs."""
    lines = []
    for name, program in programs.items():
        inputs = ", ".join(f.name for f in program.schema.inputs) or "…"
        outputs = ", ".join(f.name if f.is_text else f"{f.name}: {f.type}" for f in program.schema.outputs) or "…"
        lines.append(f"  {name}   {inputs} -> {outputs}")
    labels = dict.fromkeys(program.lm.label for program in programs.values())
    lines.append(f"  LM   {'; '.join(labels)}")
    if any(program.lm.simulated for program in programs.values()):
        lines.append(f"  SIMULATED: every answer is made up; {how_to_name_one()}")
    lines.append(f"  keys   {len(options.keys) or 'none asked for'}")
    return "\n".join((f"dspy-live serves {url}/   (playground; {url}/docs for the API; Ctrl-C ends it)", *lines))
