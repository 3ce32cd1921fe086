"""The supervisor of a server's workers: it starts, replaces and ends them, and serves nothing itself."""

from __future__ import annotations

import logging
import multiprocessing
import selectors
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dspy_live.cli.observers import set_up_logs
from dspy_live.cli.serve_options import ServeOptions
from dspy_live.cli.workers.child import Child
from dspy_live.cli.workers.place import AT_ONCE, RETIRE, STOP, Place
from dspy_live.cli.workers.plan import Action, Do, Plan, State
from dspy_live.cli.workers.port import copy_of, socket_beside, take_port
from dspy_live.core.errors import ConfigurationError
from dspy_live.server.workers.counts import bury

log = logging.getLogger("dspy_live.workers")

START_METHOD = "forkserver" if sys.platform == "linux" else "spawn"
"""On Linux workers are forked from a process that has imported everything and has neither threads nor sockets. macOS
ends forked processes that use some of its frameworks, and Windows forks none: there each imports for itself."""

_MARGIN = 25.0
"""Seconds that a worker has after its lame-duck time and its drain: to stop its runs and write its records."""
_LONGEST_FOLDER = 80
"""Characters of a folder in which a Unix socket's path still has room."""


def serve_with_workers(options: ServeOptions, size: int, notice: str = "") -> signal.Signals | None:
    """Serve with ``size`` worker processes until SIGTERM or SIGINT; SIGHUP replaces them one after the other.

    Args:
        options: of each worker.
        size: how many workers serve at a time.
        notice: printed under what the first worker says when it serves.

    Returns the signal that ended it. Raises :class:`ConfigurationError` where the port can't be had, or no worker
    can start.
    """
    set_up_logs(options.observe, options.file())
    with take_port(options.host, options.port) as held, _private_folder() as folder:
        supervisor = Supervisor(options, size, held, folder, notice)
        try:
            return supervisor.run()
        finally:
            supervisor.close()


