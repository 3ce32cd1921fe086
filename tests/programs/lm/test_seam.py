"""Each form of an LM call passes the same tests: messages, a typed Request, and our engine in a ``dspy.LM``."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Callable
from typing import Any

import dspy
import pytest
from dspy.lm15 import Config, FunctionTool, ImagePart, Message, Request, TextPart
from dspy.utils.exceptions import LMAuthError, LMRateLimitError
from tests.programs.conftest import MODEL, Sim
from tests.support.until import async_until

import dspy_live
from dspy_live import LM, asyncify, streamify
from dspy_live.core.call import Call
from dspy_live.core.errors import BudgetExceeded
from dspy_live.core.events import Completion, Reasoning, TextDelta, Usage
from dspy_live.programs.lm.lm import adopt
from dspy_live.programs.lm.seam.engine_objects import engine_objects
from dspy_live.simulator import Faults
from dspy_live.testing import ScriptedService

QA = "question -> answer"
PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
pytestmark = pytest.mark.filterwarnings("ignore:Passing OpenAI-style message:DeprecationWarning")


class Form:
    """One way to ask an LM: ``ask`` and ``aask`` return the reply's text."""

    def __init__(self, sim: Sim, **options: Any) -> None:
        self.sim = sim
        sim.server.keep_requests = True
        self.lm = self.make(**options)

    def make(self, **options: Any) -> Any:
        return self.sim.lm(**options)

    def ask(self, text: str, **options: Any) -> Any:
        raise NotImplementedError

    async def aask(self, text: str, **options: Any) -> Any:
        raise NotImplementedError

    @property
    def body(self) -> dict[str, Any]:
        return dict(self.sim.server.requests[-1])


class Messages(Form):
    """DSPy 3.4's own."""

    def ask(self, text: str, **options: Any) -> Any:
        return text_of(self.lm(messages=[{"role": "user", "content": text}], **options)[0])

    async def aask(self, text: str, **options: Any) -> Any:
        return text_of((await self.lm.acall(messages=[{"role": "user", "content": text}], **options))[0])


class Typed(Form):
    """From DSPy 3.5 on the only one."""

    def ask(self, text: str, **options: Any) -> Any:
        return self.lm(request(text, **options)).text

    async def aask(self, text: str, **options: Any) -> Any:
        return (await self.lm.acall(request(text, **options))).text


class EngineObjects(Typed):
    """A stock ``dspy.LM`` that asks by our engine."""

    def make(self, **options: Any) -> Any:
        theirs = {k: options.pop(k) for k in ("cache", "num_retries") if k in options}
        return dspy.LM(MODEL, **{"cache": False, **theirs}, **engine_objects(self.sim.lm(**options)))


def request(text: str, **options: Any) -> Request:
    return Request(model=MODEL, messages=(Message.user(text),), config=Config(**options))


def text_of(output: Any) -> Any:
    return output["text"] if isinstance(output, dict) else output


@pytest.fixture(params=[Messages, Typed, EngineObjects], ids=lambda form: form.__name__)
def form(request: pytest.FixtureRequest, sim: Sim) -> Callable[..., Form]:
    return lambda **options: request.param(sim, **options)


def test_both_ways_of_calling_give_the_same_answer(form: Callable[..., Form]) -> None:
    asked = form()
    text = asked.ask("What is Rust?")
    assert text == asyncio.run(asked.aask("What is Rust?"))
    assert asked.body["messages"] == [{"role": "user", "content": "What is Rust?"}]
    assert (asked.body["model"], "stream" in asked.body) == ("gpt-4o-mini", False)


def test_options_reach_the_endpoint(form: Callable[..., Form]) -> None:
    asked = form()
    asked.ask("hello", temperature=0.25, top_p=0.5)
    assert (asked.body["temperature"], asked.body["top_p"]) == (0.25, 0.5)


def test_a_failure_is_dspys_own_error(form: Callable[..., Form], sim: Sim) -> None:
    sim.server.set_faults(Faults(schedule=("401", "401")))
    asked = form(num_retries=0)
    with pytest.raises(LMAuthError):
        asked.ask("hello")
    with pytest.raises(LMAuthError):
        asyncio.run(asked.aask("hello"))


