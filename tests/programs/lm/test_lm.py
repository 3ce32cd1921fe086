"""dspy_live.LM is a dspy.LM: copied, saved, configured and called as one, over our own engine."""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import pickle
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

import dspy
import pydantic
import pytest
from dspy.utils.callback import BaseCallback
from dspy.utils.exceptions import (
    ContextWindowExceededError,
    LMAuthError,
    LMNotConfiguredError,
    LMRateLimitError,
    LMServerError,
    LMTimeoutError,
    LMTransportError,
)
from tests.programs.conftest import MODEL, HeldSim, Sim
from tests.support.leap import leap
from tests.support.until import async_until

import dspy_live
from dspy_live import LM, asyncify
from dspy_live.core.events import Completion, TextDelta
from dspy_live.layers import Limit, Retry
from dspy_live.programs.lm.capabilities import EngineMark
from dspy_live.programs.lm.lm import adopt
from dspy_live.simulator import Faults
from dspy_live.testing import ScriptedService, Wait

QA = "question -> answer"


def test_works_with_no_event_loop(sim: Sim) -> None:
    assert sim.lm()("hello")[0]
    with dspy.context(lm=sim.lm()):
        assert dspy.Predict(QA)(question="What is Rust?").answer


async def test_works_on_a_loop(sim: Sim) -> None:
    with dspy.context(lm=sim.lm()):
        assert (await dspy.Predict(QA).acall(question="What is Rust?")).answer


def test_sync_and_async_give_the_same(sim: Sim) -> None:
    lm = sim.lm()
    assert lm("hello") == asyncio.run(lm.acall("hello"))


def test_works_in_evaluate_and_in_threads(sim: Sim) -> None:
    devset = [dspy.Example(question=f"q{i}", answer="x").with_inputs("question") for i in range(6)]
    with dspy.context(lm=sim.lm()):
        evaluate = dspy.Evaluate(devset=devset, metric=lambda e, p, t=None: bool(p.answer), num_threads=3)
        assert evaluate(dspy.Predict(QA)).score == 100.0


def test_every_keyword_of_dspy_reaches_the_endpoint(sim: Sim) -> None:
    lm = sim.lm(temperature=0.3, max_tokens=50, top_p=0.9, stop=["zzz"], seed=7, extra_body={"grammar": "root ::= x"})
    lm("hello")
    sent = _bodies(lm, sim)
    assert sent["temperature"] == 0.3
    assert (sent["max_tokens"], sent["top_p"], sent["stop"], sent["seed"]) == (50, 0.9, ["zzz"], 7)
    assert sent["grammar"] == "root ::= x"
    assert sent["model"] == "gpt-4o-mini"
    assert not {"api_key", "api_base", "extra_body", "rollout_id"} & sent.keys()


def test_client_settings_of_one_call(sim: Sim) -> None:
    lm = LM(MODEL, api_base="http://127.0.0.1:9/v1", api_key="sk-wrong", cache=False, num_retries=0)
    assert lm("hello", api_base=sim.url, api_key="sk-test")[0]


def test_headers_organization_and_query(sim: Sim) -> None:
    from dspy_live.programs.internals import prepare
    from dspy_live.programs.lm.endpoints import endpoint_for
    from dspy_live.programs.lm.seam.lm_call import lm_call_of

    lm = sim.lm(extra_headers={"X-Team": "blue"}, organization="org-1", project="p-1", extra_query={"v": "2"})
    endpoint: Any = endpoint_for(lm, lm_call_of(lm, prepare(lm, "hello", None, {})))
    assert endpoint.headers["X-Team"] == "blue"
    assert endpoint.headers["OpenAI-Organization"] == "org-1"
    assert endpoint.headers["OpenAI-Project"] == "p-1"
    assert endpoint.headers["Authorization"] == "Bearer sk-test"
    assert endpoint.url.endswith("/v1/chat/completions?v=2")


def test_copy_keeps_what_is_ours_and_changes_what_is_asked(sim: Sim) -> None:
    lm = sim.lm(stream="always", temperature=0.1, idle_timeout=9.0)
    other = lm.copy(temperature=0.9, rollout_id=3)
    assert isinstance(other, LM)
    assert other.kwargs["temperature"] == 0.9
    assert other.kwargs["rollout_id"] == 3
    assert lm.kwargs["temperature"] == 0.1
    assert other.live.stream == "always"
    assert other.live.idle_timeout == 9.0
    assert other.history == []
    assert other.history is not lm.history
    assert other("hello")[0]


