"""WS /ws over a real socket: the plain protocol and the typed one."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from socket import SHUT_RDWR
from typing import Any

import pytest
from tests.server.support import QA, Live, Scripted, Tape, answer, qa, serving, until
from tests.support.until import BOUND
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from dspy_live.core.call import Call
from dspy_live.core.errors import LMFailed, Overloaded
from dspy_live.core.events import Predicted, Restart, Started, Status, Token
from dspy_live.core.schema import Field, Schema
from dspy_live.server import ServedProgram, create_app


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with serving(qa()) as server:
        yield server


def ask(socket: ClientConnection, question: str) -> list[str]:
    socket.send(question)
    pieces = []
    while (piece := str(socket.recv(BOUND))) != "[DONE]":
        pieces.append(piece)
    return pieces


def closed(socket: ClientConnection) -> tuple[int, str]:
    """Read to the end and return the close code and reason."""

    def read_on() -> None:
        while True:
            socket.recv(BOUND)

    with pytest.raises(ConnectionClosed) as ended:
        read_on()
    assert ended.value.rcvd is not None
    return ended.value.rcvd.code, ended.value.rcvd.reason


def vanish(socket: ClientConnection) -> None:
    """Cut the connection without a closing handshake."""
    socket.socket.shutdown(SHUT_RDWR)


# The plain protocol.


def test_a_question_is_answered_by_the_last_text_outputs_tokens(live: Live) -> None:
    with connect(live.ws + "/ws") as socket:
        assert ask(socket, "why?") == ["You ", "asked: ", "why?"]
        assert ask(socket, "who?") == ["You ", "asked: ", "who?"]


def test_questions_sent_together_are_answered_in_order(live: Live) -> None:
    with connect(live.ws + "/ws") as socket:
        for question in "abc":
            socket.send(question)
        received = [str(socket.recv(BOUND)) for _ in range(12)]
    assert "".join(received) == "".join(f"You asked: {q}[DONE]" for q in "abc")


def test_too_many_waiting_questions_close_the_socket() -> None:
    async def slow(call: Call, tape: Tape) -> None:
        await asyncio.Event().wait()

    with serving(qa(slow)) as live, connect(live.ws + "/ws") as socket:
        with contextlib.suppress(ConnectionClosed):
            for i in range(30):
                socket.send(str(i))
        assert closed(socket)[0] == 4503
        until(lambda: len(live.app.runs) == 0)


@pytest.mark.parametrize(
    ("failure", "code"), [(LMFailed("the LM is down"), 4502), (Overloaded("full"), 4503), (ValueError("secret"), 4500)]
)
def test_an_error_closes_with_its_code(failure: Exception, code: int) -> None:
    async def script(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        await tape.tokens("so far")
        raise failure

    with serving(qa(script)) as live, connect(live.ws + "/ws") as socket:
        socket.send("x")
        found, reason = closed(socket)
    assert found == code
    assert "secret" not in reason


def test_a_program_of_several_inputs_says_so() -> None:
    schema = Schema("S", (Field("question"), Field("context")), (Field("answer"),))
    with serving(qa(schema=schema)) as live, connect(live.ws + "/ws") as socket:
        socket.send("x")
        code, reason = closed(socket)
    assert code == 4422
    assert "'question'" in reason


def test_binary_frames_are_refused(live: Live) -> None:
    with connect(live.ws + "/ws") as socket:
        socket.send(b"\x00")
        assert closed(socket)[0] == 1003


def test_an_answer_without_tokens_is_one_frame() -> None:
    async def script(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id), Predicted({"answer": "all at once"}))

    with serving(qa(script)) as live, connect(live.ws + "/ws") as socket:
        assert ask(socket, "x") == ["all at once"]


def test_words_that_were_taken_back_before_they_were_sent_are_no_harm() -> None:
    async def script(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id), Restart("predict", 1, "retry"))
        await tape.tokens("right")
        await tape.push(Predicted({"answer": "right and more"}))

    with serving(qa(script)) as live, connect(live.ws + "/ws") as socket:
        assert "".join(ask(socket, "x")) == "right and more"


def test_words_that_can_not_be_taken_back_close_the_socket() -> None:
    async def script(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        await tape.tokens("wrong")
        await tape.push(Restart("predict", 1, "repaired", ("answer",)))
        await tape.tokens("right")
        await tape.push(Predicted({"answer": "right"}))

    with serving(qa(script)) as live, connect(live.ws + "/ws") as socket:
        socket.send("x")
        code, reason = closed(socket)
    assert code == 4502
    assert "stream_broken" in reason


async def change_of_mind(call: Call, tape: Tape) -> None:
    await tape.push(Started(call.id))
    await tape.tokens("first try", lm_call=1)
    await tape.tokens("second", lm_call=2)
    await tape.push(Predicted({"answer": "second"}))


def test_one_run_does_not_change_how_a_later_one_is_served() -> None:
    with serving(qa(change_of_mind)) as live:
        for _ in range(2):
            with connect(live.ws + "/ws") as socket:
                socket.send("x")
                assert socket.recv(BOUND) == "first "
                assert closed(socket)[0] == 4502


def test_text_that_is_held_comes_at_the_end() -> None:
    with serving(qa(change_of_mind, hold_text=True)) as live, connect(live.ws + "/ws") as socket:
        assert ask(socket, "x") == ["second"]
        assert ask(socket, "x") == ["second"]


def test_text_of_a_second_lm_call_is_held_until_the_end() -> None:
    async def script(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        await tape.tokens("the answer", lm_call=1)
        await tape.tokens("noise", lm_call=2)
        await tape.push(Predicted({"answer": "the answer, long"}))

    with serving(qa(script)) as live, connect(live.ws + "/ws") as socket:
        assert "".join(ask(socket, "x")) == "the answer, long"


async def endless(call: Call, tape: Tape) -> None:
    await tape.push(Started(call.id))
    while True:
        await tape.push(Token("word ", "answer", "predict", 1))
        await asyncio.sleep(0.002)


def test_leaving_the_plain_socket_cancels_the_run() -> None:
    with serving(qa(endless)) as live:
        with connect(live.ws + "/ws") as socket:
            socket.send("x")
            socket.recv()
            live.ends_when(lambda: vanish(socket))
        until(lambda: len(live.app.runs) == 0)


# The typed protocol.


class Typed:
    """A typed client for the tests, with frames sorted by run."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.frames: list[dict[str, Any]] = []

    def send(self, **frame: Any) -> None:
        self.socket.send(json.dumps(frame))

    def start(self, name: Any, question: str = "why?", **more: Any) -> None:
        self.send(type="start", id=name, inputs={"question": question}, **more)

    def read(self) -> dict[str, Any]:
        frame: dict[str, Any] = json.loads(self.socket.recv(BOUND))
        self.frames.append(frame)
        return frame

    def until_done(self, *ids: Any) -> None:
        waiting = set(ids)
        while waiting:
            frame = self.read()
            if frame["event"] == "done":
                waiting.discard(frame["id"])

    def of(self, name: Any) -> list[dict[str, Any]]:
        return [f for f in self.frames if f["id"] == name]

    def names(self, name: Any) -> list[str]:
        return [f["event"] for f in self.of(name)]

    def text(self, name: Any) -> str:
        return "".join(
            f["data"]["text"] for f in self.of(name) if f["event"] == "token" and f["data"]["field"] == "answer"
        )


