"""What observers keep of a run goes with it, however it ends."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from typing import Any

import dspy
import pytest
from tests.observe.spans import Traced, traced
from tests.support.until import async_until

from dspy_live import LM, asyncify
from dspy_live.observe.metrics import Metrics
from dspy_live.observe.otel_metrics import OtelMetrics
from dspy_live.observe.prompts import MAX_FAILED, PromptHider
from dspy_live.observe.run_spans import RunSpans
from dspy_live.programs.run.parts import PartReporter
from dspy_live.programs.run.run import Run
from dspy_live.simulator.endpoint import SimulatedEndpoint

__all__ = ["traced"]  # a fixture

KINDS = (RunSpans, PartReporter, Run)


class Sometimes(dspy.Module):  # type: ignore[misc]
    """Answers, fails, or is left by its caller, by turns."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.ChainOfThought("question -> answer")

    def forward(self, question: str) -> Any:
        answer = self.ask(question=question)
        if int(question) % 3 == 1:
            raise ValueError(question)
        return answer


def alive() -> Counter[str]:
    gc.collect()
    return Counter(type(item).__name__ for item in gc.get_objects() if type(item) in KINDS)


@pytest.mark.parametrize("way", ["thread", "inline"])
@pytest.mark.parametrize("per_second", [1000, 0.001])
async def test_nothing_of_a_run_outlives_it(traced: Traced, way: Any, per_second: float) -> None:
    from opentelemetry.sdk.metrics import MeterProvider

    before = alive()
    account = traced.account
    tracing, metrics, hider = traced.start(per_second=per_second), Metrics(account), PromptHider(account)
    measured = OtelMetrics(MeterProvider(shutdown_on_exit=False), account=account)
    program = asyncify(Sometimes(), execution=way, runtime=traced.runtime)
    with dspy.context(lm=LM("openai/simulated", endpoint=SimulatedEndpoint(), cache=False), disable_history=True):
        for start in range(0, 150, 30):
            runs = [asyncio.ensure_future(program(question=f"{n}")) for n in range(start, start + 30)]
            await asyncio.sleep(0)
            for task in runs[2::3]:
                task.cancel()
            await asyncio.gather(*runs, return_exceptions=True)
    await async_until(lambda: not metrics._running)
    assert not tracing._traced
    assert not tracing._untraced
    assert not tracing._records
    assert not hider._running
    assert len(hider._failed) <= MAX_FAILED
    del runs, task, program
    await async_until(lambda: alive() <= before)  # those of other tests may go meanwhile
    assert len(measured._sums) <= 2  # by model, and by that of a reply that never came
