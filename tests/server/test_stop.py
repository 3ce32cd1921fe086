"""Each protocol has a way to stop a run that is no hanging up."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from tests.server.support import Live, Tape, http, qa, serving, until
from tests.support.until import BOUND
from websockets.sync.client import connect

from dspy_live.core.call import Call
from dspy_live.core.events import Predicted, Started

MINE = {"X-Client-Run-Id": "tab-7.question_3"}


async def script(call: Call, tape: Tape) -> None:
    await tape.push(Started(call.id))
    if call.inputs["question"] == "endless":
        await tape.tokens("some words", pause=0)
        await asyncio.Event().wait()
    await tape.tokens("an answer")
    await tape.push(Predicted({"answer": "an answer"}))


class Asked(threading.Thread):
    """A request that waits for its reply in a thread."""

    def __init__(self, live: Live, path: str, body: dict[str, Any]) -> None:
        super().__init__()
        self.reply: Any = None
        self._ask = lambda: http.post(live.url + path, json=body, headers=MINE)
        self.start()

    def run(self) -> None:
        self.reply = self._ask()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/predict", {"question": "endless"}),
        ("/predict/stream", {"question": "endless"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "endless"}]}),
        ("/v1/responses", {"input": "endless"}),
    ],
)
@pytest.mark.parametrize("method", ["DELETE", "POST"])
def test_a_client_stops_a_run_by_its_own_name_for_it(method: str, path: str, body: dict[str, Any]) -> None:
    """The run's id comes with the reply, which for /predict comes when it is too late to stop."""
    with serving(qa(script)) as live:
        asked = Asked(live, path, body | ({"model": "qa"} if path.startswith("/v1") else {}))
        until(lambda: len(live.app.runs) == 1)
        where = f"{live.url}/runs/{MINE['X-Client-Run-Id']}" + ("/stop" if method == "POST" else "")
        assert http.request(method, where).status_code == 202
        asked.join(BOUND)
        assert "cancelled" in asked.reply.text
        assert list(live.service.ended.values()) == ["CancelledError"]
        assert http.request(method, where).status_code == 404


def test_all_runs_of_one_name_are_stopped_and_only_those_of_the_key() -> None:
    with serving(qa(script), api_keys={"ada": "a-key", "bob": "b-key"}) as live:
        streams = [
            http.stream(
                "POST", live.url + "/predict/stream", json={"question": "endless"}, headers=MINE | {"X-API-Key": key}
            )
            for key in ("a-key", "a-key", "b-key")
        ]
        replies = [stream.__enter__() for stream in streams]
        reply = http.post(f"{live.url}/runs/{MINE['X-Client-Run-Id']}/stop", headers={"X-API-Key": "a-key"})
        assert reply.status_code == 202
        for one in replies[:2]:
            assert "event: error" in one.read().decode()
        assert len(live.app.runs) == 1
        for stream in streams:
            stream.__exit__(None, None, None)


@pytest.mark.parametrize("name", ["", "a b", "x" * 129, "ä", "a/b", ".", ".."])
def test_a_name_of_another_form_is_refused(name: str) -> None:
    with serving(qa(script)) as live:
        headers = {b"X-Client-Run-Id": name.encode()}
        reply = http.post(live.url + "/predict", json={"question": "x"}, headers=headers)  # type: ignore[arg-type]
        assert reply.status_code == 400
        assert "X-Client-Run-Id" in reply.json()["error"]["message"]
        assert live.service.calls == []


def test_the_plain_websocket_stops_an_answer_and_takes_the_next_question() -> None:
    with serving(qa(script)) as live, connect(live.ws + "/ws") as socket:
        for frame in ("endless", "one that waits", "another"):
            socket.send(frame)
        assert [socket.recv(BOUND), socket.recv(BOUND)] == ["some ", "words"]
        socket.send("[STOP]")
        assert socket.recv(BOUND) == "[DONE]"
        socket.send("[STOP]")  # nothing is under way
        socket.send("quick")
        assert [socket.recv(BOUND) for _ in range(3)] == ["an ", "answer", "[DONE]"]
        assert [call.inputs["question"] for call in live.service.calls] == ["endless", "quick"]