@pytest.fixture
def typed(live: Live) -> Iterator[Typed]:
    with connect(live.ws + "/ws") as socket:
        yield Typed(socket)


def test_a_run_has_all_its_events_numbered(typed: Typed) -> None:
    typed.start("a")
    typed.until_done("a")
    assert typed.names("a") == ["started", *["token"] * 5, "usage", "prediction", "done"]
    assert [f["seq"] for f in typed.of("a")] == list(range(1, 10))
    assert typed.text("a") == "You asked: why?"
    assert typed.of("a")[-2]["data"]["outputs"]["answer"] == "You asked: why?"
    assert typed.of("a")[-1]["data"] is None


def test_an_id_with_signs_of_all_kinds_is_kept(typed: Typed) -> None:
    for name in ('100%s "q" \\', 7, ""):
        typed.start(name)
        typed.until_done(name)
        assert typed.text(name) == "You asked: why?"


def test_several_runs_share_a_socket_and_an_id_is_free_after_done() -> None:
    begun, all_have_begun = [], asyncio.Event()

    async def slowly(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        begun.append(call.id)
        if len(begun) == 3:
            all_have_begun.set()
        await all_have_begun.wait()
        await tape.tokens(f"{call.inputs['question']} " * 10, pause=0.002)
        await tape.push(Predicted({"answer": ""}))

    with serving(qa(slowly)) as live, connect(live.ws + "/ws") as socket:
        typed = Typed(socket)
        for name in ("a", "b", 3):
            typed.start(name, f"q{name}")
        typed.until_done("a", "b", 3)
        order = [f["id"] for f in typed.frames if f["event"] == "token"]
        assert order != sorted(order, key=str), "the runs did not run at once"
        for name in ("a", "b", 3):
            assert typed.text(name) == f"q{name} " * 10
        typed.start("a", "again")
        typed.until_done("a")
        assert typed.text("a").endswith("again ")


def test_cancel_ends_one_run_and_not_the_other() -> None:
    async def script(call: Call, tape: Tape) -> None:
        await (endless if call.inputs["question"] == "endless" else answer)(call, tape)

    with serving(qa(script)) as live, connect(live.ws + "/ws") as socket:
        typed = Typed(socket)
        typed.start("a", "endless")
        while typed.read()["event"] != "token":
            pass
        typed.send(type="cancel", id="a")
        typed.until_done("a")
        assert typed.names("a")[-2:] == ["error", "done"]
        assert typed.of("a")[-2]["data"]["error"]["type"] == "cancelled"
        until(lambda: len(live.app.runs) == 0)
        typed.start("b")
        typed.until_done("b")
        assert typed.text("b") == "You asked: why?"


def test_a_cancel_right_behind_the_start_is_not_lost() -> None:
    with serving(qa(endless)) as live, connect(live.ws + "/ws") as socket:
        typed = Typed(socket)
        typed.start("a")
        typed.send(type="cancel", id="a")
        typed.until_done("a")
        assert typed.of("a")[-2]["data"]["error"]["type"] == "cancelled"


def test_credit_lets_so_many_tokens_through() -> None:
    async def script(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id), Status("go"))
        await tape.tokens(" ".join(str(i) for i in range(500)))
        await tape.push(Predicted({"answer": ""}))

    with serving(qa(script)) as live, connect(live.ws + "/ws") as socket:
        typed = Typed(socket)
        typed.start("a", credit=3)
        for _ in range(5):
            typed.read()
        with pytest.raises(TimeoutError):
            socket.recv(0.1)
        assert typed.names("a") == ["started", "status", "token", "token", "token"]
        until(lambda: live.service.tapes[0].waits)
        assert live.service.tapes[0].pushed == 6
        typed.send(type="credit", id="a", n=10_000)
        typed.until_done("a")
        assert typed.text("a") == " ".join(str(i) for i in range(500))