def test_copy_keeps_our_own_options_from_the_provider(sim: Sim) -> None:
    """They were sent to the endpoint as options of the model, and the copy went on with the old ones."""
    lm = sim.lm("openai/own-model", stream="always", idle_timeout=9.0)
    other = lm.copy(stream="never", idle_timeout=None, first_token_timeout=5.0, capabilities=["function_calling"])
    assert (other.live.stream, other.live.idle_timeout, other.live.first_token_timeout) == ("never", None, 5.0)
    assert other.supports_function_calling
    assert not lm.supports_function_calling
    ours = {"stream", "capabilities", "endpoint", "first_token_timeout", "idle_timeout"}
    assert not ours & other.kwargs.keys()
    assert not ours & _bodies(other, sim).keys()
    mine = ScriptedService([Completion(one_choice({})[1])])
    assert other.copy(endpoint=mine)("hello") == ["hello"]
    assert mine.calls[0].stream is False
    for wrong in ({"stream": "sometimes"}, {"idle_timeout": 0}, {"capabilities": ["telepathy"]}):
        with pytest.raises(ValueError, match="must be"):
            lm.copy(**wrong)


def test_its_layers_can_be_looked_at(sim: Sim) -> None:
    before = dspy_live.set_default_runtime(dspy_live.Runtime(lm_layers=[Limit(3)]))
    try:
        assert repr(sim.lm(num_retries=2, idle_timeout=1.0).layers) == (
            "[Retry(3), DspyResults(), Limit(3, queue=100), Booking('openai/gpt-4o-mini'), Timeouts(idle=1)]"
        )
        dspy_live.set_default_runtime(dspy_live.Runtime(lm_layers=[Retry(5)]))
        assert repr(sim.lm(num_retries=2).layers) == "[DspyResults(), Retry(5), Booking('openai/gpt-4o-mini')]"
        assert repr(sim.lm(num_retries=0).layers) == repr(sim.lm(num_retries=2).layers)
    finally:
        dspy_live.set_default_runtime(before or dspy_live.Runtime())


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda lm: pickle.loads(pickle.dumps(lm))])
def test_copies_work(sim: Sim, way: Any) -> None:
    lm = sim.lm(first_token_timeout=8.0)
    other = way(lm)
    assert type(other) is LM
    assert other.live.first_token_timeout == 8.0
    assert other("hello") == lm("hello")


def test_a_program_with_it_is_copied(sim: Sim) -> None:
    program = dspy.Predict(QA)
    program.lm = sim.lm()
    other = program.deepcopy()
    assert isinstance(other.lm, LM)
    assert other(question="What is Rust?").answer


def test_a_saved_program_names_dspys_own_class(sim: Sim, tmp_path: Any) -> None:
    program = dspy.Predict(QA)
    program.lm = sim.lm(temperature=0.5, stream="always")
    program.save(tmp_path / "p.json")
    state = json.loads((tmp_path / "p.json").read_text())["lm"]
    assert state["_dspy_lm_class"] == "dspy.clients.lm.LM"
    assert "sk-test" not in (tmp_path / "p.json").read_text()
    loaded = dspy.Predict(QA)
    loaded.load(tmp_path / "p.json")
    assert type(loaded.lm) is dspy.LM
    assert loaded.lm.kwargs["temperature"] == 0.5


def test_state_is_that_of_a_dspy_lm(sim: Sim) -> None:
    assert sim.lm(temperature=0.5).dump_state() == sim.plain(temperature=0.5).dump_state()


def test_dspy_context_and_predictors_own(sim: Sim) -> None:
    one, two = sim.lm(), sim.lm()
    program = dspy.Predict(QA)
    with dspy.context(lm=one):
        program(question="a?")
        with dspy.context(lm=two):
            program(question="b?")
        program.lm = two
        program(question="c?")
    assert (len(one.history), len(two.history)) == (1, 2)


