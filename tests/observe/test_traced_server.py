"""A real server under a real client: the caller's trace, sessions, metrics, and a client that leaves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dspy
import httpx
import pytest
from tests.observe.spans import CHAT, AsksInThreads, AsksNatively, Traced, attributes, outcome, traced
from tests.programs.conftest import Sim, sim
from tests.server.support import serving
from tests.support.until import until

from dspy_live import create_app
from dspy_live.observe.metrics import Metrics
from dspy_live.runtime.books.account import process_account
from dspy_live.simulator import Simulator

__all__ = ["sim", "traced"]  # fixtures

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def process_traced(traced: Traced) -> Iterator[Traced]:
    """The same, of the process's own account, which a server books in."""
    traced.account = process_account()
    tracing = traced.start()
    yield traced
    tracing.close()


@pytest.mark.parametrize("path", ["/predict", "/predict/stream"])
@pytest.mark.parametrize("kind", [AsksNatively, AsksInThreads])
def test_all_of_a_request_is_in_the_callers_trace(process_traced: Traced, sim: Sim, kind: Any, path: str) -> None:
    program = kind(process_traced.user)
    program.set_lm(sim.lm())
    with serving(create_app(program)) as live:
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
        reply = httpx.post(live.url + path, json={"question": "Why?"}, headers=headers, timeout=30)
        assert reply.status_code == 200
    run = f"invoke_workflow {kind.__name__}"
    until(lambda: process_traced.named(run))
    (tree,) = process_traced.tree()
    assert tree[0] == run
    assert {f"{span.context.trace_id:032x}" for span in process_traced.spans} == {TRACE}
    parent = process_traced.one(run).parent
    assert parent is not None
    assert f"{parent.span_id:016x}" == PARENT
    streamed = [attributes(span).get("gen_ai.request.stream") for span in process_traced.named(CHAT)]
    assert set(streamed) == ({True} if path.endswith("stream") else {None})


@pytest.fixture
def endless() -> Iterator[Sim]:
    """A simulated LM whose replies do not end within a test."""
    server = Simulator(seed=1, ttft=0.02, tokens_per_second=20, length=20_000)
    with server.running() as url:
        yield Sim(url if url.endswith("/v1") else f"{url}/v1", server)


def test_a_client_that_leaves_cancels_and_fails_nothing(process_traced: Traced, endless: Sim) -> None:
    metrics = Metrics()
    program = dspy.Predict("question -> answer")
    program.set_lm(endless.lm())
    try:
        with serving(create_app(program)) as live:
            with httpx.stream("POST", live.url + "/predict/stream", json={"question": "Why?"}, timeout=30) as reply:
                next(reply.iter_bytes())
            until(lambda: process_traced.named("invoke_workflow Predict"))
        assert {outcome(span) for span in process_traced.spans} == {("cancelled", None, False)}
        assert 'dspy_live_requests_total{outcome="cancelled",program="Predict"} 1.0' in metrics.render().decode()
    finally:
        metrics.close()
