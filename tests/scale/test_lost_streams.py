"""What a client is told by Ray's proxy when the replica that answers is lost: the end of each protocol's stream."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from dspy_live.cli.on_ray.lost_streams import LOST, LostStreams, middlewares

PIECE = b'data: {"sequence_number":6,"delta":"a"}\n\ndata: {"sequence_number":7,"delta":"b"}\n\n'
EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-run-id", b"R1")]
HEAD: Message = {"type": "http.response.start", "status": 200, "headers": EVENTS}


async def told(scope: Scope, given: Iterable[Message], heard: Iterable[Message] = ()) -> list[Message]:
    """Return what reaches the client of an application that sends what is given and returns."""
    waiting = list(heard)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in list(waiting):
            await receive()
        for message in given:
            await send(message)

    async def receive() -> Message:
        return waiting.pop(0)

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await LostStreams(application)(scope, receive, send)
    return sent


def http(path: str, method: str = "POST") -> Scope:
    return {"type": "http", "path": path, "method": method}


def body(piece: bytes, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": piece, "more_body": more}


def native(events: list[str]) -> bool:
    lost = {"type": "stream_broken", "message": LOST, "run_id": "R1"}
    return events[0].startswith("event: error") and data(events[0]) == {"error": lost} and events[1].endswith("[DONE]")


def chat(events: list[str]) -> bool:
    error = data(events[0])["error"]
    return (error["code"], error["type"], events[1]) == ("stream_broken", "server_error", "data: [DONE]")


def responses(events: list[str]) -> bool:
    return (data(events[0])["type"], data(events[0])["sequence_number"]) == ("error", 8)


def ui_chat(events: list[str]) -> bool:
    return data(events[0]) == {"type": "error", "errorText": LOST} and events[1] == "data: [DONE]"


def agui(events: list[str]) -> bool:
    return data(events[0]) == {"type": "RUN_ERROR", "message": LOST, "code": "stream_broken"}


def data(event: str) -> Any:
    return json.loads(event.partition("data: ")[2])


@pytest.mark.parametrize(
    ("path", "is_end"),
    [
        ("/predict/stream", native),
        ("/programs/qa/predict/stream", native),
        ("/predict", native),
        ("/v1/chat/completions", chat),
        ("/v1/responses", responses),
        ("/ui/chat", ui_chat),
        ("/agui", agui),
    ],
)
async def test_a_stream_ends_in_the_words_of_its_protocol(path: str, is_end: Callable[[list[str]], bool]) -> None:
    sent = await told(http(path), [HEAD, body(PIECE)])
    assert sent[:2] == [HEAD, body(PIECE)]
    assert not sent[2]["more_body"]
    assert is_end(sent[2]["body"].decode().strip().split("\n\n"))


@pytest.mark.parametrize(
    ("scope", "given", "heard"),
    [
        (http("/runs/R1/events", "GET"), [HEAD, body(PIECE)], []),
        (http("/mcp"), [HEAD, body(PIECE)], []),
        (http("/predict/stream"), [HEAD, body(PIECE), body(b"", more=False)], []),
        (http("/predict/stream"), [HEAD, body(PIECE)], [{"type": "http.disconnect"}]),
        ({"type": "websocket", "path": "/ws"}, [{"type": "websocket.accept"}], [{"type": "websocket.disconnect"}]),
        ({"type": "websocket", "path": "/ws"}, [{"type": "websocket.close", "code": 1008}], []),
        ({"type": "lifespan"}, [{"type": "lifespan.startup.complete"}], []),
    ],
    ids=["a run that another replica may have", "mcp", "ended", "left", "left socket", "refused socket", "lifespan"],
)
async def test_nothing_is_added(scope: Scope, given: list[Message], heard: list[Message]) -> None:
    assert await told(scope, given, heard) == given


async def test_a_request_whose_reply_had_not_begun_gets_an_error() -> None:
    head, rest = await told(http("/predict"), [])
    assert (head["status"], json.loads(rest["body"])["error"]["type"]) == (502, "stream_broken")
    _, rest = await told(http("/v1/chat/completions"), [])
    assert json.loads(rest["body"])["error"]["type"] == "server_error"


async def test_a_websocket_is_closed_as_broken() -> None:
    accepted: Message = {"type": "websocket.accept"}
    sent = await told({"type": "websocket", "path": "/ws"}, [accepted])
    assert sent == [accepted, {"type": "websocket.close", "code": 1011, "reason": LOST}]


def test_ray_is_given_the_middleware() -> None:
    assert [one.cls for one in middlewares()] == [LostStreams]
