"""The layers around the programs of a server, and what they do to wires that can't take words back."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from tests.server.support import QA, Live, Scripted, Tape, answer, http, qa, serving, sse, until
from tests.support.until import BOUND
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

import dspy_live
from dspy_live.core.call import Call
from dspy_live.core.errors import ConfigurationError, LMFailed
from dspy_live.core.events import Predicted, Result, Started
from dspy_live.core.service import Layer, Service
from dspy_live.core.sink import Sink
from dspy_live.layers import Deadline, Fallback, Retry, Shed
from dspy_live.layers.detached import Detached
from dspy_live.sansio.limits.backoff import Backoff
from dspy_live.server import ServedProgram, create_app


async def slow(call: Call, tape: Tape) -> None:
    await tape.push(Started(call.id))
    await asyncio.sleep(60)


def test_the_default_layers_can_be_looked_at() -> None:
    assert create_app(qa()).layers == []
    assert repr(create_app(qa(), max_active=3, timeout=5).layers) == "[Deadline(5), Shed(3)]"
    app = create_app(qa(), layers=[Retry(2), Shed(7)])
    assert repr(app.layers) == "[Retry(2), Shed(7)]"
    assert repr(app.programs["qa"].layers) == "(Retry(2), Shed(7))"


def test_a_program_keeps_a_list_of_its_own() -> None:
    program = ServedProgram("qa", Scripted(answer), QA, layers=(Deadline(2),))
    app = create_app(program, max_active=3)
    assert repr(app.layers) == "[Deadline(2)]"
    assert app.default.service is program.service


def test_a_list_of_ones_own_has_its_own_limit_and_deadline() -> None:
    with pytest.raises(ConfigurationError, match="not both"):
        create_app(qa(), layers=[], timeout=5)
    with serving(create_app(qa(slow), layers=[Shed(1), Deadline(0.2)])) as live:
        assert http.get(live.url + "/health/ready").json()["max_active"] == 1
        assert http.post(live.url + "/predict", json={"question": "x"}).status_code == 504


def test_a_run_that_takes_too_long_is_504_and_has_ended() -> None:
    service = Scripted(slow)
    with serving(ServedProgram("qa", service, QA), timeout=0.1) as live:
        reply = http.post(live.url + "/predict", json={"question": "x"})
        assert reply.status_code == 504
        assert reply.json()["error"]["type"] == "deadline_exceeded"
        events = sse(http.post(live.url + "/predict/stream", json={"question": "x"}).text)
        assert [name for name, _, _ in events] == ["started", "error", "done"]
        assert list(service.ended.values()) == ["CancelledError"] * 2


def test_the_limit_is_the_servers_and_not_each_programs() -> None:
    programs = {"qa": qa(slow), "other": ServedProgram("other", Scripted(answer), QA)}
    with serving(create_app(programs, max_active=1)) as live:
        sock = live.connect()
        sock.sendall(live.request("POST", "/predict", b'{"question":"x"}'))
        until(lambda: len(live.app.runs) == 1)
        refused = http.post(live.url + "/programs/other/predict", json={"question": "x"})
        stats = http.get(live.url + "/stats").json()
        sock.close()
        until(lambda: len(live.app.runs) == 0)
        assert http.post(live.url + "/programs/other/predict", json={"question": "x"}).status_code == 200
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert (stats["started"], stats["refused"], stats["max_active"]) == (1, 1, 1)


# Another try, at wires that can't take words back.


class Failing:
    """Says ``words``, if any, and fails; the next time it answers."""

    def __init__(self, words: str = "") -> None:
        self.words = words
        self.attempts = 0

    async def __call__(self, call: Call, sink: Sink) -> Result:
        tape = Tape(call, sink)
        self.attempts += 1
        await tape.push(Started(call.id))
        if self.attempts > 1:
            await tape.tokens("right")
            return Predicted({"answer": "right"})
        if self.words:
            await tape.tokens(self.words)
        raise LMFailed("the connection was lost") from ConnectionResetError()


def plain(live: Live) -> tuple[str, Any]:
    """The text that the plain WebSocket gives, and what it failed with."""
    text = ""
    with connect(live.ws + "/ws") as socket:
        socket.send("x")
        try:
            while (piece := str(socket.recv(BOUND))) != "[DONE]":
                text += piece
        except ConnectionClosed as exc:
            return text, exc.rcvd.reason.partition(":")[0] if exc.rcvd is not None else "no reason"
    return text, None


def openai(live: Live) -> tuple[str, Any]:
    """The text that a streamed chat completion gives, and what it failed with."""
    body = {"model": "qa", "stream": True, "messages": [{"role": "user", "content": "x"}]}
    reply = http.post(live.url + "/v1/chat/completions", json=body)
    text, error = "", None
    for line in reply.text.split("\n"):
        if line.startswith("data: {"):
            data = json.loads(line[6:])
            error = data["error"]["code"] if "error" in data else error
            text += "".join(choice["delta"].get("content", "") for choice in data.get("choices", ()))
    return text, error


def retry() -> Layer:
    return Retry(3, when=lambda _: True, backoff=Backoff(base=0.001, cap=0.001))


def fallback_at_once(service: Service) -> Service:
    """Without any wait between the two, and in another task than the door's."""
    return Detached()(Fallback(service, when=lambda _: True)(service))


