"""A server's process: open the programs, build the application, run it until it is told to stop."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from dspy_live.cli.flags import ProgramFlags
from dspy_live.cli.observers import ObserveFlags, Observers, observe
from dspy_live.cli.open_program import Opened, how_to_name_one, open_program
from dspy_live.core.call import Call
from dspy_live.core.errors import ConfigurationError, LiveError
from dspy_live.core.events import Event
from dspy_live.core.service import Receiver, Service
from dspy_live.server import App, Mounted, create_app
from dspy_live.server.served import is_name
from dspy_live.server.transport.serve import serve

_NAMED = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.-]*)=(.+)\Z", re.DOTALL)
_DESCRIPTORS = 65_536
"""A stream holds two sockets, its client's and its LM's: the usual 1024 are spent by 500 of them."""


@dataclass(frozen=True)
class ServeOptions:
    """What a server's process is started with; it goes to the process of ``--reload`` too."""

    targets: tuple[str, ...]
    flags: ProgramFlags
    host: str
    keys: Mapping[str, str]
    app: Mapping[str, Any] = field(default_factory=dict)
    observe: ObserveFlags = field(default_factory=ObserveFlags)
    drain: float = 30.0


def serve_process(options: ServeOptions, sockets: list[socket.socket] | None = None) -> None:
    """Serve until SIGINT or SIGTERM. Raises :class:`ConfigurationError` when a program can't be opened."""
    opened = open_programs(options)
    _raise_descriptor_limit()
    observers = observe(options.observe)
    try:
        _serve(opened, make_app(opened, options, observers), options, sockets or [])
    finally:
        observers.close()


def _serve(opened: Mapping[str, Opened], app: App, options: ServeOptions, sockets: list[socket.socket]) -> None:
    url = base_url(options.host, sockets[0])
    told = lambda _: print(banner(opened, url, options), flush=True)  # noqa: E731
    if serve(app, drain=options.drain, sockets=sockets, on_ready=told) is signal.SIGINT:
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


def open_programs(options: ServeOptions) -> dict[str, Opened]:
    """Open every target, by its name. Two of one name are a :class:`ConfigurationError`."""
    programs: dict[str, Opened] = {}
    for target in options.targets:
        match = _NAMED.match(target) if "->" not in target.partition("=")[0] else None
        given, plain = (match[1], match[2]) if match else ("", target)
        opened = open_program(plain, options.flags, served=True, pin=len(options.targets) > 1)
        name = given or opened.loaded.name
        if not is_name(name):
            raise ConfigurationError(f"{name!r} can't stand in an address; give the program another name: NAME={plain}")
        if name in programs:
            raise ConfigurationError(f"two programs are called {name!r}; name them apart: first={plain} second=…")
        programs[name] = opened
    return programs


def make_app(programs: Mapping[str, Opened], options: ServeOptions, observers: Observers) -> App:
    """Return the application that serves the programs."""
    seconds = options.flags.timeout
    mounted = {
        name: Mounted(
            name,
            opened.service if seconds is None else _Timed(opened.service, seconds),
            opened.schema,
            opened.chosen.simulated,
        )
        for name, opened in programs.items()
    }
    app = create_app(mounted, api_keys=options.keys, drain=options.drain, **observers.options(), **options.app)
    observers.metrics.watch("server", app.runs)
    return app


class _Timed:
    """Gives each call its deadline; the program's own service keeps it."""

    def __init__(self, inner: Service, seconds: float) -> None:
        self._inner = inner
        self._seconds = seconds

    def open(self, call: Call) -> AbstractAsyncContextManager[Receiver[Event]]:
        deadline = asyncio.get_running_loop().time() + self._seconds
        return self._inner.open(call.but(deadline=min(deadline, call.deadline or deadline)))


def base_url(host: str, listener: socket.socket) -> str:
    """Return where a browser on this machine finds the server."""
    port = listener.getsockname()[1]
    host = host.strip("[]")
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"


def banner(programs: Mapping[str, Opened], url: str, options: ServeOptions) -> str:
    """What is served, by which LM, and where to look."""
    lines = []
    for name, opened in programs.items():
        inputs = ", ".join(f.name for f in opened.schema.inputs) or "…"
        outputs = ", ".join(f"{f.name}" + ("" if f.is_text else f": {f.type}") for f in opened.schema.outputs) or "…"
        lines.append(f"  {name}   {inputs} -> {outputs}")
    labels = dict.fromkeys(opened.chosen.label for opened in programs.values())
    lines.append(f"  LM   {'; '.join(labels)}")
    if any(opened.chosen.simulated for opened in programs.values()):
        lines.append(f"  SIMULATED: every answer is made up; {how_to_name_one()}")
    lines.append(f"  keys   {len(options.keys) or 'none asked for'}")
    return "\n".join((f"dspy-live serves {url}/   (playground; {url}/docs for the API; Ctrl-C ends it)", *lines))
