"""Conversations that the server keeps: who may see them, in which order they are answered, what is kept."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from tests.server.support import QA, Live, Tape, http, qa, serving, sse, until
from tests.support.until import BOUND
from websockets.sync.client import connect

from dspy_live.core.call import Call
from dspy_live.core.errors import LMFailed
from dspy_live.core.events import Predicted, Started
from dspy_live.core.schema import Field, Schema
from dspy_live.server import create_app
from dspy_live.server.sessions import Sessions, Turn
from dspy_live.server.sessions.memory import MemorySessions
from dspy_live.server.sessions.turns import MOST_WAITING


class History:
    """What DSPy's history is to the server: an object with messages, made of JSON."""

    def __init__(self, given: Any) -> None:
        if not isinstance(given, (dict, History)):
            raise ValueError("expected an object")
        self.messages = given["messages"] if isinstance(given, dict) else given.messages


HISTORY = Field("history", type="dspy.History", json_schema={"type": "object"}, convert=History)
CHAT = Schema("Chat", (Field("question"), HISTORY), (Field("answer"),))


async def repeats(call: Call, tape: Tape) -> None:
    """Answer with the question; a question may also be the name of what is to happen."""
    question = call.inputs["question"]
    await tape.push(Started(call.id))
    if question == "fail":
        raise LMFailed("the LM is down")
    if question == "wait":
        await asyncio.Event().wait()
    await tape.tokens(f"{question}!")
    await tape.push(Predicted({"answer": f"{question}!"}))


@pytest.fixture
def live() -> Iterator[Live]:
    with serving(qa(repeats, CHAT), api_keys={"a": "key-a-1", "b": "key-b-1"}) as server:
        yield server


def ask(live: Live, question: str, session: str | None = "s", key: str = "key-a-1", **more: Any) -> httpx.Response:
    body = {"question": question, **more} | ({} if session is None else {"session": session})
    return http.post(live.url + "/predict", json=body, headers={"x-api-key": key})


def told(live: Live, number: int = -1) -> list[str]:
    """The questions of the history that a call was given."""
    return [message["question"] for message in live.service.calls[number].inputs["history"].messages]


def get(live: Live, path: str = "", key: str = "key-a-1", method: str = "GET") -> httpx.Response:
    return http.request(method, live.url + "/sessions" + path, headers={"x-api-key": key})


def test_a_program_is_told_of_its_conversation(live: Live) -> None:
    for number, question in enumerate(("one", "two", "three")):
        assert ask(live, question).json()["answer"] == f"{question}!"
        assert told(live) == ["one", "two", "three"][:number]
    assert live.service.calls[-1].inputs["history"].messages[0] == {"question": "one", "answer": "one!"}
    assert ask(live, "alone", session=None).json()["error"]["field"] == "history"  # there is no session to have it


def test_the_header_names_a_session_too(live: Live) -> None:
    for question in ("one", "two"):
        headers = {"x-api-key": "key-a-1", "x-session": "by header"}
        http.post(live.url + "/predict", json={"question": question}, headers=headers)
    assert told(live) == ["one"]


def test_streams_and_runs_are_in_sessions_too(live: Live) -> None:
    headers = {"x-api-key": "key-a-1", "x-session": "s"}
    reply = http.post(live.url + "/predict/stream", json={"question": "one"}, headers=headers)
    assert sse(reply.text)[-2][2]["outputs"] == {"answer": "one!"}
    run = http.post(live.url + "/runs", json={"question": "two", "session": "s"}, headers=headers).json()["run"]["id"]
    http.get(f"{live.url}/runs/{run}/events", headers=headers)
    body = {"model": "qa", "input": "three", "conversation": "s"}
    assert http.post(live.url + "/v1/responses", json=body, headers=headers).status_code == 200
    body = {"model": "qa", "messages": [{"role": "user", "content": "four"}], "session": "s"}
    assert http.post(live.url + "/v1/chat/completions", json=body, headers=headers).status_code == 200
    assert http.post(live.url + "/v1/chat/completions", json=body | {"n": 2}, headers=headers).status_code == 400
    with connect(live.ws + "/ws", additional_headers={"x-api-key": "key-a-1"}) as socket:
        socket.send(json.dumps({"type": "start", "id": 1, "session": "s", "inputs": {"question": "five"}}))
        while '"done"' not in str(socket.recv(BOUND)):
            pass
    ask(live, "six")
    assert told(live) == ["one", "two", "three", "four", "five"]


