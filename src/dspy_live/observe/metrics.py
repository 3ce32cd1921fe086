"""Prometheus metrics. Counting a run costs a few microseconds and a token nothing: a scrape puts the numbers together.

Tokens, cost, LM calls and cache use are read from the account, so that they are the tracker's own numbers.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from dspy_live.core.call import Call
from dspy_live.core.observer import RunRecord
from dspy_live.core.usage import LMRecord
from dspy_live.observe import semconv
from dspy_live.observe.histograms import Histograms, series
from dspy_live.observe.lm_spans import outcome_of
from dspy_live.observe.outcomes import of_run, outcome_and_error
from dspy_live.runtime.books.account import Account, process_account
from dspy_live.runtime.books.totals import Totals

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MAX_SERIES = 200
"""Names (programs, models, errors, tools) that get a series of their own; further ones share ``(other)``."""

_TOKENS = {
    "prompt": "prompt_tokens",
    "completion": "completion_tokens",
    "cached": "cached_tokens",
    "reasoning": "reasoning_tokens",
    "estimated": "estimated_tokens",
}


_OTHERS = ("(other)", "(other)")


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
        self._ended: dict[tuple[str, str, str], int] = {}
        self._tools: dict[tuple[str, str], int] = {}
        self._cancelled_lm_calls: dict[tuple[str, str], int] = {}
        self._duration = Histograms(MAX_SERIES)
        self._ttft = Histograms(MAX_SERIES)
        self._lm_duration = Histograms(MAX_SERIES)
        self._tool_duration = Histograms(MAX_SERIES)
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

    # A RunObserver and a ToolObserver.

    def run_started(self, call: Call) -> None:
        program = call.program
        with self._lock:
            if program not in self._active:
                program = series(self._active, program, MAX_SERIES)
                self._active.setdefault(program, 0)
            self._active[program] += 1
            self._running[call.id] = program

    def lm_call_ended(self, record: LMRecord) -> None:
        if record.cache == "hit":
            return
        with self._lock:
            self._lm_duration.add(record.model, record.latency)
            if record.error is not None and outcome_of(record) == semconv.CANCELLED:
                key = (record.program, record.model)
                self._cancelled_lm_calls[key] = self._cancelled_lm_calls.get(key, 0) + 1

    def run_ended(self, record: RunRecord) -> None:
        with self._lock:
            program = self._running.pop(record.call.id, None)
            if program is None:
                return
            self._active[program] -= 1
            outcome, error = of_run(record)
            ended = (program, outcome, error)
            if error and ended not in self._ended and len(self._ended) >= MAX_SERIES:
                ended = (program, semconv.ERROR, "(other)")
            self._ended[ended] = self._ended.get(ended, 0) + 1
            self._duration.add(program, record.duration)
            if record.ttft is not None:
                self._ttft.add(program, record.ttft)

    def tool_ended(self, name: str, seconds: float, error: BaseException | None) -> None:
        with self._lock:
            tool = self._tool_duration.add(name, seconds)
            ended = (tool, outcome_and_error(error)[0])
            self._tools[ended] = self._tools.get(ended, 0) + 1

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
        for (program, outcome, error), count in self._ended.items():
            outcomes[program, outcome] = outcomes.get((program, outcome), 0) + count
            if error:
                errors.add_metric([program, error], count)
        for labels, count in outcomes.items():
            requests.add_metric(list(labels), count)
        active = GaugeMetricFamily(f"{self._prefix}_requests_active", "Runs under way.", labels=["program"])
        for program, count in self._active.items():
            active.add_metric([program], count)
        tools = self._counter("tool_calls", "Calls of tools that have ended, by outcome.", ["tool", "outcome"])
        for of_tool, count in self._tools.items():
            tools.add_metric(list(of_tool), count)
        yield from (requests, errors, active, tools)
        yield self._histogram("request_duration_seconds", "How long runs took.", "program", self._duration)
        yield self._histogram("time_to_first_token_seconds", "From a run's start to its token.", "program", self._ttft)
        yield self._histogram("lm_call_duration_seconds", "How long LM calls took.", "model", self._lm_duration)
        yield self._histogram("tool_duration_seconds", "How long tools took.", "tool", self._tool_duration)

    def _of_the_account(self) -> Iterator[Metric]:
        names = ["program", "model"]
        tokens = self._counter("tokens", "Tokens, by kind; cached and reasoning ones are parts.", [*names, "kind"])
        cost = self._counter("cost_dollars", "US dollars of the LM calls with a known price.", names)
        unpriced = self._counter("unpriced_calls", "LM calls without a known price.", names)
        calls = self._counter("lm_calls", "Requests that were sent to LMs.", [*names, "outcome"])
        cache = self._counter("cache_lookups", "Look-ups in the response cache.", [*names, "result"])
        sums, cancelled = self._sums()
        for key, total in sums.items():
            labels = list(key)
            for kind, name in _TOKENS.items():
                tokens.add_metric([*labels, kind], getattr(total, name))
            cost.add_metric(labels, total.total_cost)
            unpriced.add_metric(labels, total.unpriced_calls)
            left = min(cancelled.get(key, 0), total.errors)
            calls.add_metric([*labels, semconv.OK], total.api_calls - total.errors)
            calls.add_metric([*labels, semconv.ERROR], total.errors - left)
            calls.add_metric([*labels, semconv.CANCELLED], left)
            cache.add_metric([*labels, "hit"], total.cache_hits)
            cache.add_metric([*labels, "miss"], total.cache_misses)
        yield from (tokens, cost, unpriced, calls, cache)

    def _sums(self) -> tuple[dict[tuple[str, str], Totals], dict[tuple[str, str], int]]:
        """Return the account's totals by program and model, and how many of their errors are cancelled calls."""
        sums: dict[tuple[str, str], Totals] = {}
        for key, total in self.account.totals.copy().items():
            of = (key.program, key.model)
            if of not in sums and len(sums) >= MAX_SERIES:
                of = _OTHERS
            sums[of] = sums[of].plus(total) if of in sums else total
        cancelled: dict[tuple[str, str], int] = {}
        with self._lock:
            for of, count in self._cancelled_lm_calls.items():
                shown = of if of in sums else _OTHERS
                cancelled[shown] = cancelled.get(shown, 0) + count
        return sums, cancelled

    def _counter(self, name: str, text: str, labels: list[str]) -> CounterMetricFamily:
        return CounterMetricFamily(f"{self._prefix}_{name}", text, labels=labels)

    def _histogram(self, name: str, text: str, label: str, of: Histograms) -> HistogramMetricFamily:
        family = HistogramMetricFamily(f"{self._prefix}_{name}", text, labels=[label])
        for value, histogram in of.items():
            family.add_metric([value], histogram.buckets(), histogram.total)
        return family


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