@pytest.mark.parametrize("again", [lambda: [retry()], lambda: [fallback_at_once]], ids=["retry", "fallback"])
@pytest.mark.parametrize("ask", [plain, openai])
def test_after_the_first_words_the_run_ends_and_nothing_is_asked_again(
    ask: Callable[[Live], tuple[str, Any]], again: Callable[[], list[Layer]], caplog: pytest.LogCaptureFixture
) -> None:
    service = Failing("wrong words")
    with serving(create_app(ServedProgram("qa", service, QA), layers=again())) as live:
        assert ask(live) == ("wrong words", "stream_broken")
        assert service.attempts == 1
    told = [record.getMessage() for record in caplog.records if record.name == "dspy_live.server"]
    assert any("the beginning of the answer had been given out" in line for line in told), "the log says why"


@pytest.mark.parametrize("again", [lambda: [retry()], lambda: [fallback_at_once]], ids=["retry", "fallback"])
@pytest.mark.parametrize("ask", [plain, openai])
def test_before_the_first_words_there_is_another_try(
    ask: Callable[[Live], tuple[str, Any]], again: Callable[[], list[Layer]]
) -> None:
    service = Failing()
    with serving(create_app(ServedProgram("qa", service, QA), layers=again())) as live:
        assert ask(live) == ("right", None)
        assert service.attempts == 2


@pytest.mark.parametrize("ask", [plain, openai])
def test_words_that_are_held_can_be_said_again(ask: Callable[[Live], tuple[str, Any]]) -> None:
    service = Failing("wrong words")
    with serving(create_app(ServedProgram("qa", service, QA, hold_text=True), layers=[retry()])) as live:
        assert ask(live) == ("right", None)


def test_an_event_stream_tells_of_the_other_try() -> None:
    with serving(create_app(ServedProgram("qa", Failing("wrong words"), QA), layers=[retry()])) as live:
        events = sse(http.post(live.url + "/predict/stream", json={"question": "x"}).text)
    assert [name for name, _, _ in events] == ["started", "token", "token", "restart", "token", "prediction", "done"]


def test_a_program_that_blocks_its_thread_holds_no_client_up_and_keeps_its_place() -> None:
    """The reply comes when the time is up; the server's place is free when the thread has ended, and not before."""
    release = threading.Event()

    def block(question: str) -> str:
        release.wait(60)
        return "late"

    with serving(dspy_live.create_app({"block": block}, max_active=1, timeout=0.3)) as live:
        try:
            assert http.post(f"{live.url}/predict", json={"question": "q"}).status_code == 504
            # A thread that came too late for its run has blocked nothing, and the next one's keeps the place.
            until(lambda: http.post(f"{live.url}/predict", json={"question": "q"}).status_code == 503)
        finally:
            release.set()
        until(lambda: http.post(f"{live.url}/predict", json={"question": "q"}).status_code == 200)
