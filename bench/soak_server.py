"""The server under soak: five programs, every kind of layer around them and their LM, and a look inside at ``/soak``.

python bench/soak_server.py PORT LM_URL
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import dspy
import orjson

from dspy_live import LM, Runtime
from dspy_live.layers import Breaker, Budget, Deadline, Limit, Rate, Retry, Shed, SingleFlight, Timeouts
from dspy_live.layers.detached import leaving
from dspy_live.programs.run.program import ProgramService
from dspy_live.runtime.books.account import Account
from dspy_live.runtime.execution.execution import parked
from dspy_live.server import ServedProgram, create_app
from dspy_live.server.transport.serve import serve

RUNS, LM_CALLS = 600, 200


class Rag(dspy.Module):
    """Two LM calls, one after the other, and a program that cleans up."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = dspy.ChainOfThought("question -> answer")
        self.sum = dspy.Predict("text -> summary")

    def forward(self, question: str) -> Any:
        try:
            return self.sum(text=self.answer(question=question).answer)
        finally:
            COUNTS["cleaned"] += 1


class NativeRag(Rag):
    async def aforward(self, question: str) -> Any:
        try:
            return await self.sum.acall(text=(await self.answer.acall(question=question)).answer)
        finally:
            COUNTS["cleaned"] += 1


class Agent(dspy.Module):
    """An agent whose tool blocks, as tools do."""

    def __init__(self) -> None:
        super().__init__()
        self.agent = dspy.ReAct("question -> answer", tools=[look_up], max_iters=2)

    def forward(self, question: str) -> Any:
        return self.agent(question=question)

    async def aforward(self, question: str) -> Any:
        return await self.agent.acall(question=question)


def look_up(word: str) -> str:
    """Look a word up."""
    time.sleep(0.02)
    return f"{word}: nothing is known of it"


class Parallel(dspy.Module):
    """Three questions at once, by DSPy's own threads."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question: str) -> Any:
        parallel = dspy.Parallel(num_threads=3, disable_progress_bar=True, max_errors=1)
        answers = parallel([(self.ask, {"question": f"{question} {n}"}) for n in range(3)])
        return dspy.Prediction(answer=" ".join(str(one.answer) for one in answers))


COUNTS: Counter[str] = Counter()


class Counting:
    """Every run that begins must end, once."""

    def __init__(self) -> None:
        self.open: set[str] = set()

    def run_started(self, call: Any) -> None:
        COUNTS["started"] += 1
        COUNTS["started twice"] += call.id in self.open
        self.open.add(call.id)

    def lm_call_ended(self, record: Any) -> None:
        COUNTS["lm requests"] += 1
        COUNTS[f"lm {record.error or 'ok'}"] += 1

    def run_ended(self, record: Any) -> None:
        COUNTS["ended"] += 1
        COUNTS["ended twice"] += record.call.id not in self.open
        self.open.discard(record.call.id)
        COUNTS[f"run {type(record.error).__name__ if record.error is not None else 'ok'}"] += 1


def make_app(lm_url: str) -> Any:
    account, limit, lm_limit = Account(), Limit(RUNS, queue=0), Limit(LM_CALLS, queue=2000)
    account.observe(Counting())  # type: ignore[arg-type]
    layers = [Shed(RUNS * 2), Deadline(60), Budget(max_calls=10**9), limit]
    lm_layers = [
        SingleFlight(),
        Retry(2, budget=None),
        Breaker(failures=0.99),
        Rate(requests_per_minute=1e6),
        lm_limit,
        Timeouts(first_token=3, idle=3),
    ]
    runtime = Runtime(account=account, layers=layers, lm_layers=lm_layers)
    dspy.configure(
        lm=LM(
            "openai/gpt-4o-mini",
            api_base=lm_url,
            api_key="x",
            cache=False,
        )
    )
    programs = {}
    for name, program, execution in (
        ("native", NativeRag(), "native"),
        ("thread", Rag(), "thread"),
        ("inline", Rag(), "inline"),
        ("agent", Agent(), "native"),
        ("parallel", Parallel(), "thread"),
    ):
        service = ProgramService(program, name=name, execution=execution, runtime=runtime, served=True)  # type: ignore[arg-type]
        programs[name] = ServedProgram(name, service.layered(), service.schema)
    app = create_app(programs)

    async def with_a_look_inside(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == "/soak":
            body = orjson.dumps(look(limit, lm_limit))
            head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": head})
            await send({"type": "http.response.body", "body": body})
            return
        await app(scope, receive, send)

    return app, with_a_look_inside


def look(limit: Limit, lm_limit: Limit) -> dict[str, Any]:
    """What there is in this process now."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "tasks": len(asyncio.all_tasks()),
        "threads": threading.active_count(),
        "files": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
        "rss_mb": pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
        "slots": limit.statistics().active,
        "lm_slots": lm_limit.statistics().active,
        "leaving": leaving(),
        "parked": parked(),
        "counts": dict(COUNTS),
    }


if __name__ == "__main__":
    app, wrapped = make_app(sys.argv[2])
    serve(app, "127.0.0.1", int(sys.argv[1]), wrap=lambda _: wrapped)
