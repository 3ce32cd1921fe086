"""Where a worker's process begins. The supervisor names this function and never imports what it needs: dspy."""

from __future__ import annotations

import socket

from dspy_live.cli.serve_options import ServeOptions
from dspy_live.cli.workers.place import Place


def enter(options: ServeOptions, place: Place, listener: socket.socket, control: socket.socket) -> None:
    """Be a worker; see :func:`dspy_live.cli.workers.process.work`."""
    from dspy_live.cli.workers.process import work

    work(options, place, listener, control)
