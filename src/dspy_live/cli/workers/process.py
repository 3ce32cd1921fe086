"""A worker: a process that serves on its own socket, and does what its supervisor says and nobody else."""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from dspy_live.cli.commands.serve import check_address
from dspy_live.cli.serve_options import ServeOptions
from dspy_live.cli.server_process import banner, base_url, serve_process
from dspy_live.cli.workers.place import AT_ONCE, RETIRE, Place
from dspy_live.core.errors import LiveError
from dspy_live.loading.config.keys import ServerKeys
from dspy_live.loading.config.open import OpenedProgram
from dspy_live.server import App
from dspy_live.server.transport.serve import LiveServer, serve
from dspy_live.server.workers.link import others
from dspy_live.server.workers.siblings import Siblings

_SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP")


def work(options: ServeOptions, place: Place, listener: socket.socket, control: socket.socket) -> None:
    """Serve until the supervisor says that it is enough, or has gone. What is wrong is told to the supervisor."""
    for name in _SIGNALS:
        # A terminal's Ctrl-C and systemd's SIGTERM come to all processes; the supervisor passes them on in its way.
        # No SIG_IGN: what a program starts would inherit that.
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: None)
    try:
        check_address(options, options.file())
        serve_process(options, [listener], serve_app=_Worker(place, control).serve)
    except LiveError as exc:
        _tell(control, {"failed": exc.message})
        sys.exit(2)
    except Exception as exc:
        if os.environ.get("DSPY_LIVE_DEBUG"):
            raise
        _tell(control, {"failed": f"{type(exc).__name__}: {exc}"})
        sys.exit(1)
    finally:
        atexit._run_exitfuncs()  # multiprocessing does not, for a process that was forked


class _Worker:
    def __init__(self, place: Place, control: socket.socket) -> None:
        self._place = place
        self._control = control
        self._orphaned = False

    def serve(
        self,
        programs: Mapping[str, OpenedProgram],
        app: App,
        options: ServeOptions,
        keys: ServerKeys,
        sockets: list[socket.socket],
    ) -> None:
        """Serve the application; tell the supervisor when that begins."""
        text = banner(programs, base_url(options.host, sockets[0], tls=bool(options.tls)), options, keys)

        @asynccontextmanager
        async def steered(server: LiveServer) -> AsyncIterator[None]:
            async with Siblings(app, self._place.folder, self._place.number, self._place.began):
                obeying = asyncio.create_task(self._obey(server))
                try:
                    yield
                finally:
                    obeying.cancel()

        serve(
            app,
            drain=options.drain,
            lame_duck=options.lame_duck,
            sockets=sockets,
            on_ready=lambda _: _tell(self._control, {"ready": text}),
            steered=steered,
            **options.tls,
        )
        if self._orphaned and not others(self._place.folder, self._place.number):
            shutil.rmtree(self._place.folder, ignore_errors=True)  # which the supervisor would have done

    async def _obey(self, server: LiveServer) -> None:
        reader, _ = await asyncio.open_unix_connection(sock=self._control.dup())
        while word := await reader.readline():
            if word == RETIRE:
                server.retire()
            else:
                server.stop(at_once=word == AT_ONCE)
        self._orphaned = True
        server.retire()  # the supervisor has gone: the port is free at once, and what runs may end


def _tell(control: socket.socket, word: Mapping[str, str]) -> None:
    try:
        control.sendall(json.dumps(word).encode() + b"\n")
    except OSError:  # the supervisor has gone, which is seen where its words are read
        return
