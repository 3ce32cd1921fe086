"""The cost of ledger, metrics and traces per run: the same program with each on and off, in turns, in one process.

    python bench/observing.py [--runs 100] [--rounds 40]

The LM is simulated and takes no time, so that the share is the largest there can be. CPU time of all threads, the
ledger's writer too; the best and the median of many short rounds, in random order, since the machine may be busy.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import math
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy

from dspy_live import LM, Runtime, asyncify, set_prices
from dspy_live.observe.ledger import open_ledger
from dspy_live.observe.metrics import Metrics
from dspy_live.observe.tracing import PER_SECOND, Tracing
from dspy_live.runtime.books.account import Account
from dspy_live.simulator.endpoint import SimulatedEndpoint


def with_nothing(account: Account) -> list[Any]:
    return []


def with_ledger(account: Account) -> list[Any]:
    return [open_ledger(Path(tempfile.mkdtemp()) / "ledger.db").attach(account)]


def with_metrics(account: Account) -> list[Any]:
    return [Metrics(account)]


def with_both(account: Account) -> list[Any]:
    return [*with_ledger(account), *with_metrics(account)]


def with_all(account: Account) -> list[Any]:
    return [*with_both(account), *with_traces(account)]


def with_every_span(account: Account) -> list[Any]:
    return with_traces(account, math.inf)


def with_traces(account: Account, per_second: float = PER_SECOND) -> list[Any]:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(InMemorySpanExporter()))
    return [Tracing(provider, per_second=per_second, account=account, owned=provider)]


KINDS: dict[str, Callable[[Account], list[Any]]] = {
    "off": with_nothing,
    "ledger": with_ledger,
    "metrics": with_metrics,
    "ledger+metrics": with_both,
    "traces": with_traces,
    "all three": with_all,
    "every run traced": with_every_span,
}


async def one_round(kind: str, runs: int) -> float:
    """Return microseconds of CPU per run."""
    account = Account()
    observers = KINDS[kind](account)
    program = asyncify(dspy.Predict("question -> answer"), runtime=Runtime(account=account))
    for n in range(int(PER_SECOND)):  # the burst that is traced of a server that was idle
        await program(question=f"first {n}")
    began = time.process_time()
    for start in range(0, runs, 30):
        await asyncio.gather(*(program(question=f"q{n}") for n in range(start, start + 30)))
    for observer in observers:
        if hasattr(observer, "flush"):
            observer.flush()
    used = time.process_time() - began
    for observer in observers:
        observer.close()
    return used / runs * 1e6


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    set_prices({"openai/simulated": {"input": 1, "output": 1}})
    dspy.configure(lm=LM("openai/simulated", endpoint=SimulatedEndpoint(), cache=False), disable_history=True)
    logging.getLogger("dspy_live").setLevel(logging.ERROR)  # that it traces a share of the runs is the point
    measured: dict[str, list[float]] = {kind: [] for kind in KINDS}
    kinds = list(KINDS)
    for _ in range(options.rounds):
        random.shuffle(kinds)
        for kind in kinds:
            measured[kind].append(asyncio.run(one_round(kind, options.runs)))
    print(f"{'':<18}{'us/run, best':>13}{'of off':>8}{'median':>8}{'of off':>8}")
    for kind, values in measured.items():
        best, middle = min(values), statistics.median(values)
        off_best, off_middle = min(measured["off"]), statistics.median(measured["off"])
        print(f"{kind:<18}{best:>13.0f}{best / off_best:>8.1%}{middle:>8.0f}{middle / off_middle:>8.1%}")


if __name__ == "__main__":
    main()
