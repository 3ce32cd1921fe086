"""The Vercel AI SDK's own chat and transport against the server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from tests.front_ends.programs import Served, served
from tests.front_ends.real_clients import run
from tests.front_ends.scripted import SAYS, takes_back
from tests.server.support import QA, qa, serving
from tests.support.until import BOUND, until

from dspy_live.core.schema import Field, Schema

pytestmark = pytest.mark.timeout(900)
"""The first test of all makes the clients' environments."""

SCHEMA = Schema("QA", QA.inputs, (*QA.outputs, Field("score", type="int")))


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served() as made:
        yield made


@pytest.fixture(scope="module")
def found(server: Served) -> dict[str, Any]:
    left = server.lm.stats.disconnects
    with serving(qa(takes_back, SCHEMA)) as scripted:
        made = run("ai_sdk.mjs", server.live.url, scripted.url)
    until(lambda: server.lm.stats.disconnects == left + 1)  # the LM sees that the chat was stopped
    until(lambda: len(server.live.app.runs) == 0 and server.lm.stats.active == 0)
    return made


def of_type(parts: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [part for part in parts if part["type"] == kind]


def test_the_parts_of_a_message(found: dict[str, Any]) -> None:
    chat = found["agent"]
    assert (chat["errors"], chat["status"]) == ([], "ready")
    parts = chat["parts"]
    kinds = ["step-start", "dynamic-tool", "dynamic-tool", "data-note", "reasoning", "step-start", "text"]
    assert [part["type"] for part in parts] == [*kinds, "data-score", "data-tags"]
    worked, failed = of_type(parts, "dynamic-tool")
    assert (worked["state"], worked["input"], worked["output"]) == ("output-available", {"number": 21}, 42)
    assert (failed["state"], failed["toolName"]) == ("output-error", "broken")
    assert "ValueError" in failed["errorText"]
    (text,), (reasoning,) = of_type(parts, "text"), of_type(parts, "reasoning")
    assert (text["state"], reasoning["state"]) == ("done", "done")
    assert text["text"]
    assert reasoning["text"]
    assert isinstance(of_type(parts, "data-score")[0]["data"], int)
    assert isinstance(of_type(parts, "data-tags")[0]["data"], list)
    assert chat["metadata"]["run"]["usage"]["total_tokens"] > 0
    assert "sk-secret" not in str(found)


def test_a_chat_brings_its_history(server: Served, found: dict[str, Any]) -> None:
    talk = found["talk"]
    assert talk["messages"] == 4
    assert talk["first"] != ""
    last = [body for body in server.lm.requests if "Deux." in str(body["messages"][-1])]
    assert len(last) == 2  # asked, and made anew
    for body in last:
        assert talk["first"] in str(body["messages"][-2]["content"])


def test_the_chats_id_is_a_session_where_one_message_comes(server: Served, found: dict[str, Any]) -> None:
    load = server.live.app.sessions.store.load("", "ui-chat")
    kept = asyncio.run_coroutine_threadsafe(load, server.live.loop).result(BOUND)
    assert kept is not None
    messages = [message for turn in kept.turns for message in turn.messages]
    assert [message["question"] for message in messages] == ["Uno.", "Dos."]
    assert [message["answer"] for message in messages] == found["session"][1::2]


def test_there_is_nothing_to_resume(found: dict[str, Any]) -> None:
    """``useChat({resume: true})`` asks at each start of a page."""
    assert found["resumed"] == {"status": "ready", "errors": []}


def test_an_image_reaches_the_program(found: dict[str, Any]) -> None:
    assert found["image"]["errors"] == []
    assert found["image"]["text"]


def test_words_are_taken_back(found: dict[str, Any]) -> None:
    assert found["again"]["errors"] == []
    parts = found["again"]["parts"]
    assert "".join(part["text"] for part in of_type(parts, "text")) == SAYS["answer"]
    assert [part["data"] for part in of_type(parts, "data-score")] == [7]
    (tool,) = of_type(parts, "dynamic-tool")
    assert tool["output"] == "seen"
    assert [part["text"] for part in of_type(parts, "reasoning")] == ["thinking", "Hm."]


def test_failures(found: dict[str, Any]) -> None:
    before, middle = found["before"], found["middle"]
    assert (before["status"], middle["status"]) == ("error", "error")
    assert "program_failed" in before["errors"][0]
    assert "hunter2" not in str(found)
    assert len(middle["errors"]) == 1
    assert {part["state"] for part in of_type(middle["last"]["parts"], "reasoning")} == {"done"}


def test_stopping_a_chat_ends_the_lms_work(found: dict[str, Any]) -> None:
    """The fixture has waited for the LM to see it."""
    assert found["stopped"] == {"status": "ready", "errors": [], "some": True}
