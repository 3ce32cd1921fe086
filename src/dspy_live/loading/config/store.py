"""The Redis or Valkey that several servers share: what the table ``[store]`` says of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from dspy_live.loading.config.read import ConfigFile
from dspy_live.sansio.quantities import bytes_of

if TYPE_CHECKING:
    from dspy_live.server.runs.shared.shared_runs import SharedRuns


@dataclass(frozen=True)
class SharedStore:
    """Where servers share what they count and keep.

    Args:
        url: a Redis or Valkey.
        name: tells servers of several kinds apart that use one store; those that give the same share.
        on_outage: what limits, rates and budgets do while it does not answer.
        timeout: seconds to wait for it.
        runs: whether runs of ``POST /runs`` are shared.
        run_bytes: bytes of events that are kept of each run; ``None`` for the usual.
    """

    url: str
    name: str = ""
    on_outage: Literal["alone", "refuse"] = "alone"
    timeout: float = 1.0
    runs: bool = True
    run_bytes: int | None = None

    @property
    def prefix(self) -> str:
        """The beginning of all keys that belong to these servers."""
        return f"dspy-live:{self.name}:" if self.name else "dspy-live:"

    def named(self, owner: str) -> str:
        """Return the name of what ``owner`` shares."""
        return f"{self.name}:{owner}" if self.name else owner

    def options(self) -> dict[str, Any]:
        """Return the options of a shared limit, rate or budget."""
        return {"on_outage": self.on_outage, "timeout": self.timeout}

    def shared_runs(self) -> SharedRuns | None:
        """Return the runs that these servers share, ``None`` where they do not."""
        if not self.runs:
            return None
        from dspy_live.server.runs.shared.shared_runs import MOST_BYTES, SharedRuns

        return SharedRuns(self.url, prefix=self.prefix, most_bytes=self.run_bytes or MOST_BYTES, timeout=self.timeout)


def store_of(file: ConfigFile) -> SharedStore | None:
    """Return the store that the file names, or ``None``."""
    table = file.config.store
    url = file.secret(table.url, table.url_env)
    if url is None:
        return None
    run_bytes = None if table.run_bytes is None else bytes_of(table.run_bytes)
    return SharedStore(url, table.name, table.on_outage, table.timeout, table.runs, run_bytes)
