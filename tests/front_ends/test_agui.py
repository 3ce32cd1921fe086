"""AG-UI's own client and types against the server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.front_ends.programs import Served, served
from tests.front_ends.real_clients import run
from tests.front_ends.scripted import SAYS, takes_back
from tests.server.support import QA, qa, serving
from tests.support.until import until

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
        made = run("agui.mjs", server.live.url, scripted.url)
    until(lambda: server.lm.stats.disconnects == left + 1)  # the LM sees that the run was aborted
    until(lambda: len(server.live.app.runs) == 0 and server.lm.stats.active == 0)
    return made


def roles(messages: list[dict[str, Any]]) -> list[str]:
    return [message["role"] for message in messages]


def test_an_agents_run(found: dict[str, Any]) -> None:
    agent = found["agent"]
    assert agent["error"] is None
    assert set(agent["result"]) == {"reasoning", "answer", "score", "tags"}
    assert roles(agent["messages"]) == ["user", "assistant", "tool", "assistant", "tool", "reasoning", "assistant"]
    calls, texts = agent["messages"][1::2][:2], agent["messages"]
    assert [call["toolCalls"][0]["function"]["name"] for call in calls] == ["double", "broken"]
    assert texts[2]["content"] == "42"
    assert "ValueError" in texts[4]["content"]
    assert texts[-1]["content"] == agent["result"]["answer"]
    assert agent["state"] == {"kept": True, "score": agent["result"]["score"], "tags": agent["result"]["tags"]}
    types = [event["type"] for event in agent["events"]]
    assert types[0] == "RUN_STARTED"
    assert types[-1] == "RUN_FINISHED"
    assert agent["events"][0]["threadId"] == "thread-1"
    assert agent["events"][-1]["outcome"] == {"type": "success"}
    assert agent["events"][-1]["usage"][0]["totalTokens"] > 0
    assert "TEXT_MESSAGE_CONTENT" in types
    assert "sk-secret" not in str(found)


def test_a_conversation(server: Served, found: dict[str, Any]) -> None:
    asked, answered = found["talk"][:2]
    assert asked == "Een."
    (body,) = [body for body in server.lm.requests if "Twee." in str(body["messages"][-1])]
    assert answered in str(body["messages"][-2]["content"])


def test_an_image_reaches_the_program(found: dict[str, Any]) -> None:
    assert found["image"]["error"] is None
    assert found["image"]["result"]["answer"]


def test_words_are_taken_back(found: dict[str, Any]) -> None:
    again = found["again"]
    assert again["error"] is None
    assert [m["content"] for m in again["messages"] if m["role"] == "assistant" and m.get("content")] == [
        SAYS["answer"]
    ]
    assert [m["content"] for m in again["messages"] if m["role"] == "tool"] == ["seen"]
    assert [m["content"] for m in again["messages"] if m["role"] == "reasoning"] == ["thinking", "Hm."]
    assert again["state"] == {"score": 7}


def test_failures_are_run_errors(found: dict[str, Any]) -> None:
    before, middle = found["before"], found["middle"]
    assert before["types"] == ["RUN_STARTED", "RUN_ERROR"]
    assert before["last"]["code"] == "program_failed"
    assert middle["last"]["code"] == "lm_failed"
    for opened, closed in (("TEXT_MESSAGE_START", "TEXT_MESSAGE_END"), ("REASONING_START", "REASONING_END")):
        assert middle["types"].count(opened) == middle["types"].count(closed)
    assert "REASONING_START" in middle["types"]
    assert "hunter2" not in str(found)


def test_what_a_program_can_not_be_told_is_named(found: dict[str, Any]) -> None:
    assert found["ignored"][0] == ["tools", "context"]


def test_aborting_ends_the_lms_work(found: dict[str, Any]) -> None:
    """The fixture has waited for the LM to see it."""
    assert found["aborted"] is True


def test_every_event_is_one_of_the_protocols(server: Served) -> None:
    found = run("agui_client.py", server.live.url, environment="agui")
    assert found["types"][0] == "RUN_STARTED"
    assert found["types"][-1] == "RUN_FINISHED"
    assert set(found["types"]) >= {"TOOL_CALL_RESULT", "STATE_DELTA", "REASONING_MESSAGE_CONTENT", "CUSTOM"}
    assert not any(found["extra"])