@pytest.mark.parametrize("retries", [0, 1])
def test_a_failed_attempt_is_repeated_as_often_as_the_lm_says(form: Any, sim: Sim, retries: int) -> None:
    """Never by both: our engine in a ``dspy.LM`` leaves it to DSPy."""
    sim.server.set_faults(Faults(schedule=("429",) * 2))
    asked = form(num_retries=retries)
    with pytest.raises(LMRateLimitError):
        asked.ask("hello")
    assert len(sim.server.requests) == 1 + retries


def test_a_reply_comes_from_the_cache(form: Callable[..., Form], sim: Sim) -> None:
    asked = form(cache=True)
    question = f"cached as {type(asked).__name__}"
    assert asked.ask(question) == asked.ask(question) == asyncio.run(_again(asked, question))
    assert len(sim.server.requests) <= 2, "DSPy keys the two ways of calling apart where the cache is its own"


async def _again(asked: Form, question: str) -> Any:
    return await asked.aask(question)


def test_usage_is_booked_once(form: Callable[..., Form]) -> None:
    asked = form()
    with dspy_live.UsageTracker() as tracker:
        asked.ask("hello")
        asyncio.run(asked.aask("hello"))
    stats = tracker.get_stats()
    assert (stats["api_calls"], stats["errors"]) == (2, 0)
    assert stats["total_tokens"] > 0
    assert list(stats["by_model"]) == [MODEL]


def test_history_says_it_once(form: Callable[..., Form]) -> None:
    asked = form()
    asked.ask("hello")
    (entry,) = asked.lm.history
    assert (entry["model"], len(entry["outputs"])) == (MODEL, 1)


