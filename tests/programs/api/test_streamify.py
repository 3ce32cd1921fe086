"""streamify: what is streamed is what you get, with state per call, and an end in every case."""

from __future__ import annotations

import asyncio
from typing import Any

import dspy
import pytest
from dspy.streaming import StatusMessage, StreamResponse
from tests.programs.conftest import Sim
from tests.programs.programs import Gather, InParallel, NativeRag, Rag, Returns
from tests.support.until import async_until, until

from dspy_live import Buffer, PartialValue, StatusMessageProvider, StreamListener, emit, streamify
from dspy_live.core.errors import DeadlineExceeded
from dspy_live.core.events import Custom, Reasoning, Restart, Tool, Usage
from dspy_live.simulator import Faults

QA = "question -> answer"
WAYS = ("native", "thread", "inline")


def joined(items: list[Any], field: str = "answer", lm_call: int | None = None) -> str:
    """The text of one field after its last restart."""
    text: dict[int, str] = {}
    for item in items:
        if isinstance(item, Restart):
            text.pop(item.lm_call, None)
        elif isinstance(item, str) and item.signature_field_name == field:  # type: ignore[attr-defined]
            text[item.lm_call] = text.get(item.lm_call, "") + item  # type: ignore[attr-defined]
    return text[lm_call] if lm_call is not None else "".join(text.values())


@pytest.mark.parametrize("adapter", [dspy.ChatAdapter, dspy.JSONAdapter, dspy.XMLAdapter])
@pytest.mark.parametrize("way", WAYS)
async def test_the_streamed_text_is_the_final_value(sim: Sim, adapter: Any, way: Any) -> None:
    program = dspy.Predict("question -> answer, reason, score: float, tags: list[str]")
    with dspy.context(lm=sim.lm(), adapter=adapter()):
        items = [item async for item in streamify(program, execution=way)(question="What is Rust?")]
    prediction = items[-1]
    assert joined(items, "answer") == prediction.answer
    assert joined(items, "reason") == prediction.reason
    values = {i.signature_field_name: i for i in items if isinstance(i, PartialValue)}
    assert values["score"].value == prediction.score
    assert values["tags"].value == prediction.tags
    assert values["tags"].is_last_chunk


async def test_tokens_are_text_and_dspys_stream_responses(sim: Sim) -> None:
    with dspy.context(lm=sim.lm()):
        items = [item async for item in streamify(dspy.Predict(QA))(question="What is Rust?")]
    token = items[0]
    assert isinstance(token, str)
    assert isinstance(token, StreamResponse)
    assert (token.predict_name, token.signature_field_name, token.lm_call) == ("self", "answer", 1)
    assert token.chunk == token == token.choices[0].delta.content
    assert f"{token}" == token.chunk
    assert '"content"' in token.json()
    assert items[-2].is_last_chunk


async def test_two_concurrent_calls_never_mix(sim: Sim) -> None:
    """A listener of DSPy's that is built once mixes concurrent calls (#10307), and is silent on the second (#8425)."""
    stream = streamify(dspy.Predict(QA), stream_listeners=[StreamListener(signature_field_name="answer")])

    async def one(i: int) -> None:
        items = [item async for item in stream(question=f"What is number {i}?")]
        assert joined(items) == items[-1].answer
        assert f"{i}" in items[-1].answer

    with dspy.context(lm=sim.lm()):
        for _ in range(2):
            await asyncio.gather(*(one(i) for i in range(10)))


async def test_calls_inside_one_program_never_mix(sim: Sim) -> None:
    for program in (Gather(), InParallel()):
        with dspy.context(lm=sim.lm()):
            items = [item async for item in streamify(program)(question="Which")]
        calls = {i.lm_call for i in items if isinstance(i, str)}  # type: ignore[attr-defined]
        texts = sorted(joined(items, lm_call=c) for c in calls)
        assert texts == sorted(items[-1].answers)
        assert {i.predict_name for i in items if isinstance(i, str)} == {"ask"}  # type: ignore[attr-defined]


async def test_a_whole_reply_in_one_chunk_streams(sim: Sim) -> None:
    """A whole field inside one chunk is dropped by DSPy's listener (#8211)."""
    with dspy.context(lm=sim.lm(stream="never")):
        items = [item async for item in streamify(dspy.Predict(QA))(question="What is Rust?")]
    assert joined(items) == items[-1].answer


async def test_cached_answers_stream(sim: Sim) -> None:
    with dspy.context(lm=sim.lm(cache=True)):
        stream = streamify(dspy.Predict(QA), events=True)
        first = [item async for item in stream(question="What is cached?")]
        requests = sim.server.stats.requests
        second = [item async for item in stream(question="What is cached?")]
    assert sim.server.stats.requests == requests
    assert joined(second) == joined(first) == second[-1].answer
    assert [i.cached for i in second if isinstance(i, Usage)] == [True]


