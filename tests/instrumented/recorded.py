"""Runs DSPy programs on dspy-live under a tool that records them, and prints the spans that the tool saw, as JSON.

Run in the environment ``instrumented`` as ``python recorded.py openinference|mlflow [first]``, where ``first`` switches
the tool on before dspy-live is imported. It needs nothing of pytest.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

HOME = tempfile.mkdtemp(prefix="dspy-live-recorded-")
os.environ.update(DSPY_CACHEDIR=f"{HOME}/cache", DSPY_LIVE_HOME=HOME, LITELLM_LOCAL_MODEL_COST_MAP="true")

import dspy  # noqa: E402
from tools import TOOLS, Recorder  # noqa: E402

FIRST = TOOLS[sys.argv[1]](HOME) if sys.argv[2:] == ["first"] else None

import dspy_live  # noqa: E402
from dspy_live.observe.tracing import setup_tracing  # noqa: E402
from dspy_live.simulator import Faults, Simulator  # noqa: E402

MODEL = "openai/gpt-4o-mini"
MANY = 20


class Rag(dspy.Module):  # type: ignore[misc]
    """Two predictors, one inside another module; native or not."""

    def __init__(self) -> None:
        super().__init__()
        self.think = dspy.ChainOfThought("question -> answer")
        self.name = dspy.Predict("answer -> title")

    def forward(self, question: str) -> Any:
        return self.name(answer=self.think(question=question).answer)

    async def aforward(self, question: str) -> Any:
        return await self.name.acall(answer=(await self.think.acall(question=question)).answer)


class Fan(dspy.Module):  # type: ignore[misc]
    """Asks in DSPy's own threads."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question: str) -> Any:
        parallel = dspy.Parallel(num_threads=3, disable_progress_bar=True)
        return parallel([(self.ask, {"question": f"{question} {i}"}) for i in range(3)])[0]


class Cases:
    """Each method is a case: it asks, and returns a fact about the answer."""

    def __init__(self, server: Simulator, url: str, recorder: Recorder) -> None:
        self.server, self.url, self.recorder = server, url, recorder

    def lm(self, kind: Any = dspy_live.LM, **options: Any) -> Any:
        return kind(MODEL, api_base=self.url, api_key="sk-secret", **{"cache": False, **options})

    async def retried(self) -> Any:
        self.server.set_faults(Faults(schedule=("500",)))
        retry = dspy_live.Runtime(lm_layers=[_quick_retry()])
        with dspy.context(lm=self.lm(num_retries=0)):
            return (await dspy_live.asyncify(dspy.Predict("question -> answer"), runtime=retry)(question="r")).answer

    async def failed(self) -> Any:
        self.server.set_faults(Faults(schedule=("401",)))
        with dspy.context(lm=self.lm(num_retries=0)):
            try:
                await dspy_live.asyncify(dspy.Predict("question -> answer"))(question="f")
            except dspy.utils.exceptions.LMAuthError:
                return "LMAuthError"

    async def cached(self) -> Any:
        with dspy.context(lm=self.lm(cache=True)):
            ask = dspy_live.asyncify(dspy.Predict("question -> answer"))
            return [(await ask(question="again")).answer for _ in range(2)]

    async def streamed(self) -> Any:
        with dspy.context(lm=self.lm()):
            stream = dspy_live.streamify(Rag(), stream_listeners=[dspy_live.StreamListener("title")])(question="s")
            items = [item async for item in stream]
        text = "".join(item for item in items if isinstance(item, str))
        return text == items[-1].title and [request.get("stream") for request in self.server.requests[-2:]]

    async def left(self) -> Any:
        self.server.set_faults(Faults(schedule=("stall_start",)))
        with dspy.context(lm=self.lm(num_retries=0)):
            ask = asyncio.create_task(dspy_live.asyncify(dspy.Predict("question -> answer"))(question="l"))
            while not self.server.stats.active:  # noqa: ASYNC110 - the server is in another thread
                await asyncio.sleep(0.002)
            ask.cancel()
            return type((await asyncio.gather(ask, return_exceptions=True))[0]).__name__

    async def many(self) -> Any:
        with dspy.context(lm=self.lm()):
            ask = dspy_live.asyncify(Rag())
            return len(await asyncio.gather(*(ask(question=f"q{i}") for i in range(MANY))))

    async def fan(self) -> Any:
        with dspy.context(lm=self.lm()):
            return bool((await dspy_live.asyncify(Fan())(question="p")).answer)

    async def agent(self) -> Any:
        asked: list[str] = []

        def look_up(key: str) -> str:
            """Look something up."""
            asked.append(key)
            return "a fact"

        with dspy.context(lm=self.lm()):
            program = dspy.ReAct("question -> answer", tools=[look_up], max_iters=3)
            await dspy_live.asyncify(program)(question="Look up Rust, please.")
        return len(asked)

    def batch(self) -> Any:
        with dspy.context(lm=self.lm()):
            return len(dspy_live.batch(dspy.Predict("question -> answer"), [{"question": f"b{i}"} for i in range(3)]))

    def without_a_run(self) -> Any:
        with dspy.context(lm=self.lm()):
            return bool(Rag()(question="w").title)

    async def ours_as_well(self) -> Any:
        return await self._with_our_spans(parts=True)

    async def ours_without_parts(self) -> Any:
        return await self._with_our_spans(parts=False)

    async def _with_our_spans(self, *, parts: bool) -> Any:
        tracing = setup_tracing(provider=self.recorder.provider, parts=parts)
        try:
            with dspy.context(lm=self.lm()):
                return bool((await dspy_live.asyncify(Rag())(question="o")).title)
        finally:
            tracing.close()

    async def no_longer_recorded(self) -> Any:
        self.recorder.stop()
        with dspy.context(lm=self.lm()):
            return [bool((await dspy_live.asyncify(Rag())(question="n")).title), await self.agent()]


def _quick_retry() -> Any:
    from dspy_live.layers import Retry
    from dspy_live.sansio.limits.backoff import Backoff

    return Retry(3, backoff=Backoff(base=0.001, cap=0.001))


def _executions(cases: Cases) -> Iterator[tuple[str, Callable[[], Any]]]:
    for execution in ("native", "thread", "inline"):
        for kind in (dspy_live.LM, dspy.LM):

            async def case(execution: Any = execution, kind: Any = kind) -> Any:
                with dspy.context(lm=cases.lm(kind)):
                    return bool((await dspy_live.asyncify(Rag(), execution=execution)(question="x")).title)

            yield f"{execution} {kind.__module__.partition('.')[0]}", case


@contextmanager
def _requests(server: Simulator) -> Iterator[list[int]]:
    count: list[int] = []
    before = len(server.requests)
    yield count
    count.append(len(server.requests) - before)


def main(tool: str) -> None:
    recorder = FIRST or TOOLS[tool](HOME)
    server = Simulator(seed=1)
    server.keep_requests = True
    told: dict[str, Any] = {}
    with server.running() as url:
        cases = Cases(server, url, recorder)
        names = [name for name in vars(Cases) if not name.startswith("_") and name not in ("lm", "no_longer_recorded")]
        chosen = [*_executions(cases), *((name, getattr(cases, name)) for name in names)]
        for name, case in [*chosen, ("no_longer_recorded", cases.no_longer_recorded)]:
            server.set_faults(Faults())
            with _requests(server) as requests:
                result = case()
                result = asyncio.run(result) if asyncio.iscoroutine(result) else result
            told[name] = {"result": result, "spans": recorder.take(), "requests": requests[0]}
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1])