def test_history_has_what_dspy_writes(sim: Sim, capsys: Any) -> None:
    lm = sim.lm()
    with dspy.context(lm=lm):
        dspy.Predict(QA)(question="What is Rust?")
    entry = lm.history[-1]
    assert entry["usage"]["total_tokens"] > 0
    assert entry["response"].choices[0].message.content == entry["outputs"][0]
    assert entry["model"] == MODEL
    assert "sk-test" not in str(entry["kwargs"])
    lm.inspect_history()
    assert "What is Rust?" in capsys.readouterr().out
    with dspy.context(lm=lm, disable_history=True):
        lm("again")
    assert len(lm.history) == 1


def test_callbacks_see_the_call_once(sim: Sim) -> None:
    seen: list[str] = []

    class Listening(BaseCallback):  # type: ignore[misc]
        def on_lm_start(self, call_id: str, instance: Any, inputs: Any) -> None:
            seen.append(f"start {instance.model}")

        def on_lm_end(self, call_id: str, outputs: Any, exception: Any = None) -> None:
            seen.append("end" if exception is None else type(exception).__name__)

    lm = sim.lm(callbacks=[Listening()], num_retries=0)
    lm("hello")
    sim.server.set_faults(Faults(schedule=("500",)))
    with pytest.raises(LMServerError):
        asyncio.run(lm.acall("hello"))
    assert seen == [f"start {MODEL}", "end", f"start {MODEL}", "LMServerError"]


def test_usage_reaches_dspys_tracker(sim: Sim) -> None:
    with dspy.context(lm=sim.lm(), track_usage=True):
        prediction = dspy.Predict(QA)(question="What is Rust?")
    assert prediction.get_lm_usage()[MODEL]["total_tokens"] > 0


def test_n_gives_n_outputs(sim: Sim) -> None:
    assert len(sim.lm()("hello", n=3)) == 3
    with dspy.context(lm=sim.lm()):
        prediction = dspy.Predict(QA, n=2)(question="What is Rust?")
    assert len(prediction.completions) == 2


