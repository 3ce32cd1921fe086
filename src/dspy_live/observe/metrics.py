"""Prometheus metrics. Counting a run costs a few microseconds and a token nothing: a scrape puts the numbers together.

Tokens, cost, LM calls and cache use are read from the account, so that they are the tracker's own numbers.
"""

from __future__ import annotations

import dataclasses
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from dspy_live.core.call import Call
from dspy_live.core.errors import Cancelled
from dspy_live.core.observer import RunRecord
from dspy_live.core.usage import LMRecord
from dspy_live.runtime.books.account import Account, process_account
from dspy_live.runtime.books.totals import Totals

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""The histograms' bounds, for durations from a cached answer to a long agent."""
MAX_SERIES = 200
"""Names (programs, models, errors) that get a series of their own; further ones share ``(other)``."""

_TOKENS = {
    "prompt": "prompt_tokens",
    "completion": "completion_tokens",
    "cached": "cached_tokens",
    "reasoning": "reasoning_tokens",
    "estimated": "estimated_tokens",
}


class HasStatistics(Protocol):
    """A queue, a limiter or another layer with statistics."""

    def statistics(self) -> Any:
        """Return numbers as a dataclass, a struct or a mapping."""
        ...


class Metrics:
    """Counts runs, and renders them with the account's totals and the statistics of limits and queues.

    Args:
        account: the account to read and to observe; the process's own by default.
        registry: where the metrics are registered; one of their own by default, so that it renders nothing else.
        prefix: the beginning of every metric's name.

    It observes runs from now on; :meth:`close` ends that.
    """

    def __init__(
        self, account: Account | None = None, registry: CollectorRegistry | None = None, prefix: str = "dspy_live"
    ) -> None:
        self.account = account or process_account()
        self.registry = registry or CollectorRegistry()
        self._prefix = prefix
        self._lock = threading.Lock()
        self._active: dict[str, int] = {}
        self._ended: dict[tuple[str, str], int] = {}
        self._duration: dict[str, _Histogram] = {}
        self._ttft: dict[str, _Histogram] = {}
        self._lm_duration: dict[str, _Histogram] = {}
        self._running: dict[str, str] = {}
        self._watched: dict[str, Callable[[], Any]] = {}
        self.registry.register(self)
        self._stop = self.account.observe(self)

    def close(self) -> None:
        """Stop observing and leave the registry."""
        self._stop()
        self.registry.unregister(self)

    def watch(self, name: str, source: HasStatistics | Callable[[], Any]) -> None:
        """Add every number of ``source`` (a layer, a channel, a pool) under ``name`` to each scrape.

        The series is ``dspy_live_layer{layer=name, figure=…}``: a limit's ``waiting`` is its queue's depth, ``limit``
        and ``active`` its size and use. A source that fails is left out.
        """
        ask: Any = source
        self._watched[name] = getattr(ask, "statistics", ask)

    def render(self) -> bytes:
        """Return the text that Prometheus reads, of type :data:`CONTENT_TYPE`."""
        return generate_latest(self.registry)

    # A RunObserver.

    def run_started(self, call: Call) -> None:
        with self._lock:
            program = _series(self._active, call.program)
            self._running[call.id] = program
            self._active[program] = self._active.get(program, 0) + 1

    def lm_call_ended(self, record: LMRecord) -> None:
        if record.cache != "hit":
            with self._lock:
                _observe(self._lm_duration, record.model, record.latency)

    def run_ended(self, record: RunRecord) -> None:
        with self._lock:
            program = self._running.pop(record.call.id, None)
            if program is None:
                return
            self._active[program] -= 1
            outcome = (program, "" if record.error is None else type(record.error).__name__)
            if outcome not in self._ended and len(self._ended) >= MAX_SERIES:
                outcome = (program, "(other)")
            self._ended[outcome] = self._ended.get(outcome, 0) + 1
            _observe(self._duration, program, record.duration)
            if record.ttft is not None:
                _observe(self._ttft, program, record.ttft)

    # A collector of prometheus_client.

    def collect(self) -> Iterable[Metric]:
        """Return all series; the registry calls it."""
        with self._lock:
            families = list(self._of_runs())
        yield from families
        yield from self._of_the_account()
        layers = GaugeMetricFamily(
            f"{self._prefix}_layer", "Statistics of limits and queues.", labels=["layer", "figure"]
        )
        for name, source in list(self._watched.items()):
            for number, value in _numbers(source):
                layers.add_metric([name, number], value)
        yield layers

    def describe(self) -> list[Metric]:
        """Nothing is fixed ahead; this keeps the registry from collecting at the registration."""
        return []

    def _of_runs(self) -> Iterator[Metric]:
        requests = self._counter("requests", "Runs that have ended, by outcome.", ["program", "outcome"])
        errors = self._counter("errors", "Runs that have failed, by the error's class.", ["program", "error"])
        outcomes: dict[tuple[str, str], int] = {}
        for (program, error), count in self._ended.items():
            outcome = "ok" if not error else "cancelled" if error == Cancelled.__name__ else "error"
            outcomes[program, outcome] = outcomes.get((program, outcome), 0) + count
            if outcome == "error":
                errors.add_metric([program, error], count)
        for labels, count in outcomes.items():
            requests.add_metric(list(labels), count)
        active = GaugeMetricFamily(f"{self._prefix}_requests_active", "Runs under way.", labels=["program"])
        for program, count in self._active.items():
            active.add_metric([program], count)
        yield from (requests, errors, active)
        yield self._histogram("request_duration_seconds", "How long runs took.", "program", self._duration)
        yield self._histogram("time_to_first_token_seconds", "From a run's start to its token.", "program", self._ttft)
        yield self._histogram("lm_call_duration_seconds", "How long LM calls took.", "model", self._lm_duration)

    def _of_the_account(self) -> Iterator[Metric]:
        names = ["program", "model"]
        tokens = self._counter("tokens", "Tokens, by kind; cached and reasoning ones are parts.", [*names, "kind"])
        cost = self._counter("cost_dollars", "US dollars of the LM calls with a known price.", names)
        unpriced = self._counter("unpriced_calls", "LM calls without a known price.", names)
        calls = self._counter("lm_calls", "Requests that were sent to LMs.", [*names, "outcome"])
        cache = self._counter("cache_lookups", "Look-ups in the response cache.", [*names, "result"])
        sums: dict[tuple[str, str], Totals] = {}
        for key, total in self.account.totals.copy().items():
            series = (key.program, key.model)
            if series not in sums and len(sums) >= MAX_SERIES:
                series = ("(other)", "(other)")
            sums[series] = sums[series].plus(total) if series in sums else total
        for series, total in sums.items():
            labels = list(series)
            for kind, name in _TOKENS.items():
                tokens.add_metric([*labels, kind], getattr(total, name))
            cost.add_metric(labels, total.total_cost)
            unpriced.add_metric(labels, total.unpriced_calls)
            calls.add_metric([*labels, "ok"], total.api_calls - total.errors)
            calls.add_metric([*labels, "error"], total.errors)
            cache.add_metric([*labels, "hit"], total.cache_hits)
            cache.add_metric([*labels, "miss"], total.cache_misses)
        yield from (tokens, cost, unpriced, calls, cache)

    def _counter(self, name: str, text: str, labels: list[str]) -> CounterMetricFamily:
        return CounterMetricFamily(f"{self._prefix}_{name}", text, labels=labels)

    def _histogram(self, name: str, text: str, label: str, of: Mapping[str, _Histogram]) -> HistogramMetricFamily:
        family = HistogramMetricFamily(f"{self._prefix}_{name}", text, labels=[label])
        for value, histogram in of.items():
            family.add_metric([value], histogram.buckets(), histogram.total)
        return family