async def two_words(call: Call, tape: Tape) -> None:
    await tape.push(Started(call.id), Token("one ", "answer", "p", 1), Token("two", "answer", "p", 1), Status("end"))
    if call.inputs["question"] == "fail":
        raise LMFailed("the LM is down")
    await tape.push(Predicted({"answer": "one two"}))


@pytest.mark.parametrize(("question", "end"), [("why?", "prediction"), ("fail", "error")])
def test_the_end_of_a_run_waits_for_credit_behind_its_tokens(question: str, end: str) -> None:
    with serving(qa(two_words)) as live, connect(live.ws + "/ws") as socket:
        typed = Typed(socket)
        typed.start("a", question, credit=1)
        typed.read(), typed.read()
        with pytest.raises(TimeoutError):
            socket.recv(0.1)
        typed.send(type="credit", id="a", n=1)
        typed.until_done("a")
        assert typed.names("a") == ["started", "token", "token", "status", end, "done"]
        assert [f["seq"] for f in typed.of("a")] == [1, 2, 3, 4, 5, 6]


def test_a_run_that_waits_for_credit_ends_when_it_is_cancelled_or_its_client_leaves() -> None:
    with serving(qa(two_words)) as live:
        with connect(live.ws + "/ws") as socket:
            typed = Typed(socket)
            typed.start("a", credit=0)
            typed.send(type="cancel", id="a")
            typed.until_done("a")
            assert typed.names("a")[-2:] == ["error", "done"]
            typed.start("b", credit=0)
            typed.read()
            until(lambda: len(live.app.runs) == 1)
        until(lambda: len(live.app.runs) == 0)


