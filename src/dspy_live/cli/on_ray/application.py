"""The command's hold on Ray Serve: it starts Serve's proxy, deploys the application, and ends what it has started."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dspy_live.core.errors import ConfigurationError

if TYPE_CHECKING:
    from dspy_live.cli.serve_options import ServeOptions

APPLICATION = "dspy-live"
KEEP_ALIVE = 75
_POLL = 0.1
_TELL = 30.0
"""Seconds between two lines that say why replicas are not there yet."""
_OURS = f"{ConfigurationError.__name__}: "
_VARIABLES = {
    # What ends a stream whose replica was lost.
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "dspy_live.cli.on_ray.lost_streams:middlewares",
    # Ray kills a proxy that has not started after three times five seconds, which a busy machine may need for imports.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "30",
    # In HAProxy mode every replica that comes or goes ends the streams of all others so many seconds later, 120 by
    # Ray's own choice: ray-project/ray#66056.
    "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "3600",
}


@dataclass(frozen=True)
class Address:
    """Where Ray Serve's proxy listens.

    Args:
        host: its host.
        port: its port.
        found: Ray Serve ran on the cluster before the command came.
    """

    host: str
    port: int
    found: bool


def free_port(options: ServeOptions) -> int:
    """Return the port that is asked for, or a free one for 0. Raises :class:`ConfigurationError` for a taken one.

    Ray would share the port with another server of this machine without a word.
    """
    from dspy_live.server.transport.address import listen

    with closing(listen(options.host, options.port)) as listener:
        port: int = listener.getsockname()[1]
    return port


def start(options: ServeOptions, port: int | None) -> Address:
    """Start Ray Serve with its proxy, where it does not run on the cluster already.

    Args:
        options: host, certificate, and the port where ``port`` is not known yet.
        port: the port that :func:`free_port` has found.

    Returns where the proxy listens: of a Serve that ran already this is not what the options say.
    """
    from ray import serve
    from ray.serve.config import HTTPOptions
    from ray.serve.context import _get_global_client

    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # in this process; it tells each connection to Serve
    found = bool(serve.status().proxies)
    if not found:
        http = HTTPOptions(
            host=options.host,
            port=free_port(options) if port is None else port,
            keep_alive_timeout_s=KEEP_ALIVE,
            **options.tls,
        )
        serve.start(
            http_options=http,
            logging_config={"log_level": "WARNING", "enable_access_log": False},
            controller_options={"runtime_env": {"env_vars": proxy_variables()}},
        )
    http = _get_global_client().http_config
    return Address(http.host or options.host, http.port, found)


def proxy_variables() -> dict[str, str]:
    """Return the variables of Serve's controller and proxies, without those that the user has set."""
    return {name: os.environ.get(name, value) for name, value in _VARIABLES.items()}


def deploy(made: Any, stopped: Callable[[float], bool]) -> bool:
    """Deploy the application, or renew its replicas, and wait until the new replicas serve.

    Args:
        made: the application of Ray Serve.
        stopped: waits for so many seconds, and tells whether the command is to end.

    Returns False when the command is to end before the replicas are there. Raises :class:`ConfigurationError` when they
    can't start. There is no bound, since a cluster may have to add machines; what is missing is told twice a minute.
    """
    from ray.serve.api import RunTarget, run_many
    from ray.serve.context import _get_global_client
    from ray.serve.schema import ApplicationStatus

    run_many(
        [RunTarget(target=made, name=APPLICATION, route_prefix="/")],
        wait_for_ingress_deployment_creation=False,
        wait_for_applications_running=False,
    )
    tell = time.monotonic() + _TELL
    while True:
        found = _status()
        if found is not None and found.status == ApplicationStatus.RUNNING:
            _get_global_client().wait_for_proxies_serving()
            return True
        if found is not None and found.status == ApplicationStatus.DEPLOY_FAILED:
            raise ConfigurationError(f"the replicas did not start: {_reason(found)}")
        if found is not None and time.monotonic() > tell:
            tell += _TELL
            print(f"dspy-live: waiting for replicas: {_reason(found)}", file=sys.stderr, flush=True)
        if stopped(_POLL):
            return False


def end(address: Address | None, seconds: float, stopped: Callable[[float], bool]) -> None:
    """Let the replicas drain, and end Ray Serve where the command has started it and nobody else uses it.

    Args:
        address: what :func:`start` has returned.
        seconds: the longest drain.
        stopped: waits for so many seconds, and tells whether the command is to end without the drain's end.
    """
    from ray import serve
    from ray.exceptions import RayError
    from ray.serve.exceptions import RayServeException

    try:
        serve.delete(APPLICATION, _blocking=False)
        last = time.monotonic() + seconds
        while _status() is not None and time.monotonic() < last and not stopped(_POLL):
            pass
        if address is not None and not address.found and not serve.status().applications:
            serve.shutdown()
    except (RayError, RayServeException) as exc:
        print(f"dspy-live: the cluster did not answer: {last_line(str(exc))}", file=sys.stderr, flush=True)


def last_line(text: str) -> str:
    """Return the last line that says something; Ray's texts end with the cause."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no reason was given")


def _status() -> Any:
    from ray import serve

    applications: Mapping[str, Any] = serve.status().applications
    return applications.get(APPLICATION)


def _reason(found: Any) -> str:
    """Return what Ray says of the deployment, and of a traceback in it the line of an error that is meant for users."""
    text = "\n".join(deployment.message for deployment in found.deployments.values()) or found.message
    ours = [line for line in text.splitlines() if _OURS in line]
    return ours[-1].rpartition(_OURS)[2] if ours else last_line(text)