async def test_cancelling_closes_the_connection(form: Callable[..., Form], sim: Sim) -> None:
    sim.server.set_faults(Faults(schedule=("stall_start",)))
    task = asyncio.create_task(form().aask("hello"))
    await async_until(lambda: sim.server.stats.active == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await async_until(lambda: sim.server.stats.active == 0)


@pytest.mark.parametrize("how", ["native", "thread", "inline"])
async def test_programs_stream_and_answer(form: Callable[..., Form], how: Any) -> None:
    """Adapters give messages in DSPy 3.4: typed calls are made by none yet."""
    asked = form()
    with dspy.context(lm=asked.lm):
        stream = streamify(dspy.Predict(QA), stream_listeners=[dspy_live.StreamListener("answer")], execution=how)
        items = [item async for item in stream(question="What is Rust?")]
    assert "".join(item for item in items if isinstance(item, str)) == items[-1].answer
    assert len(asked.lm.history) == 1


async def test_a_budget_counts_each_call(form: Callable[..., Form]) -> None:
    asked = form()
    with dspy.context(lm=asked.lm):
        ask = asyncify(dspy.Predict(QA), layers=[dspy_live.Budget(max_calls=1)])
        await ask(question="one")
        with pytest.raises(BudgetExceeded):
            await ask(question="two")


# What a Request says beyond text.


@pytest.mark.parametrize("kind", [Typed, EngineObjects])
class TestRequests:
    def test_it_says_who_speaks_shows_a_picture_and_names_tools(self, sim: Sim, kind: Any) -> None:
        asked = kind(sim)
        tool = FunctionTool(name="look_up", description="d", parameters={"type": "object", "properties": {}})
        picture = ImagePart(media_type="image/png", data=PIXEL)
        system, user = "Be brief.", Message(role="user", parts=(TextPart("What is it?"), picture))
        asked.lm(Request(model=MODEL, system=system, messages=(user,), tools=(tool,)))
        said = asked.body
        assert said["messages"][0]["content"] == "Be brief."
        assert [part["type"] for part in said["messages"][1]["content"]] == ["text", "image_url"]
        assert said["tools"][0]["function"]["name"] == "look_up"

    def test_a_tool_call_is_a_part_of_the_response(self, sim: Sim, kind: Any) -> None:
        reply = {"id": "c", "type": "function", "function": {"name": "look_up", "arguments": '{"key": 1}'}}
        message = {"role": "assistant", "content": None, "tool_calls": [reply]}
        lm = with_reply(
            kind, {"model": "m", "choices": [{"index": 0, "finish_reason": "tool_calls", "message": message}]}
        )
        response = lm(request("hello"))
        (call,) = response.tool_calls
        assert (call.id, call.name, call.input, response.finish_reason) == ("c", "look_up", {"key": 1}, "tool_call")

    def test_thoughts_and_usage_are_parts_of_the_response(self, sim: Sim, kind: Any) -> None:
        message = {"role": "assistant", "content": "yes", "reasoning_content": "hm"}
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        choice = {"index": 0, "finish_reason": "length", "message": message}
        response = with_reply(kind, {"model": "m", "choices": [choice], "usage": usage})(request("hello"))
        assert (response.text, response.finish_reason) == ("yes", "length")
        assert [part.text for part in response.message.parts if part.type == "thinking"] == ["hm"]
        assert (response.usage.input_tokens, response.usage.output_tokens) == (3, 2)

    def test_a_request_of_another_model_is_refused(self, sim: Sim, kind: Any) -> None:
        with pytest.raises(ValueError, match="model"):
            kind(sim).lm(Request(model="openai/other", messages=(Message.user("hello"),)))


def with_reply(kind: Any, reply: dict[str, Any]) -> Any:
    live = LM(MODEL, endpoint=ScriptedService([Completion(reply)]), cache=False)
    return live if kind is Typed else dspy.LM(MODEL, cache=False, **engine_objects(live))


# Our engine objects beyond the contract of ``complete``.


async def test_the_asynchronous_engine_streams_what_dspy_can_assemble(sim: Sim) -> None:
    from dspy_live.programs.internals import StreamAccumulator

    asked = request("What is Rust?")
    objects = engine_objects(sim.lm())
    accumulator = StreamAccumulator(asked)
    events = [event async for event in objects["async_engine"].stream(asked)]
    for event in events:
        accumulator.push(event)
    assert (events[0].type, events[-1].type) == ("start", "end")
    assert accumulator.response().text == (await objects["async_engine"].complete(asked)).text


async def test_a_stream_has_words_thoughts_and_tool_calls_in_parts_of_their_own() -> None:
    from dspy_live.programs.internals import StreamAccumulator

    tool = {"id": "c", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
    message = {"role": "assistant", "content": "yes", "reasoning_content": "hm", "tool_calls": [tool]}
    reply = {"model": "m", "choices": [{"index": 0, "finish_reason": "tool_calls", "message": message}]}
    endpoint = ScriptedService([Reasoning("hm", "", 0), TextDelta("ye"), TextDelta("s"), Completion(reply)])
    objects = engine_objects(LM(MODEL, endpoint=endpoint))
    accumulator = StreamAccumulator(request("hello"))
    async for event in objects["async_engine"].stream(request("hello")):
        accumulator.push(event)
    response = accumulator.response()
    assert [part.type for part in response.message.parts] == ["thinking", "text", "tool_call"]
    assert [getattr(part, "text", "") or part.name for part in response.message.parts] == ["hm", "yes", "look_up"]
    assert response.finish_reason == "tool_call"


async def test_dspys_own_streamify_streams_from_our_engine() -> None:
    """Word by word: of a reply that comes in one piece DSPy's own listener makes nothing."""
    text = f"[[ ## answer ## ]]\n{'yes it is ' * 10}\n\n[[ ## completed ## ]]"

    async def word_by_word(call: Call, sink: Any) -> Completion:
        for word in re.findall(r"\S+\s*", text):
            sink.push(TextDelta(word))
            await asyncio.sleep(0)
        message = {"role": "assistant", "content": text}
        return Completion({"model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    lm = dspy.LM(MODEL, cache=False, **engine_objects(LM(MODEL, endpoint=word_by_word)))
    with dspy.context(lm=lm):
        stream = dspy.streamify(dspy.Predict(QA), stream_listeners=[dspy.streaming.StreamListener("answer")])
        items = [item async for item in stream(question="What is Rust?")]
    assert "".join(item.chunk for item in items[:-1]).strip() == items[-1].answer


async def test_closing_the_stream_leaves_the_lm(endless: Sim) -> None:
    stream = engine_objects(endless.lm())["async_engine"].stream(request("What is Rust?"))
    assert [(await anext(stream)).type for _ in range(2)] == ["start", "delta"]
    await stream.aclose()
    await async_until(lambda: endless.server.stats.disconnects == 1)


def test_a_plain_lm_with_our_engine_is_run_as_ours(sim: Sim) -> None:
    plain = dspy.LM(MODEL, temperature=0.5, **engine_objects(sim.lm(idle_timeout=9.0)))
    ours = adopt(plain)
    assert isinstance(ours, LM)
    assert (ours.live.idle_timeout, ours.kwargs["temperature"], ours.kwargs["api_key"]) == (9.0, 0.5, "sk-test")
    assert ours.history is plain.history
    assert "api_key" not in plain.kwargs


def test_a_program_with_our_engine_is_saved_and_loaded(
    sim: Sim, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = dspy.Predict(QA)
    program.lm = dspy.LM(MODEL, cache=False, **engine_objects(sim.lm()))
    program.save(tmp_path / "program.json")
    assert "sk-test" not in (tmp_path / "program.json").read_text()
    loaded = dspy.Predict(QA)
    loaded.load(tmp_path / "program.json", allow_unsafe_lm_state=True)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    assert loaded(question="What is Rust?").answer == program(question="What is Rust?").answer


@pytest.mark.parametrize("how", ["thread", "inline"])
async def test_typed_calls_of_a_programs_own_are_a_part_of_its_run(sim: Sim, how: Any) -> None:
    lm = sim.lm()

    def program(question: str) -> str:
        return str(dspy.settings.lm(request(question)).text)

    with dspy.context(lm=lm), dspy_live.UsageTracker() as tracker:
        stream = streamify(program, events=True, execution=how)
        items = [item async for item in stream(question="What is Rust?")]
        calls = tracker.get_stats()["api_calls"]
    (usage,) = [item for item in items if isinstance(item, Usage)]
    assert items[-1] == (await lm.acall(request("What is Rust?"))).text
    assert usage.completion_tokens > 0
    assert calls == 1


async def test_a_subclass_with_our_engine_is_booked_once(sim: Sim) -> None:
    class Mine(dspy.LM):  # type: ignore[misc]
        pass

    with dspy_live.UsageTracker() as tracker, dspy.context(lm=Mine(MODEL, cache=False, **engine_objects(sim.lm()))):
        assert (await asyncify(dspy.Predict(QA))(question="What is Rust?")).answer
    assert tracker.get_stats()["api_calls"] == 1


class InThreads(dspy.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict(QA)

    def forward(self, question: str) -> Any:
        return dspy.Parallel(num_threads=2, disable_progress_bar=True)([(self.ask, {"question": question})])[0]


@pytest.mark.parametrize("how", ["thread", "inline"])
@pytest.mark.parametrize("program", [dspy.Predict(QA), InThreads()], ids=["predict", "parallel"])
@pytest.mark.parametrize("ours", [True, False], ids=["our engine", "theirs"])
async def test_a_subclass_streams_wherever_it_is_called(sim: Sim, ours: bool, program: Any, how: Any) -> None:
    """DSPy hands chunks on from threads of AnyIO's alone: such a call failed inline, and in ``dspy.Parallel``."""

    class Mine(dspy.LM):  # type: ignore[misc]
        pass

    settings = engine_objects(sim.lm()) if ours else {"api_base": sim.url, "api_key": "sk-test"}
    with dspy.context(lm=Mine(MODEL, cache=False, **settings)):
        listeners = [dspy_live.StreamListener("answer")]
        stream = streamify(program, stream_listeners=listeners, execution=how)
        items = [item async for item in stream(question="What is Rust?")]
    assert "".join(item for item in items if isinstance(item, str)) == items[-1].answer


async def test_the_engine_is_told_the_runs_key_and_deadline() -> None:
    class Mine(dspy.LM):  # type: ignore[misc]
        pass

    reply = {"model": "m", "choices": [{"message": {"content": "[[ ## answer ## ]]\nyes"}, "finish_reason": "stop"}]}
    endpoint = ScriptedService([TextDelta("yes"), Completion(reply)])
    with dspy.context(lm=Mine(MODEL, cache=False, **engine_objects(LM(MODEL, endpoint=endpoint)))):
        await asyncify(dspy.Predict(QA), timeout=60)(question="q")
    (call,) = endpoint.calls
    assert isinstance(call, Call)
    assert call.deadline is not None
    assert (call.origin.program, call.origin.lm_call) == ("Predict", 1)
