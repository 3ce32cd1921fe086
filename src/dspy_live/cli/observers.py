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
from dspy_live.sansio.quantities import seconds_of

if TYPE_CHECKING:
    from dspy_live.loading.config.read import ConfigFile
    from dspy_live.observe.ledger import Ledger
    from dspy_live.observe.metrics import Metrics
    from dspy_live.observe.otel_metrics import OtelMetrics
    from dspy_live.observe.tracing import Tracing


@Parameter(name="*", group="Records and logs")
@dataclass(frozen=True)
class ObserveFlags:
    """The records of runs, and the places that they are written to."""

    ledger: str | None = None
    "The ledger: a file or postgresql://…; DSPY_LIVE_LEDGER, else ledger.db in ~/.dspy_live."

    no_ledger: Annotated[bool, Parameter(negative="")] = False
    "Record no runs; /usage is then not found."

    log_level: str | None = None
    "Least level that is logged: DEBUG, INFO, WARNING (the default), ERROR."

    log_file: Path | None = None
    "A file to log to as well, as JSON."

    log_json: Annotated[bool, Parameter(negative="")] = False
    "Log JSON on the console too."

    log_rotate: str | None = None
    "Start a new log file at a size (10 MB) or a time (daily, hourly)."

    traces_per_second: float | None = None
    "Runs a second that get spans at most, where OTEL_EXPORTER_OTLP_ENDPOINT names a collector; 100; inf for all."

    hide_prompts: Annotated[bool, Parameter(negative="")] = False
    "Keep inputs and outputs out of the log."


@dataclass(frozen=True, slots=True)
class Observers:
    """The observers of one server's process."""

    metrics: Metrics | None
    ledger: Ledger | None
    tracing: Tracing | None = None
    otel_metrics: OtelMetrics | None = None

    def options(self) -> dict[str, Any]:
        """Return the options of ``create_app`` that they fill."""
        found: dict[str, Any] = {} if self.metrics is None else {"metrics": self.metrics.render}
        if self.ledger is not None:
            found["usage"] = usage_of(self.ledger)
        return found

    def close(self) -> None:
        """Write the records that wait."""
        if self.metrics is not None:
            self.metrics.close()
        for sender in (self.tracing, self.otel_metrics):
            if sender is not None:
                sender.close()
        if self.ledger is not None:
            self.ledger.close()


def observe(flags: ObserveFlags, file: ConfigFile) -> Observers:
    """Set up logs, metrics, the ledger, and spans where a collector is named; a flag goes before the file.

    Raises :class:`ConfigurationError` for a place that can't be used.
    """
    from dspy_live.observe.metrics import Metrics
    from dspy_live.observe.otel_metrics import otel_metrics_are_configured, setup_otel_metrics

    set_up_logs(flags, file)
    ledger = _ledger(flags, file)
    tracing = _tracing(flags, file)
    otel_metrics = setup_otel_metrics() if otel_metrics_are_configured() else None
    return Observers(Metrics() if file.config.metrics.enabled else None, ledger, tracing, otel_metrics)


def set_up_logs(flags: ObserveFlags, file: ConfigFile) -> None:
    """Set up the logs of this process alone; see :func:`observe`."""
    from dspy_live.observe.logs import setup_logging

    table = file.config.logging
    in_file = file.near(table.file) if table.file is not None else None
    setup_logging(
        (flags.log_level or table.level or "WARNING").upper(),
        file=flags.log_file or in_file,
        json=True if flags.log_json else table.json,
        rotate=flags.log_rotate or table.rotate,
        prompts="hide" if flags.hide_prompts or table.hide_prompts else "show",
    )


def _ledger(flags: ObserveFlags, file: ConfigFile) -> Ledger | None:
    from dspy_live.observe.ledger import open_ledger

    table = file.config.ledger
    if flags.no_ledger or (table.enabled is False and flags.ledger is None):
        return None
    place = flags.ledger or file.secret(table.place, table.place_env)
    if flags.ledger is None and place is not None and "://" not in place:
        place = str(file.near(place))
    keep = seconds_of(table.keep) if table.keep is not None else None
    return open_ledger(place, contents=table.contents, keep=keep).attach()


def _tracing(flags: ObserveFlags, file: ConfigFile) -> Tracing | None:
    from dspy_live.observe.tracing import PER_SECOND, setup_tracing, tracing_is_configured

    table = file.config.tracing
    if table.endpoint is None and not tracing_is_configured():
        return None
    in_file = math.inf if table.per_second == "all" else table.per_second
    given = flags.traces_per_second if flags.traces_per_second is not None else in_file
    return setup_tracing(
        table.endpoint,
        service_name=table.service_name,
        contents=table.contents,
        per_second=PER_SECOND if given is None else given,
    )


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
