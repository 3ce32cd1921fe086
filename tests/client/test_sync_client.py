"""The synchronous client against a real server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.server.support import Live, Tape, qa, serving, until

from dspy_live.client import Client
from dspy_live.core.call import Call
from dspy_live.core.errors import Cancelled, InputError
from dspy_live.core.events import Predicted, Started, Token


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with serving(qa()) as server:
        yield server


async def words(call: Call, tape: Tape) -> None:
    await tape.push(Started(call.id, "QA"))
    await tape.tokens(" ".join(f"w{i}" for i in range(100)), pause=0.001)
    await tape.push(Predicted({"answer": "…"}))


async def endless(call: Call, tape: Tape) -> None:
    await tape.push(Started(call.id, "QA"))
    while True:
        await tape.push(Token("x", "answer", "p", 1))
        await asyncio.sleep(0.001)


def test_predict(live: Live) -> None:
    client = Client(live.url)
    assert client.predict(question="why?").answer == "You asked: why?"
    assert client.ready() is True
    assert client.programs()[0]["name"] == "qa"
    with pytest.raises(InputError):
        client.predict(quesion="x")


def test_stream(live: Live) -> None:
    with Client(live.url).stream(question="why?") as run:
        assert list(run.text("answer")) == ["You ", "asked: ", "why?"]
        assert run.reply is not None
        assert run.reply.answer == "You asked: why?"
        assert run.id == run.reply.run_id
    with Client(live.url).stream(question="why?") as run:
        assert run.result().answer == "You asked: why?"


def test_a_socket_with_two_runs(live: Live) -> None:
    with Client(live.url).socket() as socket:
        with socket.start(question="a") as one, socket.start(question="b") as two:
            assert "".join(two.text("answer")) == "You asked: b"
            assert one.result().answer == "You asked: a"


def test_leaving_early_cancels() -> None:
    with serving(qa(endless)) as live:
        with Client(live.url).stream(question="x") as run:
            for event in run:
                if isinstance(event, Token):
                    break
        until(lambda: len(live.app.runs) == 0)


def test_cancel_from_another_thread() -> None:
    with serving(qa(endless)) as live:
        client = Client(live.url)
        with client.stream(question="x") as run:
            next(iter(run))
            threading.Thread(target=client.cancel, args=[run.id]).start()
            with pytest.raises(Cancelled):
                for _ in run:
                    pass


def test_detach_and_resume() -> None:
    with serving(qa(words)) as live:
        client = Client(live.url)
        text = ""
        with client.start(question="x") as run:
            for event in run:
                text += event.text if isinstance(event, Token) else ""
                if run.position == 20:
                    break
            place = run.detach()
        assert place == (run.id, 20)
        with client.resume(*place) as again:
            text += "".join(again.text())
    assert text == " ".join(f"w{i}" for i in range(100))


def test_only_resumable_runs_have_a_position(live: Live) -> None:
    with Client(live.url).stream(question="x") as run, pytest.raises(TypeError):
        run.detach()


def test_threads_share_a_client(live: Live) -> None:
    client = Client(live.url)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda i: client.predict(question=str(i)).answer, range(100)))
    assert answers == [f"You asked: {i}" for i in range(100)]
