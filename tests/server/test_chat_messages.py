"""What the messages of a chat become: a program's question, its images and files, its history, its system prompt."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.server.support import QA, http, qa, serving

from dspy_live.core.schema import Field, Schema

QUESTION = Field("question")
IMAGE = Field("photo", type="dspy.Image", json_schema={"type": "object"})
IMAGES = Field("photos", type="list[Image]", json_schema={"type": "array"}, required=False)
FILE = Field("paper", type="Union[File, NoneType]", json_schema={}, required=False)
SOUND = Field("voice", type="dspy.Audio", json_schema={}, required=False)
HISTORY = Field("history", type="dspy.History", json_schema={"type": "object"}, required=False)
URL = "data:image/png;base64,iVBORw0KGgo="

TEXT = {"type": "text", "text": "why?"}
PICTURE = {"type": "image_url", "image_url": {"url": URL, "detail": "low"}}
PAPER = {"type": "file", "file": {"file_data": "data:text/plain;base64,aGk=", "filename": "a.txt"}}
VOICE = {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}}


def said(*messages: Any, inputs: tuple[Field, ...]) -> tuple[Any, dict[str, Any]]:
    """Ask a program with these inputs; return the reply and what the program was given."""
    program = qa(schema=Schema("P", inputs, QA.outputs))
    with serving(program) as live:
        reply = http.post(live.url + "/v1/chat/completions", json={"model": "qa", "messages": list(messages)})
        given = dict(live.service.calls[-1].inputs) if live.service.calls else {}
    return reply, given


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def test_parts_go_to_the_inputs_of_their_types() -> None:
    """They were refused: a message's content had to be text."""
    reply, given = said(user(TEXT, PICTURE, PAPER, VOICE), inputs=(QUESTION, IMAGE, FILE, SOUND))
    assert reply.status_code == 200, reply.text
    assert given == {
        "question": "why?",
        "photo": {"url": URL},
        "paper": {"file_data": "data:text/plain;base64,aGk=", "filename": "a.txt"},
        "voice": {"data": "aGk=", "audio_format": "wav"},
    }


def test_several_images_go_to_several_inputs_and_then_to_a_list() -> None:
    reply, given = said(user(PICTURE, TEXT, PICTURE, PICTURE), inputs=(QUESTION, IMAGE, IMAGES))
    assert reply.status_code == 200, reply.text
    assert given == {"question": "why?", "photo": {"url": URL}, "photos": [{"url": URL}, {"url": URL}]}


@pytest.mark.parametrize(
    ("inputs", "told"), [((QUESTION,), "no input of type dspy.Image"), ((QUESTION, IMAGE), "no more input")]
)
def test_an_image_without_a_place_is_refused_by_its_place(inputs: tuple[Field, ...], told: str) -> None:
    reply, given = said(user(TEXT, PICTURE, PICTURE), inputs=inputs)
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert told in error["message"]
    assert error["param"] == f"messages[0].content[{len(inputs)}]"
    assert not given


def test_an_earlier_image_is_part_of_the_history() -> None:
    turns = (user(TEXT, PICTURE), {"role": "assistant", "content": "so"}, user({"type": "text", "text": "and?"}))
    reply, given = said(*turns, inputs=(QUESTION, Field("photo", type="dspy.Image", required=False), HISTORY))
    assert reply.status_code == 200, reply.text
    assert given["history"] == {"messages": [{"photo": {"url": URL}, "question": "why?", "answer": "so"}]}
    assert given["question"] == "and?"


def test_a_history_with_tools_keeps_the_words_and_no_call() -> None:
    """``content: null`` and tools' messages stand in the history of every client that has tools."""
    turns = (
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "wait", "tool_calls": [{"id": "c", "type": "function"}]},
        {"role": "tool", "tool_call_id": "c", "content": "1"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "d", "type": "function"}]},
        {"role": "tool", "tool_call_id": "d", "content": [{"type": "text", "text": "2"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "three"}]},
        {"role": "user", "content": "two"},
    )
    reply, given = said(*turns, inputs=(QUESTION, HISTORY))
    assert reply.status_code == 200, reply.text
    assert given == {"question": "two", "history": {"messages": [{"question": "one", "answer": "three"}]}}


SYSTEM = {"role": "system", "content": "Rhyme."}


def test_system_messages_go_to_an_input_that_is_made_for_them() -> None:
    place = Field("instructions", required=False)
    reply, given = said(SYSTEM, {"role": "developer", "content": "Be brief."}, user(TEXT), inputs=(QUESTION, place))
    assert given == {"question": "why?", "instructions": "Rhyme.\n\nBe brief."}
    assert "ignored" not in reply.json()
    assert "x-ignored" not in reply.headers


def test_a_system_message_without_a_place_is_named_and_the_question_answered() -> None:
    """It was refused, and clients that always send one could not be used at all."""
    reply, given = said(SYSTEM, user(TEXT), inputs=(QUESTION,))
    assert reply.status_code == 200, reply.text
    assert given == {"question": "why?"}
    assert reply.json()["ignored"] == ["messages[0]"]
    assert reply.headers["x-ignored"] == "messages[0]"


def test_a_stream_names_what_was_ignored_in_its_first_chunk() -> None:
    with serving(qa()) as live:
        body = {"model": "qa", "messages": [SYSTEM, user(TEXT)], "stream": True}
        reply = http.post(live.url + "/v1/chat/completions", json=body)
    first = json.loads(reply.text.split("\n")[0].removeprefix("data: "))
    assert first["ignored"] == ["messages[0]"]
    assert reply.text.count("ignored") == 1


DOORS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "/v1/chat/completions": lambda message: {"model": "qa", "messages": [message]},
    "/v1/responses": lambda message: {"model": "qa", "input": [message]},
    "/ui/chat": lambda message: {"id": "c", "messages": [{"parts": [TEXT], **message}]},
    "/agui": lambda message: {"threadId": "t", "runId": "r", "messages": [{"id": "1", **message}]},
}


@pytest.mark.parametrize("role", [5, [], {"role": []}, ["user"]], ids=str)
@pytest.mark.parametrize("door", DOORS)
def test_role_that_is_no_text_is_refused_at_each_door(door: str, role: Any) -> None:
    with serving(qa()) as live:
        reply = http.post(live.url + door, json=DOORS[door]({"role": role, "content": "why?"}))
    assert reply.status_code in (400, 422)
    assert "role" in reply.text