class Supervisor:
    """The workers of one server, and the loop that looks after them; see :func:`serve_with_workers`."""

    def __init__(self, options: ServeOptions, size: int, held: socket.socket, folder: Path, notice: str) -> None:
        self._options = options
        self._plan = Plan(size, leave_seconds=options.lame_duck + options.drain + _MARGIN)
        self._held = held
        self._folder = folder
        self._notice = notice
        self._began = time.monotonic()
        self._context = multiprocessing.get_context(START_METHOD)
        self._context.set_forkserver_preload(["dspy_live.cli.workers.preload"])
        self._children: dict[int, Child] = {}
        self._selector = selectors.DefaultSelector()
        self._signals: list[signal.Signals] = []
        self._ended_by: signal.Signals | None = None
        self._failure = ""
        self._rolling = False

    def run(self) -> signal.Signals | None:
        """Look after the workers until they have ended."""
        with self._listening_to_signals():
            while not self._plan.over:
                for action in self._plan.next_actions(time.monotonic()):
                    self._do(action)
                if self._plan.hopeless:
                    raise ConfigurationError(self._failure)
                self._tell_of_roll()
                until = self._plan.next_time()
                self._wait(None if until is None else max(0.0, until - time.monotonic()))
                while self._signals:
                    self._obey(self._signals.pop(0))
        return self._ended_by

    def close(self) -> None:
        """Kill what is left of the workers."""
        for child in list(self._children.values()):
            child.kill()
            child.end()
        self._selector.close()

    def _do(self, action: Action) -> None:
        if action.do is Do.START:
            self._start(action)
        elif action.do is Do.RETIRE:
            self._children[action.worker].tell(RETIRE)
        else:
            worker = self._plan.workers[action.worker]
            if worker.state is State.STARTING and not self._plan.stopping:
                self._children[action.worker].failure = f"was not ready within {self._plan.start_seconds:g} s"
            self._children[action.worker].kill()

    def _start(self, action: Action) -> None:
        before = self._children.get(action.replaces or 0)
        listener = copy_of(before.listener) if before is not None else socket_beside(self._held)
        place = Place(action.worker, self._folder, self._began)
        try:
            child = Child(self._context, self._options, place, listener)
        except (OSError, EOFError) as exc:
            self._note_end(action.worker, f"could not be started: {exc or type(exc).__name__}")
            return
        self._children[action.worker] = child
        self._selector.register(child.control, selectors.EVENT_READ, child)
        self._selector.register(child.process.sentinel, selectors.EVENT_READ, child)

    def _wait(self, seconds: float | None) -> None:
        for key, _ in self._selector.select(seconds):
            child = key.data
            if child is None:
                key.fileobj.recv(4096)  # type: ignore[union-attr]
            elif child.number not in self._children:
                continue
            elif key.fileobj is child.control:
                self._hear(child)
            elif child.lives:
                self._selector.unregister(key.fileobj)  # only the process that has forked it has died
            else:
                self._lose(child)

    def _hear(self, child: Child) -> None:
        words = child.hear()
        if words is None:
            self._lose(child)
            return
        for word in words:
            if "failed" in word:
                child.failure = word["failed"]
                continue
            if not self._plan.ever_served:
                print("\n".join(filter(None, (word["ready"], self._notice))), flush=True)
            self._plan.served(child.number, time.monotonic())

    def _lose(self, child: Child) -> None:
        self._selector.unregister(child.control)
        if child.process.sentinel in self._selector.get_map():
            self._selector.unregister(child.process.sentinel)
        del self._children[child.number]
        said, pid = child.failure, child.pid
        how = child.end()
        bury(self._folder, child.number)
        self._note_end(child.number, said or how, f" (process {pid})")

    def _note_end(self, number: int, how: str, which: str = "") -> None:
        worker = self._plan.ended(number, time.monotonic())
        if self._plan.stopping or worker.state is State.LEAVING:
            return
        self._failure = self._failure or (how if which and not how.startswith("was ") else f"each worker {how}")
        if not self._plan.ever_served:
            return
        if worker.replaces is not None and worker.state is State.STARTING:
            self._rolling = False
            log.error("worker %d%s could not begin, and the workers before it go on: %s", number, which, how)
        elif worker.state is State.STARTING:
            log.error("worker %d%s could not begin, and is tried again: %s", number, which, how)
        else:
            log.error("worker %d%s %s; another one takes its place", number, which, how)

    def _obey(self, which: signal.Signals) -> None:
        if which == getattr(signal, "SIGHUP", None) and not _on_terminal():
            log.warning("SIGHUP: %d workers are replaced, one after the other", self._plan.size)
            self._rolling = True
            self._plan.renew()
            return
        self._ended_by = self._ended_by or which
        for number in self._plan.stop(time.monotonic()):
            self._children[number].tell(AT_ONCE if which is signal.SIGINT else STOP)

    def _tell_of_roll(self) -> None:
        if self._rolling and not self._plan.rolling:
            self._rolling = False
            log.warning("all workers are replaced")

    @contextmanager
    def _listening_to_signals(self) -> Iterator[None]:
        wake, woken = socket.socketpair()
        wake.setblocking(False)
        self._selector.register(woken, selectors.EVENT_READ)
        before: dict[Any, Any] = {}
        for name in ("SIGTERM", "SIGINT", "SIGHUP"):
            which = getattr(signal, name, None)
            if which is not None and signal.getsignal(which) is not signal.SIG_IGN:
                before[which] = signal.signal(which, lambda number, _: self._signals.append(signal.Signals(number)))
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(-1)
            for which, handler in before.items():
                signal.signal(which, handler)
            self._selector.unregister(woken)
            wake.close()
            woken.close()


def _on_terminal() -> bool:
    return sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()


@contextmanager
def _private_folder() -> Iterator[Path]:
    place = tempfile.gettempdir()
    folder = Path(tempfile.mkdtemp(prefix="dspy-live-", dir=place if len(place) <= _LONGEST_FOLDER else "/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
