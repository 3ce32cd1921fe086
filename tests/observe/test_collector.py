"""A collector that never answers, or is not there, delays no run and holds up no end for long."""

from __future__ import annotations

import asyncio
import math
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from typing import Any

import dspy
import pytest
from tests.observe.collectors import BlackHole
from tests.observe.collectors import collector as a_collector
from tests.support.until import BOUND, until

from dspy_live import LM, Runtime, asyncify
from dspy_live.cli.run_recording import run_recording
from dspy_live.observe import collector
from dspy_live.observe.otel_metrics import setup_otel_metrics
from dspy_live.observe.tracing import setup_tracing
from dspy_live.runtime.books.account import Account, process_account
from dspy_live.simulator.endpoint import SimulatedEndpoint


@pytest.fixture
def black_hole() -> Iterator[BlackHole]:
    hole = BlackHole()
    yield hole
    hole.close()


@pytest.fixture
def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


async def run(account: Account, times: int) -> int:
    """Run a program so many times, 50 at once, and return how many have ended."""
    ask = asyncify(dspy.Predict("question -> answer"), runtime=Runtime(account=account))
    done = 0
    with dspy.context(lm=LM("openai/simulated", endpoint=SimulatedEndpoint(), cache=False)):
        for start in range(0, times, 50):
            answers = await asyncio.gather(*(ask(question=f"{n}") for n in range(start, start + 50)))
            done += len(answers)
    return done


def in_time(work: Any) -> None:
    """Fail where ``work`` has not ended after half a minute, and do not wait for it for ever."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(BOUND)
    assert not thread.is_alive()


def test_runs_go_on_while_the_collector_is_silent_and_the_end_does_not_wait_for_it(
    black_hole: BlackHole, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A request that would take ten minutes: whoever waited for it would be seen.
    monkeypatch.setattr(collector, "REQUEST_SECONDS", 600.0)
    monkeypatch.setattr(collector, "CLOSE_SECONDS", 0.2)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    account = Account()
    tracing = setup_tracing(black_hole.url, per_second=math.inf, account=account)
    assert asyncio.run(run(account, 50)) == 50
    until(lambda: black_hole.held)  # now the sending thread stands still
    # More spans than the queue holds: they are dropped, and nobody waits.
    in_time(lambda: asyncio.run(run(account, 800)))
    in_time(tracing.close)
    assert [thread.name for thread in threading.enumerate() if thread.name == "dspy-live-close"]  # it waits alone
    assert account.observers == ()


def test_nor_for_one_that_is_not_there(closed_port: str, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setattr(collector, "CLOSE_SECONDS", 0.2)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    account = Account()
    tracing = setup_tracing(closed_port, per_second=math.inf, account=account)
    assert asyncio.run(run(account, 100)) == 100
    in_time(tracing.close)
    in_time(tracing.close)  # again, it does nothing


def test_metrics_wait_for_no_collector_either(black_hole: BlackHole, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "REQUEST_SECONDS", 600.0)
    monkeypatch.setattr(collector, "CLOSE_SECONDS", 0.2)
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "10")
    account = Account()
    metrics = setup_otel_metrics(black_hole.url, account=account)
    assert asyncio.run(run(account, 50)) == 50
    until(lambda: black_hole.held)
    in_time(lambda: asyncio.run(run(account, 200)))
    in_time(metrics.close)


PROGRAM = """
import asyncio
import dspy
from dspy_live import LM, asyncify
from dspy_live.observe import collector
from dspy_live.observe.tracing import setup_tracing
from dspy_live.simulator.endpoint import SimulatedEndpoint

collector.CLOSE_SECONDS, collector.REQUEST_SECONDS = 0.3, 600.0
setup_tracing("URL")
dspy.configure(lm=LM("openai/simulated", endpoint=SimulatedEndpoint(), cache=False))
asyncio.run(asyncify(dspy.Predict("question -> answer"))(question="Why?"))
input()
print("done", flush=True)
"""


def test_a_process_that_forgets_to_close_ends_all_the_same(
    black_hole: BlackHole, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a request to its collector is under way that would take ten minutes."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    program = textwrap.dedent(PROGRAM).replace("URL", black_hole.url)
    words, pipe = [sys.executable, "-c", program], subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            until(lambda: black_hole.held)
            told, _ = process.communicate("end\n", timeout=BOUND)
        finally:
            process.kill()
    assert (told, process.returncode) == ("done\n", 0)


def test_a_sender_sends_nothing_after_its_time() -> None:
    class Exporter:
        batches: list[Any] = []
        _preferred = "kept"

        def export(self, batch: Any) -> str:
            self.batches.append(batch)
            return "sent"

    exporter = collector.UntilClosed(Exporter(), "failed")
    assert exporter.export([1]) == "sent"
    assert exporter.close_after(600)
    assert exporter.export([2]) == "sent"
    assert not exporter.close_after(0)
    over = collector.UntilClosed(Exporter(), "failed")
    over.close_after(0)
    assert over.export([3]) == "failed"
    assert Exporter.batches == [[1], [2]]
    assert over._preferred == "kept"


@pytest.mark.parametrize(("name", "expected"), [("OTEL_EXPORTER_OTLP_TIMEOUT", None), ("ANOTHER", 5.0)])
def test_the_environments_timeout_comes_first(monkeypatch: pytest.MonkeyPatch, name: str, expected: Any) -> None:
    monkeypatch.setenv(name, "3")
    assert collector._timeout("TRACES") == expected


def test_a_command_sends_spans_and_metrics_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "REQUEST_SECONDS", BOUND)
    monkeypatch.setattr(collector, "CLOSE_SECONDS", BOUND)
    monkeypatch.setenv("DSPY_LIVE_LEDGER", "none")
    observers = process_account().observers
    with a_collector() as (url, received):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp")
        with run_recording():
            assert asyncio.run(run(process_account(), 50)) == 50
    assert {path for path, _ in received} == {"/v1/traces", "/v1/metrics"}
    sent = b"".join(body for _, body in received)
    assert b"invoke_workflow Predict" in sent
    assert b"gen_ai.client.inference.duration" in sent
    assert process_account().observers == observers