def test_sessions_are_listed_read_and_deleted(live: Live) -> None:
    for session in ("x", "y"):
        ask(live, "one", session)
    ask(live, "two", "x")
    listed = get(live).json()
    assert [(one["id"], one["program"], one["turns"]) for one in listed["sessions"]] == [("x", "qa", 2), ("y", "qa", 1)]
    assert listed["more"] is False
    assert [one["id"] for one in get(live, "?limit=1").json()["sessions"]] == ["x"]
    before = listed["sessions"][0]["updated"]
    assert [one["id"] for one in get(live, f"?before={before}").json()["sessions"]] == ["y"]
    found = get(live, "/x").json()
    assert [turn["messages"] for turn in found["turns"]] == [
        [{"question": "one", "answer": "one!"}],
        [{"question": "two", "answer": "two!"}],
    ]
    assert found["turns"][1]["id"] == live.service.calls[-1].id
    assert get(live, "/x", method="DELETE").status_code == 204
    assert get(live, "/x").status_code == get(live, "/x", method="DELETE").status_code == 404
    ask(live, "three", "x")
    assert told(live) == []


@pytest.mark.parametrize(
    "query",
    ["?limit=0", "?limit=101", "?limit=x", "?limit=nan", "?limit=inf", "?limit=2.5", "?before=x", "?before=nan"],
)
def test_a_list_that_is_wrongly_asked_for(live: Live, query: str) -> None:
    assert get(live, query).status_code == 422


def test_a_session_belongs_to_the_key_that_began_it(live: Live) -> None:
    ask(live, "mine")
    assert get(live, key="key-b-1").json()["sessions"] == []
    assert get(live, "/s", key="key-b-1").status_code == 404
    assert get(live, "/s", key="key-b-1", method="DELETE").status_code == 404
    ask(live, "other", key="key-b-1")  # a name is a key's own
    assert told(live) == []
    turn = get(live, "/s").json()["turns"][0]["id"]
    body = {"model": "qa", "input": "x", "previous_response_id": f"resp_{turn}"}
    stolen = http.post(live.url + "/v1/responses", json=body, headers={"x-api-key": "key-b-1"})
    assert stolen.json()["error"]["param"] == "previous_response_id"
    assert http.get(live.url + "/sessions").status_code == 401


@pytest.mark.parametrize("session", ["a\nb", "a/b", "..", "x" * 201, 5, None, ["s"]])
def test_a_name_that_is_none(live: Live, session: Any) -> None:
    body = {"question": "one", "session": session}
    reply = http.post(live.url + "/predict", json=body, headers={"x-api-key": "key-a-1"})
    assert reply.status_code == 422
    assert reply.json()["error"]["field"] == "session"


def test_a_program_without_a_history_has_no_sessions() -> None:
    with serving(qa()) as live:
        reply = http.post(live.url + "/predict", json={"question": "x", "session": "s"})
        assert reply.status_code == 422
        assert "dspy.History" in reply.json()["error"]["message"]
        assert not live.service.calls


def test_an_input_of_that_name_goes_first() -> None:
    schema = Schema("S", (Field("question"), Field("session")), QA.outputs)
    with serving(qa(schema=schema)) as live:
        http.post(live.url + "/predict", json={"question": "x", "session": "a value"})
        assert live.service.calls[-1].inputs["session"] == "a value"
        assert live.service.calls[-1].session == ""


def test_a_session_is_one_programs() -> None:
    chat = qa(repeats, CHAT)
    with serving(create_app({"qa": chat, "other": replace(chat, name="other")})) as live:
        assert http.post(live.url + "/predict", json={"question": "x", "session": "s"}).status_code == 200
        reply = http.post(live.url + "/programs/other/predict", json={"question": "x", "session": "s"})
        assert reply.status_code == 422
        assert "'qa'" in reply.json()["error"]["message"]