@pytest.mark.parametrize(
    ("frame", "kind", "words"),
    [
        ('{"type": "start"', "bad_request", "not valid JSON"),
        ("[]", "bad_request", "an array"),
        ('{"type": "start", "inputs": {}}', "invalid_input", "'id'"),
        ('{"type": "start", "id": true}', "invalid_input", "'id'"),
        ('{"type": "stop", "id": 1}', "invalid_input", "'start', 'cancel' or 'credit'"),
        ('{"type": "cancel", "id": "x"}', "not_found", "'x'"),
        ('{"type": "start", "id": 1, "inputs": {"question": "x"}, "credit": -1}', "invalid_input", "'credit'"),
        ('{"type": "start", "id": 1, "inputs": {}}', "invalid_input", "missing field 'question'"),
        ('{"type": "start", "id": 1, "inputs": 5}', "invalid_input", "'inputs'"),
        ('{"type": "start", "id": 1, "program": "other"}', "not_found", "'other'"),
    ],
)
def test_a_mistake_is_an_error_frame_and_the_socket_stays(typed: Typed, frame: str, kind: str, words: str) -> None:
    typed.start("first")
    typed.until_done("first")
    typed.socket.send(frame)
    found = typed.read()
    assert found["event"] == "error"
    assert found["data"]["error"]["type"] == kind
    assert words in found["data"]["error"]["message"]
    typed.start("after")
    typed.until_done("after")
    assert typed.text("after") == "You asked: why?"


def test_an_id_in_use_is_refused() -> None:
    with serving(qa(endless)) as live, connect(live.ws + "/ws") as socket:
        typed = Typed(socket)
        typed.start("a")
        typed.start("a")
        while (frame := typed.read())["event"] != "error":
            pass
        assert "under way" in frame["data"]["error"]["message"]


def test_leaving_the_typed_socket_cancels_all_its_runs() -> None:
    with serving(qa(endless)) as live:
        with connect(live.ws + "/ws") as socket:
            typed = Typed(socket)
            for i in range(10):
                typed.start(i)
            until(lambda: len(live.app.runs) == 10)
            vanish(socket)
        until(lambda: len(live.app.runs) == 0)
        assert len(live.service.ended) == 10


@pytest.mark.parametrize("first", ["x", '{"type": "start", "id": 1, "inputs": {"question": "x"}}'])
def test_leaving_ends_a_run_that_is_silent(first: str) -> None:
    async def silent(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        await asyncio.sleep(60)

    with serving(qa(silent)) as live:
        with connect(live.ws + "/ws") as socket:
            socket.send(first)
            until(lambda: len(live.app.runs) == 1)
            live.ends_when(lambda: vanish(socket))
        until(lambda: len(live.app.runs) == 0)


def test_a_named_program_has_a_socket_of_its_own() -> None:
    other = Schema("Other", QA.inputs, QA.outputs)
    programs = {"qa": qa(), "other": ServedProgram("other", Scripted(answer), other)}
    with serving(create_app(programs)) as live:
        with connect(live.ws + "/programs/other/ws") as socket:
            assert "".join(ask(socket, "x")) == "You asked: x"
        with connect(live.ws + "/ws") as socket:
            typed = Typed(socket)
            typed.start(1, program="other")
            typed.until_done(1)
            assert typed.text(1) == "You asked: why?"
