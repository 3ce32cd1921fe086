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
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspy_live.cli.on_ray.cluster import check_ray, pass_on, ray_cluster
from dspy_live.cli.on_ray.replicas import Replicas
from dspy_live.core.errors import ConfigurationError

if TYPE_CHECKING:
    from dspy_live.cli.serve_options import ServeOptions

APPLICATION = "dspy-live"
KEEP_ALIVE = 75


def serve_on_ray(options: ServeOptions, replicas: Replicas) -> signal.Signals:
    """Serve with replicas on Ray until SIGINT or SIGTERM; SIGHUP puts new replicas in the place of the old ones.

    Returns the signal that ended it. Raises :class:`ConfigurationError` where Ray is missing, the port is taken, or
    a program can't be opened.
    """
    check_ray()
    from dspy_live.server.transport.address import listen

    told = _banner(options, replicas)
    # Ray would share a port with another server of this machine without a word.
    with closing(listen(options.host, options.port)) as listener:
        port: int = listener.getsockname()[1]
    # The signals after the cluster, since Ray sets a handler for SIGTERM when it starts.
    # In /tmp, since a Unix socket's path has room for a short folder only.
    with (
        tempfile.TemporaryDirectory(prefix="dspy-live-", dir="/tmp", ignore_cleanup_errors=True) as together,
        ray_cluster(replicas.most),
        _signals() as next_signal,
    ):
        deploy = partial(_deploy, options, replicas, together, time.monotonic())
        _start(options, port)
        try:
            deploy()
            print(told(port), flush=True)
            while (came := next_signal()) is signal.SIGHUP:
                _renew(deploy)
            return came
        finally:
            _end()


def _renew(deploy: Callable[[], None]) -> None:
    try:
        deploy()
    except ConfigurationError as exc:
        print(f"dspy-live: the old replicas go on: {exc.message}", file=sys.stderr, flush=True)
    else:
        print("dspy-live: new replicas have taken the place of the old ones", file=sys.stderr, flush=True)


def _banner(options: ServeOptions, replicas: Replicas) -> Callable[[int], str]:
    """Open the programs once, as each replica will, and return what is printed once the port is known."""
    from dspy_live.cli.server_process import banner, open_served
    from dspy_live.cli.workers.per_worker import told
    from dspy_live.loading.config.keys import ServerKeys, key_store_path
    from dspy_live.loading.config.layers import store_url

    file = options.file()
    with closing(ServerKeys(file, options.keys, key_store_path(file, options.key_store), store_url(file))) as keys:
        programs = open_served(options, file)
        scheme = "https" if options.tls else "http"
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(options.host, options.host)
        text = banner(programs, "\0", options, keys)
    many = f"{replicas.least}" if replicas.fixed else f"{replicas.least} to {replicas.most}"
    lines = f"{text}\n  on Ray   replicas: {many}; SIGHUP replaces them"
    if replicas.most > 1:
        has_store = store_url(file) is not None
        shared = told(replicas.most, file, max_active=options.max_active, sessions=None, has_store=has_store)
        lines = "\n".join([lines, *shared.replace("each worker", "each replica").splitlines()[1:]])
    return lambda port: lines.replace("\0", f"{scheme}://{host}:{port}")


def _start(options: ServeOptions, port: int) -> None:
    from ray import serve
    from ray.serve.config import HTTPOptions

    http = HTTPOptions(host=options.host, port=port, keep_alive_timeout_s=KEEP_ALIVE, **options.tls)
    serve.start(http_options=http, logging_config={"log_level": "WARNING", "enable_access_log": False})


def _deploy(options: ServeOptions, replicas: Replicas, together: str, began: float) -> None:
    from ray import serve
    from ray.serve.exceptions import RayServeException

    from dspy_live.cli.on_ray.ingress import deployment

    made = deployment(options, replicas, str(Path.cwd()), together, began, pass_on(os.environ))
    try:
        serve.run(made, name=APPLICATION, route_prefix="/")
    except (RuntimeError, RayServeException) as exc:
        raise ConfigurationError(f"the replicas did not start: {_last_line(exc)}") from exc


def _last_line(exc: BaseException) -> str:
    lines: list[str] = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return lines[-1] if lines else type(exc).__name__


def _end() -> None:
    from ray import serve

    serve.delete(APPLICATION)  # waits until the replicas have drained
    if "RAY_ADDRESS" not in os.environ:  # a shared cluster may serve others
        serve.shutdown()


@contextmanager
def _signals() -> Iterator[Callable[[], signal.Signals]]:
    """Give a function that waits for the next of SIGINT, SIGTERM and SIGHUP."""
    came: list[signal.Signals] = []
    woken = threading.Condition()

    def take(number: int, _: Any) -> None:
        came.append(signal.Signals(number))

    def next_signal() -> signal.Signals:
        with woken:
            while not came:
                woken.wait(0.2)  # a handler runs between two waits, and must not take the lock itself
        return came.pop(0)

    watched = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    before = {each: signal.signal(each, take) for each in watched}
    try:
        yield next_signal
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