def test_a_clients_own_history_is_added(live: Live) -> None:
    ask(live, "one")
    ask(live, "three", history={"messages": [{"question": "two", "answer": "II"}]})
    assert told(live) == ["one", "two"]
    ask(live, "four")
    assert told(live) == ["one", "two", "three"]


def test_what_failed_is_not_kept(live: Live) -> None:
    ask(live, "one")
    assert ask(live, "fail").status_code == 502
    ask(live, "two")
    assert told(live) == ["one"]


def test_who_leaves_is_not_kept_and_lets_the_next_one_in(live: Live) -> None:
    sock = live.connect()
    body = json.dumps({"question": "wait", "session": "s"}).encode()
    sock.sendall(live.request("POST", "/predict", body, x_api_key="key-a-1"))
    until(lambda: bool(live.service.calls))
    done: list[int] = []
    asking = threading.Thread(target=lambda: done.append(ask(live, "next").status_code))
    asking.start()
    assert get(live).status_code == 200  # others are served meanwhile
    assert len(live.service.calls) == 1
    sock.close()
    asking.join(BOUND)
    assert done == [200]
    assert told(live) == []


def test_requests_at_once_are_answered_in_the_order_in_which_they_came() -> None:
    gate = asyncio.Event()

    async def script(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        await gate.wait()
        await tape.push(Predicted({"answer": "."}))

    with serving(qa(script, CHAT)) as live:
        lines = live.app.sessions.lines

        def waiting() -> int:
            line = lines._lines.get(("", "s"))
            return 0 if line is None else line.members

        asking = []
        for number in range(5):
            send = {"question": str(number), "session": "s"}
            asking.append(threading.Thread(target=http.post, args=(live.url + "/predict",), kwargs={"json": send}))
            asking[-1].start()
            until(lambda: waiting() == number + 1)  # noqa: B023
        assert len(live.service.calls) == 1
        live.loop.call_soon_threadsafe(gate.set)
        for thread in asking:
            thread.join(BOUND)
        assert [call.inputs["question"] for call in live.service.calls] == ["0", "1", "2", "3", "4"]
        assert told(live) == ["0", "1", "2", "3"]
        assert len(lines) == 0


def test_too_many_waiting_are_refused() -> None:
    async def endless(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        await asyncio.Event().wait()

    with serving(qa(endless, CHAT)) as live:
        body = json.dumps({"question": "x", "session": "s"}).encode()
        socks = []
        for _ in range(MOST_WAITING + 1):
            socks.append(live.connect())
            socks[-1].sendall(live.request("POST", "/predict", body))
        line = live.app.sessions.lines
        until(lambda: len(line) == 1 and line._lines["", "s"].members == MOST_WAITING + 1)
        reply = http.post(live.url + "/predict", json={"question": "x", "session": "s"})
        assert (reply.status_code, reply.json()["error"]["type"]) == (429, "session_busy")
        assert "retry-after" in reply.headers
        for sock in socks:
            sock.close()
        until(lambda: len(line) == 0)


def test_what_is_deleted_while_it_is_answered_is_not_kept() -> None:
    gate = asyncio.Event()

    async def script(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        if call.inputs["question"] == "slow":
            await gate.wait()
        await tape.push(Predicted({"answer": "."}))

    with serving(qa(script, CHAT)) as live:
        http.post(live.url + "/predict", json={"question": "one", "session": "s"})
        slow = threading.Thread(
            target=http.post, args=(live.url + "/predict",), kwargs={"json": {"question": "slow", "session": "s"}}
        )
        slow.start()
        until(lambda: len(live.service.calls) == 2)
        assert http.delete(live.url + "/sessions/s").status_code == 204
        live.loop.call_soon_threadsafe(gate.set)
        slow.join(BOUND)
        assert http.get(live.url + "/sessions/s").status_code == 404


class Photo:
    """As a pydantic object: it has fields, and is made of them."""

    model_fields = {"url": None, "note": None}

    def __init__(self, given: Any) -> None:
        self.url = given["url"] if isinstance(given, dict) else given.url
        self.note = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Photo) and other.url == self.url

    __hash__ = None  # type: ignore[assignment]


def test_typed_inputs_come_back_as_what_they_were() -> None:
    """An image in a history must not be the JSON of one: the LM would be shown its address as text."""
    photo = Field("photo", type="dspy.Image", json_schema={"type": "object"}, convert=Photo)
    with serving(qa(repeats, Schema("See", (photo, *CHAT.inputs), CHAT.outputs))) as live:
        for question in ("one", "two"):
            body = {"question": question, "photo": {"url": f"https://x.org/{question}.png"}, "session": "s"}
            assert http.post(live.url + "/predict", json=body).status_code == 200
        assert live.service.calls[-1].inputs["history"].messages[0]["photo"] == Photo({"url": "https://x.org/one.png"})
        kept = http.get(live.url + "/sessions/s").json()["turns"][0]["messages"][0]
        assert kept["photo"] == {"url": "https://x.org/one.png"}


def test_old_sessions_go_and_long_ones_are_cut() -> None:
    store = MemorySessions()
    old = Turn("t", time.time() - 100, [{"question": "old", "answer": "x"}])
    asyncio.run(store.append("", "old", "qa", [old], 10))
    with serving(qa(repeats, CHAT), sessions=Sessions(store, retention=50, most_turns=2)) as live:
        for question in ("one", "two", "three", "four"):
            http.post(live.url + "/predict", json={"question": question, "session": "s"})
        assert told(live) == ["two", "three"]
        assert [one["id"] for one in http.get(live.url + "/sessions").json()["sessions"]] == ["s"]


class Broken(MemorySessions):
    """A store that can be taken away."""

    gone: frozenset[str] = frozenset()

    async def load(self, key: str, session: str) -> Any:
        if "load" in self.gone:
            raise OSError("no route to postgresql://user:password@host")
        return await super().load(key, session)

    async def append(self, *args: Any) -> None:
        if "append" in self.gone:
            raise OSError("gone")
        if "text" in self.gone:
            raise UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")
        await super().append(*args)


def test_a_store_that_is_gone(caplog: pytest.LogCaptureFixture) -> None:
    store = Broken()
    with serving(qa(repeats, CHAT), sessions=store) as live:
        post = {"url": live.url + "/predict", "json": {"question": "one", "session": "s"}}
        store.gone = frozenset({"load"})
        reply = http.post(**post)
        assert (reply.status_code, reply.json()["error"]["type"]) == (503, "sessions_down")
        assert "password" not in reply.text
        assert not live.service.calls
        assert http.get(live.url + "/sessions/s").status_code == 503
        history = {"messages": []}
        assert http.post(live.url + "/predict", json={"question": "one", "history": history}).status_code == 200
        for why in ("append", "text"):
            store.gone = frozenset({why})
            caplog.clear()
            with caplog.at_level(logging.ERROR, "dspy_live.server"):
                assert http.post(**post).json()["answer"] == "one!"
            assert "could not be kept" in caplog.text


def respond(live: Live, question: str, previous: Any = None, **more: Any) -> Any:
    body = {"model": "qa", "input": question, "previous_response_id": previous and previous["id"], **more}
    return http.post(live.url + "/v1/responses", json=body, headers={"x-api-key": "key-a-1"}).json()


def test_a_response_that_follows_an_earlier_one_begins_a_branch(live: Live) -> None:
    one = respond(live, "one")
    two = respond(live, "two", one)
    branch = respond(live, "branch", one)
    assert told(live) == ["one"]
    respond(live, "three", two)
    assert told(live) == ["one", "two"]
    respond(live, "twig", branch)
    assert told(live) == ["one", "branch"]
    assert {session["turns"] for session in get(live).json()["sessions"]} == {3}


def test_a_response_that_is_not_stored(live: Live) -> None:
    one = respond(live, "one", store=False)
    assert one["store"] is False
    assert respond(live, "two", one)["error"]["param"] == "previous_response_id"
    kept = respond(live, "one")
    respond(live, "two", kept, store=False)
    assert told(live) == ["one"]
    respond(live, "three", kept)
    assert told(live) == ["one"]


def test_a_response_whose_session_is_deleted(live: Live) -> None:
    one = respond(live, "one")
    (session,) = get(live).json()["sessions"]
    assert get(live, f"/{session['id']}", method="DELETE").status_code == 204
    assert "not kept" in respond(live, "two", one)["error"]["message"]
