"""OpenAI's own clients for Python and Node against the server: responses whole and streamed, sessions, errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.front_ends.programs import Served, served
from tests.front_ends.real_clients import run
from tests.support.until import until

pytestmark = pytest.mark.timeout(900)
"""The first test of all makes the clients' environments."""


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served() as made:
        yield made


@pytest.fixture(scope="module")
def python(server: Served) -> dict[str, Any]:
    left = server.lm.stats.disconnects
    found = run("openai_client.py", server.live.url, environment="openai")
    until(lambda: server.lm.stats.disconnects == left + 2)  # the LM sees that the two clients which left have gone
    return found


@pytest.fixture(scope="module")
def node(server: Served, python: dict[str, Any]) -> dict[str, Any]:
    left = server.lm.stats.disconnects
    found = run("openai_client.mjs", server.live.url)
    until(lambda: server.lm.stats.disconnects == left + 1)
    return found


def test_a_whole_response(python: dict[str, Any], node: dict[str, Any]) -> None:
    found = python["whole"]
    response = found["response"]
    assert found["text"]
    assert (response["status"], response["temperature"], response["model"]) == ("completed", 0.5, "qa")
    assert [item["type"] for item in response["output"]] == ["reasoning", "message"]
    assert response["usage"]["total_tokens"] > response["usage"]["output_tokens"] > 0
    assert response["error"] is None
    assert node["whole"]["status"] == "completed"
    assert node["whole"]["text"]
    assert node["whole"]["usage"]["total_tokens"] > 0


def test_instructions_without_a_place_are_named(server: Served, python: dict[str, Any]) -> None:
    assert python["whole"]["response"]["ignored"] == ["instructions"]


def test_a_streamed_response(python: dict[str, Any], node: dict[str, Any]) -> None:
    found = python["streamed"]
    assert found["joined"] == found["text"] != ""
    assert found["deltas"] >= 1  # a busy machine joins tokens
    assert found["numbers"] == list(range(1, len(found["numbers"]) + 1))
    assert found["types"][:2] == ["response.created", "response.in_progress"]
    assert found["types"][-1] == "response.completed"
    for opened, closed in (("output_item.added", "output_item.done"), ("content_part.added", "content_part.done")):
        assert found["types"].count(f"response.{opened}") == found["types"].count(f"response.{closed}")
    items = found["final"]["output"]
    assert [item["type"] for item in items] == ["mcp_call", "mcp_call", "reasoning", "message"]
    assert items[2]["content"][0]["text"]
    assert node["streamed"]["joined"] == node["streamed"]["text"] != ""
    assert node["streamed"]["output"] == ["mcp_call", "mcp_call", "reasoning", "message"]


def test_every_event_is_of_the_clients_own_types(python: dict[str, Any]) -> None:
    found = python["strict"]
    assert found["events"] > 20
    assert found["wrong"] == []
    assert found["whole"] == "completed"


def test_the_programs_tools_are_items_and_a_secret_is_not(python: dict[str, Any]) -> None:
    worked, failed = python["streamed"]["final"]["output"][:2]
    assert (worked["name"], worked["arguments"], worked["output"], worked["error"]) == (
        "double",
        '{"number":21}',
        "42",
        None,
    )
    assert (failed["name"], failed["status"]) == ("broken", "failed")
    assert "ValueError" in str(failed["error"])
    assert "sk-secret" not in str(python)


def test_structured_output_is_the_programs_own(python: dict[str, Any]) -> None:
    assert set(python["parsed"]) == {"answer", "score", "tags"}


def test_a_response_follows_another(server: Served, python: dict[str, Any]) -> None:
    found = python["follows"]
    first, second, _, _ = found["texts"]
    assert found["store"] is True
    assert found["previous"]
    asked = {_question(body): _said(body) for body in server.lm.requests}
    assert asked["Second."] == ["First.", first]
    assert asked["Third."] == ["First.", first, "Second.", second]
    assert asked["Branch."] == ["First.", first]  # not what had been said after it
    assert found["conversations"] == ["talk", "talk"]
    assert asked["b"][0] == "a"


def test_a_response_of_node_follows_another(server: Served, node: dict[str, Any]) -> None:
    assert node["follows"]["previous"] is True
    assert ["First.", node["follows"]["first"]] in [_said(body) for body in server.lm.requests]


def _question(body: Any) -> str:
    return _field(body["messages"][-1]["content"], "question")


def _said(body: Any) -> list[str]:
    """What the conversation's earlier messages say, without the adapter's own words."""
    messages = body["messages"][1:-1]
    return [_field(m["content"], "question" if m["role"] == "user" else "answer") for m in messages]


def _field(content: Any, name: str) -> str:
    text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
    return str(text.split(f"[[ ## {name} ## ]]\n", 1)[-1].split("\n\n", 1)[0])


def test_a_reply_that_was_cut_is_incomplete(python: dict[str, Any]) -> None:
    found = python["truncated"]
    assert (found["status"], found["details"]["reason"]) == ("incomplete", "max_output_tokens")
    assert found["text"]


def test_images_reach_the_program(python: dict[str, Any]) -> None:
    assert python["image"] == "completed"
    assert python["chats"]["text"]
    assert python["chats"]["extra"]["ignored"] == ["messages[0]"]


def test_errors_are_openais(python: dict[str, Any], node: dict[str, Any]) -> None:
    found = python["errors"]
    told = {name: (error["class"], error["code"], error["param"]) for name, error in found.items()}
    assert told == {
        "unknown": ("NotFoundError", "not_found", "model"),
        "previous": ("BadRequestError", "bad_request", "previous_response_id"),
        "stateless": ("BadRequestError", "bad_request", "previous_response_id"),
        "tools": ("BadRequestError", "unsupported_parameter", "tools"),
        "fails": ("InternalServerError", "program_failed", None),
        "lm": ("InternalServerError", "lm_failed", None),
    }
    assert "hunter2" not in str(found)
    assert node["errors"]["unknown"]["class"] == "NotFoundError"
    assert node["errors"]["previous"]["param"] == "previous_response_id"
    assert "hunter2" not in str(node)


def test_a_failure_in_the_middle_closes_what_is_open(python: dict[str, Any]) -> None:
    found = python["fails_in_the_middle"]
    assert found["types"][-1] == "response.failed"
    assert found["types"].count("response.output_item.added") == found["types"].count("response.output_item.done") > 0
    assert (found["error"]["code"], found["error"]["type"]) == ("server_error", "lm_failed")
    assert found["output"][-1]["status"] == "incomplete"


def test_a_client_that_leaves_ends_the_lms_work(server: Served, python: dict[str, Any], node: dict[str, Any]) -> None:
    """The fixtures have waited for the LM to see it."""
    assert len(python["leaves"]) == 8
    assert len(python["chats"]["seen"]) == 5
    assert node["leaves"] == 3
    until(lambda: len(server.live.app.runs) == 0 and server.lm.stats.active == 0)
