"""A run's span is there from its beginning and current in the program's code, in every way to run a program."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import dspy
import pytest
from dspy.utils.exceptions import LMServerError
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from tests.observe.spans import CHAT, PARALLEL, Asks, AsksInThreads, AsksNatively, Traced, attributes, traced
from tests.programs.conftest import Sim, sim
from tests.programs.programs import Gather, InParallel

from dspy_live import asyncify, streamify
from dspy_live.core.call import Call
from dspy_live.core.sink import DISCARD
from dspy_live.observe.conversation import conversation
from dspy_live.programs.internals import ParallelExecutor
from dspy_live.programs.run.parallel_context import keep_context_in_parallel
from dspy_live.programs.run.program import ProgramService
from dspy_live.simulator import Faults

__all__ = ["sim", "traced"]  # fixtures

THOUGHT = ["module think", [["module think.predict", [CHAT]]]]


def a_program(way: str, user: Any) -> Asks:
    return AsksNatively(user) if way == "native" else Asks(user)


@pytest.mark.parametrize("way", ["native", "thread", "inline"])
async def test_the_users_own_spans_are_children_of_the_run(traced: Traced, sim: Sim, way: Any) -> None:
    traced.start()
    with dspy.context(lm=sim.lm()):
        program = a_program(way, traced.user)
        await asyncify(program, execution=way, runtime=traced.runtime)(question="Why?")
    assert traced.tree() == [[f"invoke_workflow {type(program).__name__}", [["in forward", [THOUGHT]]]]]


@pytest.mark.parametrize("way", ["thread", "inline"])
@pytest.mark.parametrize("whose", PARALLEL)
@pytest.mark.parametrize("threads", [1, 2])
async def test_so_they_are_in_threads_of_parallel(traced: Traced, sim: Sim, way: Any, whose: str, threads: int) -> None:
    traced.start()
    program = AsksInThreads(traced.user, PARALLEL[whose], threads)
    with dspy.context(lm=sim.lm()):
        await asyncify(program, execution=way, runtime=traced.runtime)(question="Why?")
    (root,) = traced.tree()
    assert root == ["invoke_workflow AsksInThreads", [["in a thread", [THOUGHT]]] * 2]


async def test_modules_in_threads_of_parallel_have_their_place(traced: Traced, sim: Sim) -> None:
    traced.start()
    with dspy.context(lm=sim.lm()):
        await asyncify(InParallel(), runtime=traced.runtime)(question="Why?")
    assert traced.tree() == [["invoke_workflow InParallel", [["module ask", [CHAT]]] * 4]]


async def test_calls_at_the_same_time_do_not_nest(traced: Traced, sim: Sim) -> None:
    traced.start()
    with dspy.context(lm=sim.lm()):
        await asyncify(Gather(), runtime=traced.runtime)(question="Why?")
    assert traced.tree() == [["invoke_workflow Gather", [["module ask", [CHAT]]] * 3]]


async def test_runs_at_the_same_time_do_not_mix(traced: Traced, sim: Sim) -> None:
    traced.start()
    with dspy.context(lm=sim.lm()):
        programs = [
            asyncify(a_program(way, traced.user), execution=way, runtime=traced.runtime)  # type: ignore[arg-type]
            for way in ("native", "thread", "inline") * 4
        ]
        await asyncio.gather(*(program(question=f"Why {n}?") for n, program in enumerate(programs)))
    trees = traced.tree()
    assert len(trees) == 12
    assert all(tree[1] == [["in forward", [THOUGHT]]] for tree in trees)
    assert len({span.context.trace_id for span in traced.spans}) == 12


async def test_the_context_is_as_it_was_before(traced: Traced, sim: Sim) -> None:
    traced.start()
    before = context.get_current()
    with dspy.context(lm=sim.lm()):
        await asyncify(Asks(traced.user), runtime=traced.runtime)(question="Why?")
        items = [item async for item in streamify(Asks(traced.user), runtime=traced.runtime)(question="Why?")]
    assert items
    assert context.get_current() == before
    assert len(traced.tree()) == 2


def test_a_synchronous_caller_has_the_same_tree(traced: Traced, sim: Sim) -> None:
    traced.start()
    with dspy.context(lm=sim.lm()):
        assert list(streamify(Asks(traced.user), async_streaming=False, runtime=traced.runtime)(question="Why?"))
    assert traced.tree() == [["invoke_workflow Asks", [["in forward", [THOUGHT]]]]]


@pytest.mark.parametrize("way", ["native", "thread", "inline"])
async def test_the_callers_trace_is_the_parent_of_all(traced: Traced, sim: Sim, way: Any) -> None:
    traced.start()
    trace_id, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    service = ProgramService(a_program(way, traced.user), name="P", execution=way, runtime=traced.runtime)
    with dspy.context(lm=sim.lm()):
        await service(Call({"question": "Why?"}, trace=f"00-{trace_id}-{parent}-01"), DISCARD)
    assert {f"{span.context.trace_id:032x}" for span in traced.spans} == {trace_id}
    run = traced.one("invoke_workflow P")
    assert run.parent is not None
    assert f"{run.parent.span_id:016x}" == parent
    assert traced.tree() == [["invoke_workflow P", [["in forward", [THOUGHT]]]]]


async def test_a_span_inside_of_the_callers_trace_is_nearer_than_the_caller(traced: Traced, sim: Sim) -> None:
    traced.start()
    service = ProgramService(Asks(traced.user), name="P", runtime=traced.runtime)
    with dspy.context(lm=sim.lm()), traced.user.start_as_current_span("the web framework's") as own:
        here = own.get_span_context()
        caller = f"00-{here.trace_id:032x}-b7ad6b7169203331-01"
        await service(Call({"question": "Why?"}, trace=caller), DISCARD)
    assert [tree[0] for tree in traced.tree()] == ["the web framework's"]


class Outer(dspy.Module):  # type: ignore[misc]
    def __init__(self, inner: Any, runtime: Any) -> None:
        super().__init__()
        self.step = dspy.Predict("question -> answer")
        self._inner = asyncify(inner, runtime=runtime)

    async def aforward(self, question: str) -> Any:
        await self.step.acall(question=question)
        return await self._inner(question=question)


async def test_a_run_inside_of_a_run_is_inside_of_its_span(traced: Traced, sim: Sim) -> None:
    traced.start()
    with dspy.context(lm=sim.lm()):
        await asyncify(Outer(Asks(traced.user), traced.runtime), runtime=traced.runtime)(question="Why?")
    thought = ["module Asks.think", [["module Asks.think.predict", [CHAT]]]]
    inner = ["invoke_workflow Asks", [["in forward", [thought]]]]
    assert traced.tree() == [["invoke_workflow Outer", [["module step", [CHAT]], inner]]]


async def test_a_run_inside_of_one_that_is_left_out_is_left_out(traced: Traced, sim: Sim) -> None:
    tracing = traced.start(per_second=0.001)
    with dspy.context(lm=sim.lm()):
        outer = asyncify(Outer(dspy.Predict("question -> answer"), traced.runtime), runtime=traced.runtime)
        await outer(question="traced")
        traced.exporter.clear()
        await outer(question="left out")
    assert traced.spans == []
    assert tracing.left_out == 1
    assert not tracing._untraced
    assert not tracing._records


async def test_of_a_run_that_is_left_out_the_users_spans_join_the_callers_trace(traced: Traced, sim: Sim) -> None:
    traced.start(per_second=0.001)
    service = ProgramService(Asks(traced.user), name="P", runtime=traced.runtime)
    with dspy.context(lm=sim.lm()):
        await service(Call({"question": "takes the place"}), DISCARD)
        traced.exporter.clear()
        seen: list[Any] = []
        service.program.think = lambda **_: seen.append(trace.get_current_span().get_span_context()) or "so"
        caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
        await service(Call({"question": "Why?"}, trace=caller), DISCARD)
    assert traced.spans == []  # the caller does not trace, so that the user's span is not sampled either
    assert f"{seen[0].trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"


async def test_the_providers_sampler_leaves_out_the_users_spans_too(sim: Sim) -> None:
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    traced = Traced(provider, exporter=None)  # type: ignore[arg-type]
    tracing = traced.start(per_second=1)
    recording: list[bool] = []
    program = Asks(traced.user)
    program.think = lambda **_: recording.append(trace.get_current_span().is_recording()) or "so"
    for _ in range(3):
        await asyncify(program, runtime=traced.runtime)(question="Why?")
    assert recording == [False] * 3
    assert tracing.left_out == 0  # the sampler's choice takes nobody's place


async def test_the_conversation_is_on_the_run_and_its_lm_calls(traced: Traced, sim: Sim) -> None:
    traced.start()
    with dspy.context(lm=sim.lm()):
        with conversation("thread-7"):
            await asyncify(AsksInThreads(traced.user), runtime=traced.runtime)(question="Why?")
            await sim.lm().acall("outside of any run")
        await asyncify(Asks(traced.user), runtime=traced.runtime)(question="another")
    ids = {span.name: attributes(span).get("gen_ai.conversation.id") for span in traced.spans}
    assert ids["invoke_workflow AsksInThreads"] == "thread-7"
    assert ids["invoke_workflow Asks"] is None
    chats = [attributes(span).get("gen_ai.conversation.id") for span in traced.named(CHAT)]
    assert sorted(chats, key=str) == [None, "thread-7", "thread-7"]


@pytest.mark.parametrize(("wrong", "error"), [(7, TypeError), ("", ValueError)])
def test_a_conversation_without_an_id_is_refused(wrong: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="conversation's id"), conversation(wrong):
        raise AssertionError("not reached")


async def test_baggage_reaches_the_threads_too(traced: Traced, sim: Sim) -> None:
    traced.start()
    seen: list[Any] = []
    program = AsksInThreads(traced.user)
    program.think = lambda **_: seen.append(baggage.get_baggage("tenant")) or "so"
    token = context.attach(baggage.set_baggage("tenant", "a"))
    try:
        await asyncify(program, runtime=traced.runtime)(question="Why?")
    finally:
        context.detach(token)
    assert seen == ["a", "a"]


def test_dspys_executor_is_replaced_once_and_acts_in_runs_only(traced: Traced) -> None:
    keep_context_in_parallel()
    replaced = ParallelExecutor.execute
    keep_context_in_parallel()
    assert ParallelExecutor.execute is replaced
    seen: list[Any] = []
    with traced.user.start_as_current_span("outside of a run"):
        executor = ParallelExecutor(num_threads=2, disable_progress_bar=True)
        executor.execute(lambda _: seen.append(trace.get_current_span().get_span_context().is_valid), [1, 2])
    assert seen == [False, False]


async def test_the_model_and_reasons_of_the_reply_and_the_server_are_told(traced: Traced, sim: Sim) -> None:
    traced.start()
    with dspy.context(lm=sim.lm(max_tokens=2000)):
        async for _ in streamify(dspy.Predict("question -> answer"), runtime=traced.runtime)(question="Why?"):
            pass
        await asyncify(dspy.Predict("question -> answer"), runtime=traced.runtime)(question="Why?")
    streamed, whole = (attributes(span) for span in traced.named(CHAT))
    host, port = sim.url.removeprefix("http://").removesuffix("/v1").split(":")
    for found in (streamed, whole):
        assert found["gen_ai.response.model"] == "gpt-4o-mini"
        assert found["gen_ai.response.finish_reasons"] == ("stop",)
        assert (found["server.address"], found["server.port"]) == (host, int(port))
        assert found["gen_ai.usage.input_tokens"] > 0
    assert streamed["gen_ai.request.stream"] is True
    assert streamed["gen_ai.response.time_to_first_chunk"] > 0
    assert "gen_ai.request.stream" not in whole
    assert "gen_ai.response.time_to_first_chunk" not in whole


async def test_without_parts_there_is_the_runs_span_alone(traced: Traced, sim: Sim) -> None:
    traced.start(parts=False)
    with dspy.context(lm=sim.lm()):
        await asyncify(AsksInThreads(traced.user), runtime=traced.runtime)(question="Why?")
    assert traced.tree() == [["invoke_workflow AsksInThreads", ["in a thread"] * 2]]


async def test_arguments_without_a_name_are_told_too(traced: Traced, sim: Sim) -> None:
    class Step(dspy.Module):  # type: ignore[misc]
        def forward(self, text: str, times: int = 1) -> Any:
            return text * times

    class Steps(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.step = Step()

        def forward(self, question: str) -> Any:
            return dspy.Prediction(answer=self.step(question, times=2))

    traced.start(contents=True)
    await asyncify(Steps(), runtime=traced.runtime)(question="ab")
    told = attributes(traced.one("module step"))
    assert json.loads(told["dspy_live.inputs"]) == {"args": ["ab"], "times": 2}
    assert told["dspy_live.outputs"] == '"abab"'


async def test_a_failed_run_that_was_left_out_is_made_whole_at_its_end(traced: Traced, sim: Sim) -> None:
    traced.start(per_second=0.001)
    ask = asyncify(dspy.Predict("question -> answer"), runtime=traced.runtime)
    with dspy.context(lm=sim.lm(num_retries=0)):
        await ask(question="takes the place")
        traced.exporter.clear()
        sim.server.set_faults(Faults(schedule=("500",)))
        with pytest.raises(LMServerError):
            await ask(question="Why?")
    assert traced.tree() == [["invoke_workflow Predict", [CHAT]]]
