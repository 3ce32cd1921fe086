"""The asynchronous client against a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from tests.client.support import relay
from tests.server.support import QA, USAGE, Live, Tape, answer, qa, serving
from tests.support.leap import leap
from tests.support.until import async_until

from dspy_live.client import AsyncClient, ConnectionLost, RemoteError, RemoteService, Unreachable
from dspy_live.core.call import Buffer, Call
from dspy_live.core.errors import (
    Cancelled,
    ConfigurationError,
    DeadlineExceeded,
    InputError,
    LMFailed,
    NotFound,
    RateLimited,
    Unauthorized,
)
from dspy_live.core.events import (
    Custom,
    Event,
    Partial,
    Predicted,
    Reasoning,
    Restart,
    Started,
    Status,
    Token,
    Tool,
    Usage,
)
from dspy_live.core.schema import Field, Schema
from dspy_live.core.service import Service
from dspy_live.core.sink import DISCARD
from dspy_live.server import create_app
from dspy_live.testing import ServiceConformance


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with serving(qa()) as server:
        yield server


async def words(call: Call, tape: Tape) -> None:
    await tape.push(Started(call.id, "QA"))
    await tape.tokens(" ".join(f"w{i}" for i in range(200)), pause=0.001)
    await tape.push(USAGE, Predicted({"answer": "…"}))


async def endless(call: Call, tape: Tape) -> None:
    await tape.push(Started(call.id, "QA"))
    while True:
        await tape.push(Token("x", "answer", "p", 1))
        await asyncio.sleep(0.001)


class TestARemoteServiceIsAService(ServiceConformance):
    """The suite that every service passes, over a socket."""

    @pytest.fixture(autouse=True)
    def _server(self, live: Live) -> None:
        self.url = live.url

    def make_service(self) -> Service:
        return RemoteService(self.url)

    def make_call(self) -> Call:
        return Call({"question": "why?"})

    # The server names the run; a client can't choose its id.
    def test_calls_at_once_do_not_mix(self) -> None:
        async def main() -> None:
            service = self.make_service()
            calls = [Call({"question": f"q{i}"}) for i in range(20)]
            found = await asyncio.gather(*(service(call, DISCARD) for call in calls))
            assert [result.outputs["answer"] for result in found] == [f"You asked: q{i}" for i in range(20)]

        self.run(main())


async def test_predict(live: Live) -> None:
    client = AsyncClient(live.url)
    reply = await client.predict(question="why?")
    assert reply.answer == reply["answer"] == "You asked: why?"
    assert dict(reply) == {"reasoning": "I think.", "answer": "You asked: why?"}
    assert reply.usage["total_tokens"] == 12
    assert reply.run_id == live.service.calls[-1].id
    assert reply.duration_ms is not None
    assert reply.cached is False
    with pytest.raises(AttributeError, match="answer"):
        _ = reply.anser


async def test_options_travel(live: Live) -> None:
    config = {"rollout_id": 1, "stop": "ä\n"}
    await AsyncClient(live.url).predict({"question": "why?"}, config=config)
    assert live.service.calls[-1].config == config


async def test_outputs_with_the_servers_own_names() -> None:
    schema = Schema("S", (Field("program"),), (Field("run"), Field("duration_ms", type="float")))

    async def script(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id), Predicted({"run": "mine", "duration_ms": 5.0}))

    with serving(qa(script, schema)) as live:
        client = AsyncClient(live.url)
        reply = await client.predict({"program": "an input"})
        streamed = await _result(client, {"program": "an input"})
    assert dict(reply) == dict(streamed) == {"run": "mine", "duration_ms": 5.0}


async def _result(client: AsyncClient, inputs: dict[str, object]) -> object:
    async with client.stream(inputs) as run:
        return await run.result()


async def test_stream_gives_the_events_of_the_run() -> None:
    sent: list[Event] = [
        Status("thinking", "rag", "processing"),
        Token("a \u2028", "answer", "rag.answer", 1),
        Token("", "answer", "rag.answer", 1, True),
        Partial({"a": [1]}, "numbers", "rag.answer", 1, True),
        Restart("rag.answer", 1, "retry", ("answer",)),
        Reasoning("hm", "rag.answer", 1),
        Tool("search", "call", "t1", {"q": "x"}),
        Tool("search", "result", "t1", result=[1], duration_ms=1.5),
        USAGE,
        Custom("progress", {"done": 0.5}),
    ]

    async def script(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id, "QA"), *sent, Predicted({"answer": "a"}))

    with serving(qa(script)) as live:
        client = AsyncClient(live.url)
        async with client.stream(question="x") as run:
            streamed = [event async for event in run]
            assert run.id == live.service.calls[0].id
            assert run.reply is not None
        async with client.socket() as socket, socket.start(question="x") as over_socket:
            framed = [event async for event in over_socket]
            assert over_socket.reply is not None
            assert over_socket.reply.usage == run.reply.usage
    assert streamed == [Started(run.id, "QA"), *sent]
    assert framed[1:] == sent
    assert dict(run.reply) == dict(over_socket.reply) == {"answer": "a"}


async def test_text_and_result(live: Live) -> None:
    client = AsyncClient(live.url)
    async with client.stream(question="why?") as run:
        assert [piece async for piece in run.text("answer")] == ["You ", "asked: ", "why?"]
        assert (await run.result()).answer == "You asked: why?"


@pytest.mark.parametrize("way", ["predict", "stream", "start", "socket"])
@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (LMFailed("the LM is down"), LMFailed),
        (RateLimited("slow down", retry_after=3), RateLimited),
        (Cancelled("stopped"), Cancelled),
    ],
)
async def test_a_failure_has_its_class_however_it_is_asked(way: str, failure: Exception, kind: type[Exception]) -> None:
    async def script(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        raise failure

    with serving(qa(script)) as live:
        client = AsyncClient(live.url)
        with pytest.raises(kind) as caught:
            await _ask(client, way, question="x")
    assert str(caught.value) == str(failure)
    assert getattr(caught.value, "retry_after", None) == getattr(failure, "retry_after", None)
    assert caught.value.details["run_id"]  # type: ignore[attr-defined]


async def _ask(client: AsyncClient, way: str, **fields: object) -> object:
    if way == "predict":
        return await client.predict(**fields)
    if way == "socket":
        async with client.socket() as socket, socket.start(**fields) as run:
            return await run.result()
    async with (client.start if way == "start" else client.stream)(**fields) as run:
        return await run.result()


@pytest.mark.parametrize("way", ["predict", "stream", "start", "socket"])
async def test_inputs_that_do_not_fit(live: Live, way: str) -> None:
    with pytest.raises(InputError, match="quesion") as caught:
        await _ask(AsyncClient(live.url), way, quesion="x")
    assert caught.value.details["field"] == "quesion"


@pytest.mark.parametrize("way", ["predict", "stream", "start", "socket"])
async def test_a_key_is_sent_and_a_wrong_one_refused(way: str) -> None:
    with serving(qa(), api_keys=["right"]) as live:
        await _ask(AsyncClient(live.url, api_key="right"), way, question="x")
        with pytest.raises(Unauthorized):
            await _ask(AsyncClient(live.url, api_key="wrong"), way, question="x")


@pytest.mark.parametrize("way", ["predict", "stream", "start", "socket"])
async def test_nobody_there(way: str) -> None:
    with pytest.raises(Unreachable):
        await _ask(AsyncClient("http://127.0.0.1:9"), way, question="x")


async def test_a_server_that_is_no_dspy_live(live: Live) -> None:
    with pytest.raises(NotFound):
        await AsyncClient(live.url + "/nowhere").predict(question="x")
    with pytest.raises(ConfigurationError):
        AsyncClient("127.0.0.1:8000")


@pytest.mark.parametrize("way", ["predict", "stream", "start"])
async def test_a_timeout_ends_the_run_on_the_server(way: str) -> None:
    with serving(qa(endless), grace=600) as live:
        going = asyncio.Event()
        asking = asyncio.create_task(_ask_for(AsyncClient(live.url), way, 60, going))
        await async_until(lambda: live.app.runs.started == 1 and (way == "predict" or going.is_set()))
        leap(60)
        with pytest.raises(DeadlineExceeded, match="60 s"):
            await asking
        await async_until(lambda: len(live.app.runs) == 0)
        assert live.app.runs.started == 1


async def _ask_for(client: AsyncClient, way: str, timeout: float, going: asyncio.Event) -> object:
    if way == "predict":
        return await client.predict(question="x", timeout=timeout)
    async with (client.start if way == "start" else client.stream)(question="x", timeout=timeout) as run:
        await run.receive_many()
        going.set()
        return await run.result()


@pytest.mark.parametrize("way", ["stream", "start", "socket"])
async def test_leaving_early_cancels_the_run(way: str) -> None:
    with serving(qa(endless), grace=600) as live:
        client = AsyncClient(live.url)
        if way == "socket":
            async with client.socket() as socket:
                async with socket.start(question="x") as run:
                    await run.receive_many()
                await async_until(lambda: len(live.app.runs) == 0)
                async with socket.start(question="x") as again:
                    await again.receive_many()
        else:
            async with (client.start if way == "start" else client.stream)(question="x") as run:
                await run.receive_many()
        await async_until(lambda: len(live.app.runs) == 0)


async def test_cancelling_predict_cancels_the_run() -> None:
    with serving(qa(endless)) as live:
        task = asyncio.create_task(AsyncClient(live.url).predict(question="x"))
        await async_until(lambda: len(live.app.runs) == 1)
        task.cancel()
        await async_until(lambda: len(live.app.runs) == 0)
        assert (await asyncio.gather(task, return_exceptions=True))[0].__class__ is asyncio.CancelledError


async def test_cancel_by_id() -> None:
    with serving(qa(endless)) as live:
        client = AsyncClient(live.url)
        async with client.stream(question="x") as run:
            await run.receive_many()
            await client.cancel(run.id)
            with pytest.raises(Cancelled):
                await run.result()
        with pytest.raises(NotFound):
            await client.cancel("f" * 32)


@pytest.mark.parametrize("way", ["stream", "socket"])
async def test_a_reader_that_waits_makes_the_run_wait_and_misses_nothing(way: str) -> None:
    count = 20_000  # 40 MB: more than the kernel's own buffers of two sockets may grow to

    async def flood(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        for i in range(count):
            await tape.push(Token(f"{i}:{'x' * 2000} ", "answer", "p", 1))
            if i % 16 == 0:
                await asyncio.sleep(0)
        await tape.push(Predicted({"answer": ""}))

    with serving(qa(flood)) as live:
        client = AsyncClient(live.url)
        async with client.socket() as socket:
            run = socket.start(question="x") if way == "socket" else client.stream(question="x")
            async with run:
                first = await run.receive_many()
                tape = live.service.tapes[0]
                await asyncio.to_thread(live.settled, lambda: tape.pushed, lambda: tape.waits)
                assert tape.pushed < count
                if way == "socket":
                    assert tape.pushed < 300, "credit bounds what is on its way"
                events = first + [event async for event in run]
    assert [int(e.text.split(":")[0]) for e in events if isinstance(e, Token)] == list(range(count))


async def test_a_cut_stream_is_an_error() -> None:
    with serving(qa(endless)) as live, relay(live.port) as between:
        async with AsyncClient(between.url).stream(question="x") as run:
            await run.receive_many()
            between.cut()
            with pytest.raises(ConnectionLost):
                await run.result()
        await async_until(lambda: len(live.app.runs) == 0)


async def test_a_cut_socket_is_an_error_for_each_of_its_runs() -> None:
    with serving(qa(endless)) as live, relay(live.port) as between:
        async with AsyncClient(between.url).socket() as socket:
            async with socket.start(question="x") as one, socket.start(question="y") as two:
                await one.receive_many()
                await two.receive_many()
                between.cut()
                for run in (one, two):
                    with pytest.raises(ConnectionLost):
                        await run.result()
        await async_until(lambda: len(live.app.runs) == 0)


async def test_what_comes_after_the_end_of_a_run_does_not_change_it() -> None:
    """Credit that crossed the end on its way is answered "no run 1 is under way", and failed a run that was whole."""
    with serving(qa(words)) as live:
        async with AsyncClient(live.url).socket() as socket:
            async with socket.start(question="x", buffer=Buffer(200)) as run:
                await async_until(lambda: live.app.runs.started == 1 and len(live.app.runs) == 0)
                await socket.send({"type": "credit", "id": 1, "n": 1})
                async with socket.start(question="y") as other:
                    await other.result()  # the answer to the credit has come before
                assert len([event async for event in run if isinstance(event, Token)]) == 200
                assert (await run.result()).answer == "…"


async def test_a_resumable_run_goes_on_over_cuts_without_a_gap() -> None:
    with serving(qa(words)) as live, relay(live.port) as between:
        between.cut_after = 3000
        async with AsyncClient(between.url).start(question="x") as run:
            text = "".join([piece async for piece in run.text()])
            reply = await run.result()
    assert text == " ".join(f"w{i}" for i in range(200))
    assert reply.usage["total_tokens"] == 12
    assert between.connections > 4, "nothing was cut"


async def test_a_detached_run_is_resumed_where_it_was_left() -> None:
    with serving(qa(words)) as live:
        client = AsyncClient(live.url)
        text = ""
        async with client.start(question="x") as run:
            async for event in run:
                text += event.text if isinstance(event, Token) else ""
                if run.position == 50:
                    break
            run_id, position = run.detach()
        assert position == 50
        async with client.resume(run_id, position) as again:
            text += "".join([piece async for piece in again.text()])
    assert text == " ".join(f"w{i}" for i in range(200))


async def test_resuming_a_run_that_is_over_or_unknown() -> None:
    with serving(qa(answer)) as live:
        client = AsyncClient(live.url)
        async with client.start(question="x") as run:
            events = [event async for event in run]
            run_id, position = run.detach()
        assert position == len(events) + 1, "the prediction has a number too"
        async with client.resume(run_id) as again:
            assert [event async for event in again] == events
        async with client.resume(run_id, position) as over:
            assert [event async for event in over] == []
            assert over.reply is None
        async with client.resume("f" * 32) as unknown:
            with pytest.raises(NotFound):
                await unknown.result()


async def test_a_server_that_stays_away_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dspy_live.client.stream.RECONNECTS", 2)
    with serving(qa(endless)) as live, relay(live.port) as between:
        async with AsyncClient(between.url).start(question="x") as run:
            await run.receive_many()
            between.close()
            with pytest.raises(ConnectionLost, match="did not come back"):
                await run.result()
            run.detach()


async def test_an_unknown_error_keeps_its_type() -> None:
    from dspy_live.client.errors import error_of, error_of_reply

    found = error_of({"error": {"type": "new_kind", "message": "m", "run_id": "r"}}, 418)
    assert isinstance(found, RemoteError)
    assert found.details == {"type": "new_kind", "status": 418, "run_id": "r"}
    assert isinstance(error_of_reply(502, b"<html>"), RemoteError)
    assert isinstance(error_of([]), RemoteError)


async def test_a_named_program() -> None:
    from tests.server.support import Scripted

    from dspy_live.server import ServedProgram, create_app

    other = ServedProgram("other", Scripted(words), QA)
    with serving(create_app({"qa": qa(), "other": other})) as live:
        assert [p["name"] for p in await AsyncClient(live.url).programs()] == ["qa", "other"]
        assert (await AsyncClient(live.url).predict(question="x")).answer == "You asked: x"
        assert (await AsyncClient(live.url, program="other").predict(question="x")).answer == "…"
        assert (await AsyncClient(live.url).predict(question="x", program="other")).answer == "…"
        async with AsyncClient(live.url, program="other").socket() as socket, socket.start(question="x") as run:
            assert (await run.result()).answer == "…"


async def test_ready(live: Live) -> None:
    assert await AsyncClient(live.url).ready() is True
    assert await AsyncClient("http://127.0.0.1:9").ready() is False


async def test_a_layer_that_wraps_a_program_wraps_a_remote_one(live: Live) -> None:
    service = AsyncClient(live.url).service()
    call = Call({"question": "x"}, deadline=asyncio.get_running_loop().time() - 1)
    with pytest.raises(DeadlineExceeded):
        await service(call, DISCARD)


async def test_a_call_s_deadline_ends_the_run_here_and_on_the_server() -> None:
    with serving(qa(endless)) as live:
        call = Call({"question": "x"}, deadline=asyncio.get_running_loop().time() + 60)
        asking = asyncio.ensure_future(RemoteService(live.url)(call, DISCARD))
        await async_until(lambda: live.app.runs.started == 1)
        leap(60)
        with pytest.raises(DeadlineExceeded):
            await asking
        await async_until(lambda: len(live.app.runs) == 0)
        assert live.app.runs.started == 1


async def test_a_small_buffer_is_enough(live: Live) -> None:
    async with AsyncClient(live.url).stream(question="x", buffer=Buffer(1)) as run:
        events = [event async for event in run]
        assert (await run.result()).answer == "You asked: x"
    assert any(isinstance(event, Usage) for event in events)


def test_half_a_character_arrives_however_it_is_asked() -> None:
    half = "\ud83d"

    async def script(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        await tape.push(Token(half, "answer", "predict", 1, True), Predicted({"answer": half}))

    async def ask(url: str) -> None:
        client = AsyncClient(url)
        assert (await client.predict(question="x")).answer == half
        async with client.stream(question="x") as run:
            assert [event.text async for event in run if isinstance(event, Token)] == [half]
        async with client.socket() as socket, socket.start(question="x") as run:
            assert [event.text async for event in run if isinstance(event, Token)] == [half]
            assert run.reply is not None
            assert run.reply.answer == half

    with serving(qa(script)) as live:
        asyncio.run(ask(live.url))


@pytest.mark.parametrize("url", ["http://", "http://127.0.0.1:abc", "ftp://x", "127.0.0.1:8000", "http://x:99999"])
def test_an_address_that_is_no_url_of_a_server(url: str) -> None:
    with pytest.raises(ConfigurationError, match="URL"):
        AsyncClient(url)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"programs": 5}', b'{"programs": [{}]}'])
def test_another_server_is_told_from_ours(body: bytes) -> None:
    async def page(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    app = create_app(qa())
    with serving(app, wrap=only_http(page)) as live, pytest.raises(RemoteError, match="no dspy-live server"):
        asyncio.run(AsyncClient(live.url).programs())


def only_http(page: Any) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await page(scope, receive, send)

    return app
