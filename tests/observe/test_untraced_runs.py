"""A run that is not traced makes no span, no name, no attribute and no callback: counted, call by call."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import dspy
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import Tracer
from opentelemetry.trace import TracerProvider as Provider
from tests.observe.spans import Traced, traced

from dspy_live import LM, asyncify
from dspy_live.observe import semconv
from dspy_live.programs.run import parts
from dspy_live.simulator.endpoint import SimulatedEndpoint

__all__ = ["traced"]  # a fixture

RUNS = 5


class CountingProvider(Provider):
    """A provider whose tracer counts the spans that it is asked for."""

    def __init__(self, inner: Provider) -> None:
        self.tracer: Any = inner.get_tracer("counted")
        self.asked: list[str] = []
        make = self.tracer.start_span

        def start_span(name: str, *arguments: Any, **named: Any) -> Any:
            self.asked.append(name)
            return make(name, *arguments, **named)

        self.tracer.start_span = start_span

    def get_tracer(self, *_: Any, **__: Any) -> Tracer:
        tracer: Tracer = self.tracer
        return tracer


class Asks(dspy.Module):  # type: ignore[misc]
    """Asks its LM, and keeps the callbacks that DSPy has meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.ChainOfThought("question -> answer")
        self.callbacks_seen: list[Any] = []

    async def aforward(self, question: str) -> Any:
        self.callbacks_seen += dspy.settings.callbacks
        return await self.ask.acall(question=question)


@contextmanager
def calls_counted() -> Iterator[Counter[str]]:
    """Count the calls of Python functions in this thread, by the file's name or, of OpenTelemetry, its package."""
    counts: Counter[str] = Counter()

    def count(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            path = Path(frame.f_code.co_filename)
            if "opentelemetry" in path.parts:
                counts[path.parts[path.parts.index("opentelemetry") + 1]] += 1
            elif path.parts[-3:-1] == ("dspy_live", "observe"):
                counts[f"{path.name}:{frame.f_code.co_name}"] += 1

    sys.setprofile(count)
    try:
        yield counts
    finally:
        sys.setprofile(None)


async def run(traced: Traced, program: Any, times: int = RUNS) -> None:
    ask = asyncify(program, execution="native", runtime=traced.runtime)
    with dspy.context(lm=LM("openai/simulated", endpoint=SimulatedEndpoint(), cache=False)):
        for n in range(times):
            await ask(question=f"Why {n}?")


MAKERS = {"run_spans.py", "lm_spans.py", "span_content.py", "semconv.py", "redact.py"}


def made(counts: Counter[str]) -> dict[str, int]:
    """The calls of what makes spans, their names and their contents."""
    return {name: count for name, count in counts.items() if name.partition(":")[0] in MAKERS or name == "sdk"}


async def test_a_run_beyond_the_share_makes_nothing(traced: Traced) -> None:
    provider = CountingProvider(traced.provider)
    tracing = Traced(provider, traced.exporter, traced.account).start(per_second=0.001, contents=True)  # type: ignore[arg-type]
    program = Asks()
    await run(traced, program, 1)  # takes the share
    assert provider.asked == ["invoke_workflow Asks", "module ask", "module ask.predict", "chat simulated"]
    provider.asked.clear()
    program.callbacks_seen.clear()
    names = semconv.span_name.cache_info()
    with calls_counted() as counts:
        await run(traced, program)
    assert provider.asked == []
    assert made(counts) == {}
    assert counts["tracing.py:run_started"] == RUNS  # the counter counts
    assert semconv.span_name.cache_info() == names
    assert program.callbacks_seen == []
    assert tracing.left_out == RUNS
    assert not tracing._untraced
    assert not tracing._records


async def test_an_unsampled_run_costs_the_samplers_question_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    traced = Traced(provider, exporter=None)  # type: ignore[arg-type]
    traced.start(contents=True)
    program = Asks()
    await run(traced, program, 1)
    names = semconv.span_name.cache_info()
    with calls_counted() as counts:
        await run(traced, program)
    assert program.callbacks_seen == []
    assert semconv.span_name.cache_info().misses == names.misses  # no name is made: the one that is there is found
    assert not [name for name in made(counts) if name.startswith(("lm_spans", "span_content", "redact"))]
    assert counts["run_spans.py:__init__"] == counts["run_spans.py:end"] == RUNS


async def test_without_tracing_nothing_of_it_is_called(traced: Traced) -> None:
    program = Asks()
    await run(traced, program, 1)
    with calls_counted() as counts:
        await run(traced, program)
    assert counts == {}
    assert program.callbacks_seen == []


async def test_a_traced_run_has_its_callbacks_and_the_counters_count(traced: Traced) -> None:
    traced.start()
    program = Asks()
    await run(traced, program, 1)
    with calls_counted() as counts:
        await run(traced, program)
    assert [type(callback) for callback in program.callbacks_seen] == [parts.PartReporter] * (RUNS + 1)
    assert counts["run_spans.py:part_started"] == 2 * RUNS
    assert counts["sdk"] > 0


async def test_an_observer_that_cannot_follow_changes_no_run(traced: Traced, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        run_started: Callable[..., None] = lambda *_: None
        lm_call_ended: Callable[..., None] = lambda *_: None
        run_ended: Callable[..., None] = lambda *_: None

        def follow(self, call: Any) -> Any:
            raise RuntimeError("broken")

    traced.account.observe(Broken())
    await run(traced, Asks(), 1)
    assert "Broken.follow" in caplog.text
