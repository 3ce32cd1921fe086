"""Whatever a program does and however it ends: its spans are one tree, all ended, each within its parent's time."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import dspy
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.observe.spans import PARALLEL, Traced, attributes

from dspy_live import LM, asyncify
from dspy_live.core.call import Call
from dspy_live.core.observer import RunRecord
from dspy_live.core.usage import LMRecord
from dspy_live.simulator.endpoint import SimulatedEndpoint

ALLOWANCE = 2_000_000
"""Nanoseconds: a request's time is taken on another clock than its span's end."""


class Built(dspy.Module):  # type: ignore[misc]
    """A program after a plan: ``"ask"`` asks an LM, ``"fail"`` fails, a tuple (how, parts) does its parts."""

    def __init__(self, plan: Any) -> None:
        super().__init__()
        self.plan = plan
        if plan == "ask":
            self.step = dspy.Predict("question -> answer")
        elif plan != "fail":
            self.parts = [Built(part) for part in plan[1]]

    def forward(self, question: str) -> Any:
        if self.plan == "ask":
            return self.step(question=question)
        if self.plan == "fail":
            raise ValueError(question)
        if self.plan[0] == "each":
            return [part(question=question) for part in self.parts]
        if self.plan[0] == "caught":
            with contextlib.suppress(ValueError):
                return [part(question=question) for part in self.parts]
            return None
        parallel = PARALLEL[self.plan[0]](num_threads=2, max_errors=100, disable_progress_bar=True)
        return parallel([(part, {"question": question}) for part in self.parts])


HOW = st.sampled_from(["each", "caught", *PARALLEL])
PLANS = st.recursive(
    st.sampled_from(["ask", "ask", "ask", "fail"]),
    lambda parts: st.tuples(HOW, st.lists(parts, max_size=3)),
    max_leaves=6,
)


class Books:
    """Counts what the books know of."""

    def __init__(self) -> None:
        self.lm_calls = 0
        self.runs = 0

    def run_started(self, call: Call) -> None: ...

    def lm_call_ended(self, record: LMRecord) -> None:
        self.lm_calls += 1

    def run_ended(self, record: RunRecord) -> None:
        self.runs += 1


async def run(traced: Traced, plan: Any, way: Any, leave_after: int | None) -> None:
    program = asyncify(Built(plan), execution=way, runtime=traced.runtime)
    lm = LM("openai/simulated", endpoint=SimulatedEndpoint(), cache=False)
    with dspy.context(lm=lm):
        task = asyncio.ensure_future(program(question="Why?"))
        if leave_after is not None:
            for _ in range(leave_after):
                await asyncio.sleep(0)
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(plan=PLANS, way=st.sampled_from(["thread", "inline"]), leave_after=st.none() | st.integers(0, 40))
@example(plan=("DSPy's", ["ask", ("ours", ["ask", "fail"])]), way="thread", leave_after=None)
@example(plan=("each", ["ask", ("caught", ["fail"]), "ask"]), way="inline", leave_after=3)
def test_the_spans_of_any_run_are_one_tree(plan: Any, way: Any, leave_after: int | None) -> None:
    provider, exporter = TracerProvider(shutdown_on_exit=False), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    traced, books = Traced(provider, exporter), Books()
    tracing = traced.start()
    traced.account.observe(books)
    asyncio.run(run(traced, plan, way, leave_after))
    tracing.close()
    spans = {span.context.span_id: span for span in traced.spans}
    assert len(traced.named("invoke_workflow Built")) == books.runs <= 1
    assert len(traced.named("chat simulated")) == books.lm_calls
    for span in spans.values():
        assert attributes(span)["dspy_live.outcome"] in ("ok", "error", "cancelled")
        if span.name == "invoke_workflow Built":
            assert span.parent is None
            continue
        assert span.parent is not None
        around = spans[span.parent.span_id]
        assert span.name != "chat simulated" or around.name.endswith("step")
        assert (around.start_time or 0) <= (span.start_time or 0) + ALLOWANCE
        assert (span.end_time or 0) <= (around.end_time or 0) + ALLOWANCE
