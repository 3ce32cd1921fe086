"""``dspy-live serve … --on ray``: the command's own process, which starts the replicas, renews them and ends them."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspy_live.cli.on_ray.application import Address, deploy, end, free_port, proxy_variables, start
from dspy_live.cli.on_ray.cluster import check_ray, pass_on, ray_cluster
from dspy_live.cli.on_ray.ingress import END_SECONDS, deployment
from dspy_live.cli.on_ray.replicas import Replicas
from dspy_live.core.errors import ConfigurationError

if TYPE_CHECKING:
    from dspy_live.cli.serve_options import ServeOptions


def serve_on_ray(options: ServeOptions, replicas: Replicas) -> signal.Signals:
    """Serve with replicas on Ray until SIGINT or SIGTERM; SIGHUP puts new replicas in the place of the old ones.

    Returns the signal that ended it. A second one ends it without the drain's end. Raises :class:`ConfigurationError`
    where Ray is missing, the port is taken, or a program can't be opened.
    """
    check_ray()
    own = "RAY_ADDRESS" not in os.environ
    banner = _banner(options, replicas)
    port = free_port(options) if own else None  # a cluster's Serve may hold the port already, and be meant
    # The signals after the cluster, since Ray sets a handler for SIGTERM when it starts.
    # In /tmp, since a Unix socket's path has room for a short folder only.
    with (
        tempfile.TemporaryDirectory(prefix="dspy-live-", dir="/tmp", ignore_cleanup_errors=True) as together,
        ray_cluster(1, variables=proxy_variables()),
        _signals() as signals,
    ):
        address = None
        began = time.monotonic()

        def application() -> Any:
            # A cluster of our own is for these replicas: as many as were asked for, and new ones beside old ones.
            room = {"num_cpus": 0 if own else 1}
            actor = {**room, **pass_on(os.environ, options.file())}
            return deployment(options, replicas, str(Path.cwd()), together, began, actor)

        try:
            address = start(options, port)
            if deploy(application(), signals.stopped):
                _tell_address(address, options)
                print(banner(address), flush=True)
            while (came := signals.next()) is signal.SIGHUP:
                _renew(application, signals.stopped)
            return came
        finally:
            end(address, options.drain + END_SECONDS, signals.stopped)


def _renew(application: Callable[[], Any], stopped: Callable[[float], bool]) -> None:
    try:
        renewed = deploy(application(), stopped)
    except ConfigurationError as exc:
        print(f"dspy-live: the old replicas go on: {exc.message}", file=sys.stderr, flush=True)
    else:
        if renewed:
            print("dspy-live: new replicas have taken the place of the old ones", file=sys.stderr, flush=True)


def _tell_address(address: Address, options: ServeOptions) -> None:
    if address.found and (address.host, address.port) != (options.host, options.port):
        there, asked = f"{address.host}:{address.port}", f"{options.host}:{options.port}"
        print(
            f"dspy-live: Ray Serve runs on this cluster already, at {there}; {asked} is not used. "
            "`serve shutdown` ends it with all its applications.",
            file=sys.stderr,
            flush=True,
        )


def _banner(options: ServeOptions, replicas: Replicas) -> Callable[[Address], str]:
    """Open the programs once, as each replica will, and return what is printed once the address is known."""
    from dspy_live.cli.server_process import banner, open_served
    from dspy_live.cli.workers.per_worker import told
    from dspy_live.loading.config.keys import ServerKeys, key_store_path
    from dspy_live.loading.config.store import store_of

    file = options.file()
    with closing(ServerKeys(file, options.keys, key_store_path(file, options.key_store), store_of(file))) as keys:
        text = banner(open_served(options, file), "\0", options, keys)
    many = f"{replicas.least}" if replicas.fixed else f"{replicas.least} to {replicas.most}"
    lines = f"{text}\n  on Ray   replicas: {many}; SIGHUP replaces them; the cluster is RAY_ADDRESS=\1"
    if replicas.most > 1:
        shared = told(replicas.most, file, max_active=options.max_active, sessions=None, store=store_of(file))
        lines = "\n".join([lines, *shared.replace("each worker", "each replica").splitlines()[1:]])
    scheme = "https" if options.tls else "http"
    return lambda address: lines.replace("\0", _url(scheme, address)).replace("\1", _cluster())


def _url(scheme: str, address: Address) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(address.host, address.host)
    return f"{scheme}://{host}:{address.port}"


def _cluster() -> str:
    import ray

    return str(ray.get_runtime_context().gcs_address)


class _Signals:
    """SIGINT, SIGTERM and SIGHUP in the order in which they came."""

    def __init__(self) -> None:
        self._came: list[signal.Signals] = []
        self._woken = threading.Condition()

    def take(self, number: int, _: Any) -> None:
        """Note a signal; the handler, which must not take the lock that it may have interrupted."""
        self._came.append(signal.Signals(number))

    def next(self) -> signal.Signals:
        """Wait for the next signal, and return it."""
        while not self._came:
            self._wait(0.2)
        return self._came.pop(0)

    def stopped(self, seconds: float) -> bool:
        """Wait for so long, and tell whether one of the signals that end the command is there; it stays there."""
        if not self._ends():
            self._wait(seconds)
        return self._ends()

    def _ends(self) -> bool:
        return any(came in (signal.SIGINT, signal.SIGTERM) for came in self._came)

    def _wait(self, seconds: float) -> None:
        with self._woken:
            self._woken.wait(seconds)  # a handler runs between two waits


@contextmanager
def _signals() -> Iterator[_Signals]:
    signals = _Signals()
    watched = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    before = {each: signal.signal(each, signals.take) for each in watched}
    try:
        yield signals
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