class _Histogram:
    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.total = 0.0

    def buckets(self) -> list[tuple[str, float]]:
        below, result = 0, []
        for bound, count in zip((*map(str, SECONDS), "+Inf"), self.counts, strict=True):
            below += count
            result.append((bound, float(below)))
        return result


def _observe(of: dict[str, _Histogram], name: str, seconds: float) -> None:
    histogram = of.get(name)
    if histogram is None:
        histogram = of.setdefault(_series(of, name), _Histogram())
    histogram.counts[bisect_left(SECONDS, seconds)] += 1
    histogram.total += seconds


def _series(known: Mapping[str, Any], name: str) -> str:
    return name if name in known or len(known) < MAX_SERIES else "(other)"


def _numbers(source: Callable[[], Any]) -> list[tuple[str, float]]:
    try:
        return list(_flat("", source()))
    except Exception:
        return []


def _flat(prefix: str, statistics: Any) -> Iterator[tuple[str, float]]:
    if isinstance(statistics, bool | int | float):
        yield prefix, float(statistics)
    elif isinstance(statistics, msgspec.Struct):
        yield from _flat(prefix, msgspec.structs.asdict(statistics))
    elif dataclasses.is_dataclass(statistics) and not isinstance(statistics, type):
        yield from _flat(prefix, {f.name: getattr(statistics, f.name) for f in dataclasses.fields(statistics)})
    elif isinstance(statistics, Mapping):
        for name, value in statistics.items():
            yield from _flat(f"{prefix}_{name}" if prefix else str(name), value)
