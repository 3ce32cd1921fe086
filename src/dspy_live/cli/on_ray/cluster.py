"""The Ray cluster that a command uses: the one that ``RAY_ADDRESS`` names, else one of its own on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import msgspec

from dspy_live.core.errors import ConfigurationError

if TYPE_CHECKING:
    from dspy_live.loading.config.read import ConfigFile

TRIES = 3
"""A node of Ray gives itself 30 seconds to start, which a busy machine may need more than once."""


def check_ray() -> None:
    """Raise :class:`ConfigurationError` where Ray is not installed; imports nothing."""
    if find_spec("ray") is None:
        raise ConfigurationError("--on ray needs Ray: pip install 'dspy-live[ray]'")


@contextlib.contextmanager
def ray_cluster(
    cpus: int, *, namespace: str = "dspy-live", variables: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Connect to the cluster of ``RAY_ADDRESS``, or start one that ends with the block.

    Args:
        cpus: how many workers must find room in a cluster of our own; they wait for LMs most of their time, so that
            there may be more of them than processors.
        namespace: Ray's namespace for what is started.
        variables: variables that the processes of a cluster of our own have; those that are set here already stay.

    Raises :class:`ConfigurationError` where there is no Ray, or none at the address.
    """
    check_ray()
    # Ray tells its makers about its use unless this says otherwise; a server's owner was not asked.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    address = os.environ.get("RAY_ADDRESS")
    for name, value in (variables or {}).items():
        if not address:
            os.environ.setdefault(name, value)
    own = (
        {} if address else {"address": "local", "num_cpus": max(os.cpu_count() or 1, cpus), "include_dashboard": False}
    )
    for left in reversed(range(TRIES)):
        try:
            ray.init(**own, namespace=namespace, logging_level=logging.WARNING, log_to_driver=True)
            break
        except Exception as exc:  # Ray raises plain ones too
            ray.shutdown()
            if left and "timed out during startup" in str(exc):
                continue
            place = f"the Ray cluster at RAY_ADDRESS={address} can't be reached" if address else "Ray can't be started"
            told = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
            raise ConfigurationError(f"{place}: {told}") from exc
    try:
        yield
    finally:
        ray.shutdown()


def pass_on(environ: Mapping[str, str], file: ConfigFile | None = None) -> dict[str, Any]:
    """Return the options of Ray's actors that give them this process's variables: ours, LMs', and those of the file.

    A cluster that was started here has them already.

    Args:
        environ: this process's variables.
        file: the configuration file, which names the variables of its secrets.
    """
    if "RAY_ADDRESS" not in environ:
        return {}
    named = frozenset() if file is None else frozenset(_named(msgspec.to_builtins(file.config)))
    variables = {
        name: value
        for name, value in environ.items()
        if name in named or name.startswith(("DSPY_", "OTEL_", "OPENAI_")) or name.endswith(("_API_KEY", "_API_BASE"))
    }
    return {"runtime_env": {"env_vars": variables}}


def _named(table: Any) -> Iterator[str]:
    """Yield the variables that a configuration names: the values of all keys that end in ``_env``."""
    for key, value in table.items() if isinstance(table, dict) else enumerate(table) if isinstance(table, list) else ():
        if isinstance(value, str) and str(key).endswith("_env"):
            yield value
        else:
            yield from _named(value)