@pytest.mark.parametrize("value", [None, "text", {"a": 1}, ["b"], 7])
async def test_the_stream_ends_whatever_the_program_returned(sim: Sim, value: Any) -> None:
    """A program that returns something else than a Prediction never ends DSPy's stream (#8831)."""
    with dspy.context(lm=sim.lm()):
        items = [item async for item in streamify(Returns(value))(question="What is Rust?")]
    assert items[-1] == value


async def test_a_failure_is_the_programs_own(sim: Sim) -> None:
    class Fails(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.ask = dspy.Predict(QA)

        def forward(self, question: str) -> Any:
            self.ask(question=question)
            raise KeyError("mine")

    for way in ("thread", "inline"):
        items: list[Any] = []
        with dspy.context(lm=sim.lm()):
            stream = streamify(Fails(), execution=way)(question="What is Rust?")  # type: ignore[arg-type]
            with pytest.raises(KeyError, match="mine"):
                await _read(stream, items)
        assert joined(items)


@pytest.mark.parametrize("way", WAYS)
async def test_leaving_the_for_stops_the_lm_and_leaves_the_task_alone(endless: Sim, way: Any) -> None:
    """Leaving DSPy's stream cancels its caller's own task, or fails in another one (#9010, #10380)."""
    program = NativeRag() if way == "native" else Rag()
    with dspy.context(lm=endless.lm()):
        async for _ in streamify(program, execution=way)(question="What is Rust?"):
            break
        await async_until(lambda: endless.server.stats.disconnects == 1)
        assert endless.server.stats.active == 0
        await asyncio.sleep(0.05)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
    assert endless.server.stats.requests == 1


async def test_aclose_and_cancel_stop_the_lm(endless: Sim) -> None:
    stats = endless.server.stats
    with dspy.context(lm=endless.lm()):
        stream = streamify(Rag())(question="What is Rust?")
        await anext(stream)
        await stream.aclose()
        await async_until(lambda: stats.disconnects == 1)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

        async def read() -> None:
            async for _ in streamify(Rag())(question="What is Rust now?"):
                pass

        task = asyncio.create_task(read())
        await async_until(lambda: stats.active == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await async_until(lambda: stats.disconnects == 2)


async def test_a_timeout_is_its_own_error(endless: Sim) -> None:
    with dspy.context(lm=endless.lm()):
        for way in ("thread", "inline"):
            with pytest.raises(DeadlineExceeded, match=r"0\.15 s"):
                async for _ in streamify(Rag(), execution=way, timeout=0.15)(question="What?"):  # type: ignore[arg-type]
                    pass
        await async_until(lambda: endless.server.stats.active == 0)
    assert endless.server.stats.finished == 0


def test_synchronous_iteration(sim: Sim) -> None:
    with dspy.context(lm=sim.lm()):
        stream = streamify(Rag(), async_streaming=False)
        items = list(stream(question="What is Rust?"))
    assert joined(items, "summary") == items[-1].summary


async def test_synchronous_iteration_beside_a_running_loop(sim: Sim) -> None:
    """A notebook has a loop running already."""
    with dspy.context(lm=sim.lm()):
        items = list(streamify(Rag(), async_streaming=False)(question="What is Rust?"))
    assert joined(items, "summary") == items[-1].summary


def test_an_abandoned_synchronous_stream_stops(endless: Sim) -> None:
    """DSPy's synchronous stream that is abandoned runs on (#10406)."""
    with dspy.context(lm=endless.lm()):
        for _ in streamify(Rag(), async_streaming=False)(question="What is Rust?"):
            break
        until(lambda: endless.server.stats.disconnects == 1)
    assert endless.server.stats.requests == 1


async def test_a_retry_after_tokens_restarts(sim: Sim) -> None:
    sim.server.set_faults(Faults(schedule=("cut",)))
    with dspy.context(lm=sim.lm(num_retries=2, max_tokens=60)):
        items = [item async for item in streamify(dspy.Predict(QA))(question="What is Rust?")]
    restarts = [i for i in items if isinstance(i, Restart)]
    assert joined(items) == items[-1].answer
    assert len(restarts) <= 1


async def test_the_fallback_to_json_restarts(sim: Sim) -> None:
    """DSPy's own streaming gives the fallback up once a chunk is out."""
    sim.server.set_faults(Faults(schedule=("missing_field",)))
    program = dspy.Predict("question -> answer, score: int")
    with dspy.context(lm=sim.lm()):
        items = [item async for item in streamify(program)(question="What is Rust?")]
    restart = next(i for i in items if isinstance(i, Restart))
    assert (restart.predictor, restart.lm_call) == ("self", 1)
    assert joined(items) == items[-1].answer
    assert {i.lm_call for i in items if isinstance(i, str)} == {1, 2}  # type: ignore[attr-defined]


async def test_tools_status_and_own_events(sim: Sim) -> None:
    def look_up(term: str) -> str:
        """Look a term up."""
        emit("looked-up", {"term": term})
        return f"{term} is a thing"

    class Telling(StatusMessageProvider):
        def get_status_message(self, module_name: str, status: str) -> str:
            return f"{module_name}: {status}"

    agent = dspy.ReAct(QA, tools=[look_up], max_iters=3)
    for way in ("native", "thread", "inline"):
        with dspy.context(lm=sim.lm()):
            stream = streamify(agent, status_message_provider=Telling(), execution=way, events=True)  # type: ignore[arg-type]
            items = [item async for item in stream(question="What is Rust?")]
        status = [i.message for i in items if isinstance(i, StatusMessage)]
        assert status[0] == "ReAct: starting"
        assert status.index("ReAct: starting") < status.index("Predict: processing") < status.index("ReAct: complete")
        assert "Calling tool look_up..." in status
        tools = [i for i in items if isinstance(i, Tool) and i.name == "look_up"]
        assert [t.stage for t in tools[:2]] == ["call", "result"]
        assert tools[0].id == tools[1].id
        assert [i.name for i in items if isinstance(i, Custom)][:1] == ["looked-up"]
        assert isinstance(items[-1], dspy.Prediction)


async def test_hundreds_of_unread_status_messages_do_not_deadlock(sim: Sim) -> None:
    """The 17th unread status message deadlocks DSPy's stream when tools are async (#8934)."""

    async def step(n: int) -> int:
        """Do a step."""
        return n

    class Busy(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.tool = dspy.Tool(step)

        async def aforward(self, question: str) -> Any:
            for i in range(300):
                await self.tool.acall(n=i)
            return dspy.Prediction(answer=question)

    stream = streamify(Busy(), status_message_provider=StatusMessageProvider(), buffer=1)(question="q")
    with dspy.context(lm=sim.lm()):
        first = await anext(stream)
        await asyncio.sleep(0.2)
        items = [first, *[item async for item in stream]]
    assert sum(isinstance(i, StatusMessage) for i in items) == 600
    assert items[-1].answer == "q"


async def test_listeners_choose(sim: Sim) -> None:
    program = Rag()
    for listener in (
        StreamListener(signature_field_name="summary"),
        StreamListener(target_module="Rag", target_field="summary"),
        StreamListener(target_module="sum", target_field="summary"),
        StreamListener("summary", predict=program.sum),
        StreamListener("summary", predict_name="sum"),
        dspy.streaming.StreamListener(signature_field_name="summary"),
    ):
        with dspy.context(lm=sim.lm()):
            items = [item async for item in streamify(program, stream_listeners=[listener])(question="What?")]
        assert {i.signature_field_name for i in items[:-1]} == {"summary"}
        assert "".join(items[:-1]) == items[-1].summary


@pytest.mark.parametrize(
    ("listener", "says"),
    [
        (lambda: StreamListener("nothing"), "no predictor matches the program .* the program has answer.predict"),
        (lambda: StreamListener("answer", predict_name="sum"), "predict_name='sum'"),
        (lambda: StreamListener(target_module="Nowhere", target_field="answer"), "target_module='Nowhere'"),
        (lambda: StreamListener(), "needs the name of a field"),
        (lambda: StreamListener("a", target_field="b"), "a listener has one field"),
    ],
)
def test_listeners_that_can_not_work_are_refused_at_once(listener: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        streamify(Rag(), stream_listeners=[listener()])


def test_an_ambiguous_listener_is_refused() -> None:
    class Two(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = dspy.Predict(QA), dspy.Predict(QA)

    with pytest.raises(ValueError, match="ambiguous: the program has it in 'one', 'two'"):
        streamify(Two(), stream_listeners=[StreamListener("answer")])
    streamify(Two(), stream_listeners=[StreamListener(target_module="two", target_field="answer")])


async def test_without_the_final_prediction(sim: Sim) -> None:
    with dspy.context(lm=sim.lm()):
        stream = streamify(
            dspy.Predict(QA),
            stream_listeners=[StreamListener("answer")],
            include_final_prediction_in_output_stream=False,
        )
        assert all(isinstance(item, str) for item in [i async for i in stream(question="What?")])


async def test_a_users_own_lm_streams_through_send_stream() -> None:
    from dspy.clients.call_result import attributes

    class Own(dspy.BaseLM):  # type: ignore[misc]
        """A legacy LM, as the documentation of DSPy 3.4 has it."""

        text = "[[ ## answer ## ]]\nfour words in it\n\n[[ ## completed ## ]]"

        async def aforward(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> Any:
            stream = dspy.settings.send_stream
            if stream is not None:
                for piece in self.text.split(" "):
                    await stream.send(attributes({"choices": [{"delta": {"content": piece + " "}}]}))
            return self._reply()

        def forward(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> Any:
            return self._reply()

        def _reply(self) -> Any:
            return attributes(
                {"model": "own", "choices": [{"message": {"content": self.text}, "finish_reason": "stop"}], "usage": {}}
            )

    for way in WAYS:
        with dspy.context(lm=Own("own")), pytest.warns(DeprecationWarning, match="custom LMs through BaseLM"):
            items = [i async for i in streamify(dspy.Predict(QA), execution=way)(question="?")]  # type: ignore[arg-type]
        assert joined(items) == items[-1].answer == "four words in it"
        tokens = [i for i in items if isinstance(i, str)]
        assert len(tokens) > 2 if way == "native" else tokens


async def test_dspys_own_streamify_around_our_lm_works_as_ever(sim: Sim) -> None:
    with dspy.context(lm=sim.lm()):
        stream = dspy.streamify(
            dspy.Predict(QA), stream_listeners=[dspy.streaming.StreamListener("answer")], is_async_program=True
        )
        items = [item async for item in stream(question="What is Rust?")]
    assert any(isinstance(i, StreamResponse) for i in items)
    assert isinstance(items[-1], dspy.Prediction)


async def test_statistics_and_a_small_buffer(sim: Sim) -> None:
    with dspy.context(lm=sim.lm()):
        stream = streamify(dspy.Predict(QA), buffer=Buffer(size=2, max_size=8))(question="What is Rust?")
        items = [item async for item in stream]
    assert joined(items) == items[-1].answer
    with pytest.raises(ValueError, match="at least 1"):
        streamify(dspy.Predict(QA), buffer=0)
    with pytest.raises(ValueError, match="'block', 'coalesce' or 'drop_oldest'"):
        streamify(dspy.Predict(QA), overflow="explode")  # type: ignore[arg-type]


async def test_reasoning_is_an_event(sim: Sim) -> None:
    from dspy_live.core.call import Call
    from dspy_live.core.events import Completion, TextDelta

    async def thinks(call: Call, sink: Any) -> Completion:
        text = "[[ ## answer ## ]]\nyes\n\n[[ ## completed ## ]]"
        sink.push(Reasoning("hm", "", 0))
        sink.push(TextDelta(text))
        message = {"content": text, "reasoning_content": "hm"}
        return Completion({"model": "m", "choices": [{"message": message}], "usage": None})

    with dspy.context(lm=sim.lm(endpoint=thinks)):
        items = [item async for item in streamify(dspy.Predict(QA), events=True)(question="?")]
    assert [i.text for i in items if isinstance(i, Reasoning)] == ["hm"]
    assert joined(items) == "yes"


async def _read(stream: Any, items: list[Any]) -> None:
    async for item in stream:
        items.append(item)


class Shouts(dspy.ChatAdapter):  # type: ignore[misc]
    """A user's own: it changes what it reads."""

    def parse(self, signature: Any, completion: str) -> Any:
        return {name: value.upper() for name, value in super().parse(signature, completion).items()}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("adapter", "text"),
    [
        (dspy.JSONAdapter, '{"answer": "say "hi" now"}'),
        (dspy.JSONAdapter, "Here you are: {'answer': 'in single quotes'}"),
        (Shouts, "[[ ## answer ## ]]\nquiet words\n\n[[ ## completed ## ]]"),
    ],
)
async def test_the_adapters_reading_of_a_reply_is_the_streamed_text(
    sim: Sim, way: Any, adapter: Any, text: str
) -> None:
    """When the reply is parsed the two are compared; what was said otherwise is said again."""
    sim.server.next(text=text)
    with dspy.context(lm=sim.lm(), adapter=adapter()):
        items = [i async for i in streamify(dspy.Predict(QA), execution=way)(question="?")]
    heard = ""
    for item in items[:-1]:
        heard = "" if isinstance(item, Restart) else heard + item
    assert heard == items[-1].answer
    assert sim.server.stats.requests == 1
    if adapter is Shouts:
        assert heard == "QUIET WORDS"
        assert any(isinstance(i, Restart) and i.fields == ("answer",) for i in items)