@asynccontextmanager
async def endpoint(
    reply: Callable[[dict[str, Any]], tuple[int, Any]], together: int = 1
) -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """An endpoint that answers each body with what ``reply`` makes of it; its URL, and the bodies so far.

    It answers none before the first ``together`` have come.
    """
    bodies: list[dict[str, Any]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        size = int(head.partition(b"content-length:")[2].split()[0])
        bodies.append(json.loads(await reader.readexactly(size)))
        status, made = reply(bodies[-1])
        body = json.dumps(made).encode()
        await async_until(lambda: len(bodies) >= together)
        writer.write(b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\n" % status)
        writer.write(b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", bodies


def one_choice(body: dict[str, Any]) -> tuple[int, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}
    return 200, {"id": "x", "model": "m", "choices": [choice], "usage": {"prompt_tokens": 2, "completion_tokens": 1}}


def refusing(name: str) -> Callable[[dict[str, Any]], tuple[int, Any]]:
    return lambda body: (
        (400, {"error": {"message": f"'{name}' is not supported"}}) if name in body else one_choice(body)
    )


async def test_an_endpoint_that_knows_no_n_is_asked_for_each_completion() -> None:
    """Ollama and others ignore ``n``: the program got one completion where plain DSPy gives it three."""
    async with endpoint(one_choice) as (url, bodies):
        lm = LM(MODEL, api_base=url, api_key="k", cache=False)
        with dspy_live.UsageTracker() as used:
            assert await lm.acall("hello", n=3) == ["hello"] * 3
    assert [body.get("n") for body in bodies] == [3, None, None]
    assert used.get_stats()["api_calls"] == 3
    assert lm.history[-1]["usage"]["prompt_tokens"] == 6


async def test_an_endpoint_that_refuses_n_is_asked_for_each_completion() -> None:
    """Groq answers 400 to any ``n`` over 1; so do older servers of llama.cpp."""
    async with endpoint(refusing("n"), together=3) as (url, bodies):
        lm = LM(MODEL, api_base=url, api_key="k", cache=False)
        answers = await asyncio.gather(*(lm.acall("hello", n=2) for _ in range(3)))
    assert answers == [["hello"] * 2] * 3
    assert [body.get("n") for body in bodies[3:]] == [None] * 6


async def test_calls_made_at_once_are_all_served_without_stream_options() -> None:
    """What the first refusal had taught was taken for what the second request was sent with: it failed."""
    async with endpoint(refusing("stream_options"), together=5) as (url, bodies):
        lm = LM(MODEL, api_base=url, api_key="k", cache=False, stream="always", num_retries=0)
        answers = await asyncio.gather(*(lm.acall("hello") for _ in range(5)))
    assert answers == [["hello"]] * 5
    assert len(bodies) == 10


def test_a_pydantic_response_format_is_sent_as_a_strict_schema(sim: Sim) -> None:
    class Answer(pydantic.BaseModel):
        city: str
        size: int | None = None

    lm = sim.lm()
    text = lm("Name a city.", response_format=Answer)[0]
    assert Answer.model_validate_json(text).city
    schema = _bodies(lm, sim, response_format=Answer)["response_format"]["json_schema"]
    assert schema["strict"] is True
    assert schema["schema"]["additionalProperties"] is False


def test_json_adapter_and_tools(sim: Sim) -> None:
    lm = sim.lm(capabilities=["function_calling", "response_schema"])
    with dspy.context(lm=lm, adapter=dspy.JSONAdapter()):
        assert isinstance(dspy.Predict("question -> score: int")(question="How much?").score, int)

        def search(query: str) -> str:
            """Search the web."""
            return query

        class Agent(dspy.Signature):  # type: ignore[misc]
            question: str = dspy.InputField()
            tools: list[dspy.Tool] = dspy.InputField()
            calls: dspy.ToolCalls = dspy.OutputField()

        calls = dspy.Predict(Agent)(question="What is new?", tools=[dspy.Tool(search)]).calls
    assert calls.tool_calls[0].name == "search"


def test_capabilities_are_looked_up_or_given(sim: Sim) -> None:
    assert sim.lm().supports_response_schema == sim.plain().supports_response_schema
    assert sim.lm("openai/own-model").supports_function_calling is False
    known = sim.lm("openai/own-model", capabilities=("function_calling",))
    assert known.supports_function_calling
    assert "tools" in known.supported_params
    with pytest.raises(ValueError, match="capabilities must be some of"):
        sim.lm(capabilities=["telepathy"])


def test_one_cache_entry_for_sync_and_async(sim: Sim) -> None:
    lm = sim.lm(cache=True)
    first = lm("What is cached here?")
    before = sim.server.stats.requests
    assert asyncio.run(lm.acall("What is cached here?")) == first
    assert sim.server.stats.requests == before
    assert lm.history[-1]["usage"] == {}
    lm("What is cached here?", rollout_id=1, temperature=1.0)
    assert sim.server.stats.requests == before + 1


def test_dspy_reads_what_we_cached(sim: Sim) -> None:
    ours = sim.lm(cache=True)("Who reads this?")
    before = sim.server.stats.requests
    assert sim.plain(cache=True)("Who reads this?") == ours
    assert sim.server.stats.requests == before


def test_forward_itself_still_answers(sim: Sim) -> None:
    lm = sim.lm()
    assert lm.forward("hello").choices[0].message.content
    assert asyncio.run(lm.aforward("hello")).choices[0].message.content


def test_a_typed_request(sim: Sim) -> None:
    from dspy.lm15 import Message, Request

    request = Request(model=MODEL, messages=(Message.user("hello"),))
    assert sim.lm()(request=request).message.text


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("401", LMAuthError),
        ("429", LMRateLimitError),
        ("500", LMServerError),
        ("context", ContextWindowExceededError),
        ("html", LMServerError),
        ("cut_start", LMTransportError),
        ("cut", LMTransportError),
        ("error_in_stream", LMServerError),
    ],
)
def test_failures_are_dspys_own_errors(sim: Sim, fault: Any, error: type[Exception]) -> None:
    sim.server.set_faults(Faults(schedule=(fault,)))
    with pytest.raises(error) as caught:
        sim.lm(num_retries=0, stream="always")("hello")
    assert MODEL in str(caught.value)
    assert "sk-test" not in str(caught.value)


def test_retry_after_is_kept_and_obeyed(sim: Sim, monkeypatch: Any) -> None:
    slept: list[float] = []

    async def sleep(seconds: float, *_: Any) -> None:
        slept.append(seconds)

    monkeypatch.setattr("dspy_live.layers._attempts.asyncio.sleep", sleep)
    sim.server.set_faults(Faults(schedule=("429", "503")))
    assert sim.lm(num_retries=3)("hello")[0]
    assert len(slept) == 2
    assert slept[0] >= 1.0


def test_a_dead_endpoint_and_a_missing_key() -> None:
    with pytest.raises(LMTransportError, match=r"127\.0\.0\.1:9"):
        LM(MODEL, api_base="http://127.0.0.1:9/v1", api_key="x", cache=False, num_retries=0)("hello")
    with pytest.raises(LMNotConfiguredError, match="OPENAI_API_KEY"):
        LM(MODEL, cache=False, num_retries=0)("hello")


def test_timeouts(sim: Sim) -> None:
    sim.server.set_faults(Faults(schedule=("stall_start", "stall")))
    lm = sim.lm(num_retries=0, stream="always", first_token_timeout=0.1, idle_timeout=0.1)
    for _ in range(2):
        with pytest.raises(LMTimeoutError):
            lm("hello")
    with pytest.raises(ValueError, match="positive number of seconds"):
        sim.lm(idle_timeout=0)


EVENT = b"data: %b\n\n"
ROLE = EVENT % b'{"id":"x","model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}'
WORD = EVENT % b'{"id":"x","model":"m","choices":[{"index":0,"delta":{"content":"hello"}}]}'
CALL = (
    b'{"id":"x","model":"m","choices":[{"index":0,"delta":{"tool_calls":'
    b'[{"index":0,"id":"c","type":"function","function":{"name":"f","arguments":" "}}]}}]}'
)
END = EVENT % b'{"id":"x","model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}' + EVENT % b"[DONE]"


async def silence(seconds: float) -> None:
    """Let so many seconds pass on the loop's clock, once what was written before has been read."""
    await asyncio.sleep(0.02)
    leap(seconds)
    await asyncio.sleep(0.02)


@asynccontextmanager
async def speaking(pieces: Iterable[bytes], seconds: float) -> AsyncIterator[str]:
    """An endpoint whose stream is these pieces, each after so many seconds, open until the client has gone."""
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        with suppress(ConnectionError):
            for piece in pieces:
                if writer.is_closing():
                    break
                await silence(seconds)
                writer.write(piece)
            await reader.read()
        writer.close()
        gone.set()

    leap(0)
    async with asyncio.timeout(10_000), await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await gone.wait()


@pytest.mark.parametrize("model", [MODEL, "anthropic/claude-3-5-haiku-latest"])
@pytest.mark.parametrize("piece", [ROLE, b": busy\n\n"], ids=["role", "comment"])
async def test_a_keep_alive_comment_is_no_first_token(model: str, piece: bytes) -> None:
    """Any byte ended the wait for the first token, and other providers than OpenAI's were never timed at all."""
    async with speaking(itertools.repeat(piece), 20) as url:
        lm = LM(model, api_base=url, api_key="k", cache=False, num_retries=0, first_token_timeout=30)
        with pytest.raises(LMTimeoutError, match=r"no token came within 30 s.*first_token_timeout="):
            await lm.acall("hello")


async def test_a_comment_is_silence_too() -> None:
    async with speaking(itertools.chain([WORD], itertools.repeat(b": busy\n\n")), 20) as url:
        lm = LM(MODEL, api_base=url, api_key="k", cache=False, num_retries=0, idle_timeout=30)
        with pytest.raises(LMTimeoutError, match=r"stopped for longer than 30 s.*idle_timeout="):
            await lm.acall("hello")


async def test_a_long_tool_call_is_no_silence() -> None:
    async with speaking([*[EVENT % CALL] * 8, END], 20) as url:
        lm = LM(MODEL, api_base=url, api_key="k", cache=False, num_retries=0, first_token_timeout=30, idle_timeout=30)
        assert (await lm.acall("hello"))[0]["tool_calls"]


async def test_an_endpoint_of_the_users_own_is_timed_too() -> None:
    slow = ScriptedService([TextDelta("hel"), Wait(60.0), Completion({})])
    lm = LM(MODEL, endpoint=slow, cache=False, num_retries=0, idle_timeout=0.05)
    with pytest.raises(LMTimeoutError, match=r"longer than 0\.05 s"):
        await lm.acall("hello")


async def test_a_slow_reader_is_not_the_lms_silence(sim: Sim) -> None:
    leap(0)
    program = dspy.Predict("question -> answer")
    with dspy.context(lm=sim.lm(num_retries=0, idle_timeout=30)):
        items = dspy_live.streamify(program, buffer=1)(question="What? [sim size=4000000]")
        text, pauses = "", 0
        async for item in items:
            if isinstance(item, str):
                text += item
                if pauses < 3:
                    await async_until(lambda: items.statistics().full)
                    await silence(40)
                    pauses += 1
    assert text == item.answer
    assert pauses == 3


def test_an_endpoint_that_refuses_stream_options_is_served_without(sim: Sim) -> None:
    sim.server.set_faults(Faults(schedule=("no_stream_options", "no_stream_options", "no_stream_options")))
    lm = sim.lm(stream="always", num_retries=0)
    assert lm("hello")[0]
    assert lm("hello again")[0]
    assert sim.server.stats.requests == 3


async def test_a_server_that_leaves_its_body_open_is_not_waited_for() -> None:
    text = "[[ ## answer ## ]]\nyes\n\n[[ ## completed ## ]]"
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": "stop"}
    chunk = json.dumps({"id": "x", "model": "m", "choices": [choice]})

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        writer.write(f"data: {chunk}\n\ndata: [DONE]\n\n".encode())
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        lm = LM(MODEL, api_base=f"http://127.0.0.1:{port}/v1", api_key="x", cache=False, num_retries=0, stream="always")
        with dspy.context(lm=lm):
            assert (await asyncio.wait_for(dspy.Predict(QA).acall(question="?"), 30)).answer == "yes"


def test_other_engines_are_dspys_own(sim: Sim) -> None:
    for engine in ("lm15", "litellm"):
        lm = sim.lm(engine=engine)
        assert lm.engine == engine
        assert lm("hello")[0]
        assert asyncio.run(lm.acall("hello"))[0]


@pytest.mark.filterwarnings("ignore")  # LiteLLM's own, raised in the middle of its streams
async def test_litellm_streams_and_the_fallback_stays_possible(sim: Sim) -> None:
    from dspy_live import streamify

    with dspy.context(lm=sim.lm(engine="litellm")):
        items = [item async for item in streamify(dspy.Predict(QA), execution="native")(question="What is Rust?")]
    tokens = [item for item in items if isinstance(item, str)]
    assert len(tokens) > 3
    assert "".join(tokens) == items[-1].answer


async def test_a_plain_lm_is_run_as_ours_without_being_touched(endless: Sim) -> None:
    """A program whose LMs are plain dspy.LM objects is cancelled for real, and keeps its objects."""
    plain, stats = endless.plain(), endless.server.stats
    state = dict(plain.__dict__)
    for program, context in (
        (dspy.Predict(QA), {"lm": plain}),
        (_with(dspy.Predict(QA), plain), {"lm": None}),
    ):
        with dspy.context(**context):
            task = asyncio.create_task(asyncify(program, execution="thread")(question="What is Rust?"))
            await async_until(lambda: stats.active == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await async_until(lambda: stats.active == 0)
    assert stats.finished == 0
    assert type(plain) is dspy.LM
    assert plain.__dict__.keys() == state.keys()
    ours = adopt(plain)
    assert isinstance(ours, LM)
    assert ours.history is plain.history
    assert isinstance(ours._engine_spec, EngineMark)
    assert plain._engine_spec == "auto"


def test_settings_of_ours_are_checked(sim: Sim) -> None:
    with pytest.raises(ValueError, match="'auto', 'always' or 'never'"):
        sim.lm(stream="sometimes")
    with pytest.raises(ValueError, match="non-empty string"):
        LM("")


def test_many_calls_from_many_threads(sim: Sim) -> None:
    lm = sim.lm()
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda i=i: answers.append(lm(f"question {i}"))) for i in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 32


async def test_more_connections_than_dspys_hundred(held: HeldSim) -> None:
    """DSPy's own engine stops at 100 connections; ours has no cap."""
    lm = held.lm(max_tokens=2)
    calls = asyncio.gather(*(lm.acall(f"question {i}") for i in range(150)))
    await async_until(lambda: len(held.server.held) == 150)
    held.server.release()
    assert len(await calls) == 150


def _with(program: Any, lm: Any) -> Any:
    program.lm = lm
    return program


def _bodies(lm: LM, sim: Sim, **kwargs: Any) -> dict[str, Any]:
    """What the endpoint gets for one call."""
    sim.server.keep_requests = True
    lm("hello", **kwargs)
    return dict(sim.server.requests[-1])
