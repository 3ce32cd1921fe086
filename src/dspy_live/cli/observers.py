"""Metrics, the ledger and logs of a server's runs."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from dspy_live.core.errors import InputError

if TYPE_CHECKING:
    from dspy_live.observe.ledger import Ledger
    from dspy_live.observe.metrics import Metrics
    from dspy_live.observe.tracing import Tracing


@Parameter(name="*", group="Records and logs")
@dataclass(frozen=True)
class ObserveFlags:
    """The records of runs, and the places that they are written to."""

    ledger: str | None = None
    "The ledger: a file or postgresql://…; DSPY_LIVE_LEDGER, else ledger.db in ~/.dspy_live."

    no_ledger: Annotated[bool, Parameter(negative="")] = False
    "Record no runs; /usage is then not found."

    log_level: str = "WARNING"
    "Least level that is logged: DEBUG, INFO, WARNING, ERROR."

    log_file: Path | None = None
    "A file to log to as well, as JSON."

    log_json: Annotated[bool, Parameter(negative="")] = False
    "Log JSON on the console too."

    log_rotate: str | None = None
    "Start a new log file at a size (10 MB) or a time (daily, hourly)."

    traces_per_second: float = 100.0
    "Runs a second that get spans at most, where OTEL_EXPORTER_OTLP_ENDPOINT names a collector; inf for all."

    hide_prompts: Annotated[bool, Parameter(negative="")] = False
    "Keep inputs and outputs out of the log."


@dataclass(frozen=True, slots=True)
class Observers:
    """The observers of one server's process."""

    metrics: Metrics
    ledger: Ledger | None
    tracing: Tracing | None = None

    def options(self) -> dict[str, Any]:
        """Return the options of ``create_app`` that they fill."""
        found: dict[str, Any] = {"metrics": self.metrics.render}
        if self.ledger is not None:
            found["usage"] = usage_of(self.ledger)
        return found

    def close(self) -> None:
        """Write the records that wait."""
        self.metrics.close()
        if self.tracing is not None:
            self.tracing.close()
        if self.ledger is not None:
            self.ledger.close()


def observe(flags: ObserveFlags) -> Observers:
    """Set up logs, metrics, the ledger, and spans where the environment names a collector.

    Raises :class:`ConfigurationError` for a place that can't be used.
    """
    from dspy_live.observe.ledger import open_ledger
    from dspy_live.observe.logs import setup_logging
    from dspy_live.observe.metrics import Metrics
    from dspy_live.observe.tracing import setup_tracing, tracing_is_configured

    setup_logging(
        flags.log_level.upper(),
        file=flags.log_file,
        json=True if flags.log_json else None,
        rotate=flags.log_rotate,
        prompts="hide" if flags.hide_prompts else "show",
    )
    ledger = None if flags.no_ledger else open_ledger(flags.ledger).attach()
    tracing = setup_tracing(per_second=flags.traces_per_second) if tracing_is_configured() else None
    return Observers(Metrics(), ledger, tracing)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def usage_of(ledger: Ledger) -> Callable[[Mapping[str, str]], Awaitable[Any]]:
    """Return the function that answers ``/usage``: ``by=day|model|…``, and filters by name and time."""
    from dspy_live.observe.ledger import Filter
    from dspy_live.observe.ledger.query import GROUPS

    numbers = {"since", "until"}
    names = {"program", "model", "predictor", "key", "run"}

    async def usage(query: Mapping[str, str]) -> Any:
        by = next((group for group in GROUPS if group == query.get("by")), None)
        if "by" in query and by is None:
            raise InputError(f"'by' must be one of {', '.join(GROUPS)}", field="by", expected=list(GROUPS))
        if unknown := sorted(query.keys() - numbers - names - {"by"}):
            raise InputError(f"unknown parameter {unknown[0]!r}", field=unknown[0], expected=sorted(numbers | names))
        chosen: dict[str, Any] = {name: query[name] for name in names & query.keys()}
        for name in numbers & query.keys():
            try:
                chosen[name] = _finite(query[name])
            except ValueError:
                raise InputError(f"{name!r} must be Unix seconds", field=name, expected="number") from None
        filter_ = Filter(**chosen)
        if by is None:
            return {name: value for name, value in (await asyncio.to_thread(ledger.totals, filter_)).items() if name}
        return {"by": by, "rows": await asyncio.to_thread(ledger.summary, by, filter_)}

    return usage
