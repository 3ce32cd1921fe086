"""MCP's own clients, of 2026 and of 2025, for Python and for Node, and its conformance scenarios."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import dspy
import pydantic
import pytest
from tests.front_ends.programs import Served, served
from tests.front_ends.real_clients import npm_package, run
from tests.server.support import Live, serving
from tests.support.until import BOUND, until

from dspy_live import create_app

pytestmark = pytest.mark.timeout(900)
"""The first test of all makes the clients' environments."""

NAMES = {"qa", "typed", "chat", "see", "agent", "fails"}


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served() as made:
        yield made


def seen(server: Served, leaving: int, script: str, *arguments: str, environment: str = "npm") -> dict[str, Any]:
    """Run a client, and wait until the LM has seen that so many of its calls were left."""
    left = server.lm.stats.disconnects
    found = run(script, server.live.url, *arguments, environment=environment)
    until(lambda: server.lm.stats.disconnects == left + leaving)
    until(lambda: len(server.live.app.runs) == 0 and server.lm.stats.active == 0)
    assert len(server.live.app.mcp_calls) == 0
    return found


@pytest.mark.parametrize(("mode", "version"), [("auto", "2026-07-28"), ("legacy", "2025-11-25")])
def test_the_python_client(server: Served, mode: str, version: str) -> None:
    found = seen(server, 1, "mcp_client.py", mode, environment="mcp")
    assert found["version"] == version
    assert set(found["tools"]) == NAMES
    typed = found["tools"]["typed"]
    assert typed["takes"]["required"] == ["question"]
    assert typed["takes"]["additionalProperties"] is False
    assert typed["gives"]["properties"]["tags"] == {"type": "array", "items": {"type": "string"}}
    assert set(found["tools"]["chat"]["takes"]["properties"]) == {"question", "session"}
    assert set(found["typed"]["structured"]) == {"answer", "score", "tags"}

    agent = found["agent"]
    assert agent["error"] is False
    assert agent["meta"]["dspy-live/run"]["usage"]["total_tokens"] > 0
    numbers, messages = zip(*agent["notes"], strict=True)
    assert list(numbers) == sorted(set(numbers))
    assert messages[:5] == ("double: call", "double: result", "broken: call", "broken: error", "note")
    assert "tokens: 1" in messages

    assert not any(one["error"] for one in found["talk"])
    talk = server.live.app.sessions.store
    kept = _kept(server, f"mcp-{mode}")
    assert [message["question"] for message in kept] == ["One.", "Two."]
    assert kept[1]["answer"] == found["talk"][1]["structured"]["answer"]
    assert talk.name == "memory"

    assert found["wrong"]["error"] is True
    assert "nonsense" in found["wrong"]["text"][0]
    assert found["lm"]["text"][0].startswith("lm_failed: ")
    assert found["fails"]["text"][0].startswith("program_failed: ")
    assert "nothing" in found["unknown"]["text"]
    assert found["cancelled"] is True
    assert found["after"] is False
    assert "hunter2" not in str(found)
    assert "sk-secret" not in str(found)


def _kept(server: Served, session: str) -> list[dict[str, Any]]:
    import asyncio

    load = server.live.app.sessions.store.load("", session)
    found = asyncio.run_coroutine_threadsafe(load, server.live.loop).result(BOUND)
    assert found is not None
    return [message for turn in found.turns for message in turn.messages]


def test_the_python_client_of_2025(server: Served) -> None:
    found = seen(server, 1, "mcp_client_2025.py", environment="mcp_2025")
    assert found["version"] == "2025-11-25"
    assert set(found["tools"]) == NAMES
    assert found["agent"]["error"] is False
    assert found["agent"]["notes"][0] == [1.0, "double: call"]
    kept = _kept(server, f"mcp-{found['session']}-chat")  # MCP's own session is the conversation
    assert [message["question"] for message in kept] == ["Eins.", "Zwei."]
    assert found["fails"][0] is True
    assert "hunter2" not in str(found)
    assert len(found["ended"]) == 1  # its message has cancelled the call


def test_the_node_clients(server: Served) -> None:
    found = seen(server, 3, "mcp_client.mjs")
    assert [found[name]["version"] for name in ("auto", "legacy", "old")] == ["2026-07-28", "2025-11-25", "2025-11-25"]
    for client in found.values():
        assert set(client["tools"]) == NAMES
        assert client["notes"][0] == [1, "double: call"]
        assert set(client["agent"]["structuredContent"]) == {"reasoning", "answer", "score", "tags"}
        assert client["fails"]["isError"] is True
        assert client["aborted"]
        assert client["after"] is False
    assert "hunter2" not in str(found)


class Steps(dspy.Module):
    """Takes three steps."""

    def __init__(self) -> None:
        super().__init__()
        self.step = dspy.Tool(lambda number: number, name="step")

    async def aforward(self) -> dspy.Prediction:
        for number in range(3):
            await self.step.acall(number=number)
        return dspy.Prediction(answer="done")


class Fails(dspy.Module):
    """Always fails."""

    async def aforward(self) -> dspy.Prediction:
        raise ValueError("no")


class Says(dspy.Module):
    """Says what the scenario wants to hear."""

    async def aforward(self) -> str:
        return "This is a simple text response for testing."


@pytest.fixture(scope="module")
def conforming() -> Iterator[Live]:
    address = pydantic.create_model("address", street=(str, ""), city=(str, ""))
    signature = dspy.Signature({"name": (str, dspy.InputField()), "address": (list[address], dspy.InputField()),
                                "answer": (str, dspy.OutputField())}, "Takes an address.")  # fmt: skip
    made = {
        "json_schema_2020_12_tool": dspy.Predict(signature),
        "test_tool_with_progress": Steps(),
        "test_error_handling": Fails(),
        "test_simple_text": Says(),
    }
    with serving(create_app(made)) as live:
        yield live


@pytest.mark.parametrize(
    "scenario",
    [
        "server-initialize",
        "ping",
        "tools-list",
        "tools-call-simple-text",
        "tools-call-error",
        "tools-call-with-progress",
        "json-schema-2020-12",
        "server-sse-multiple-streams",
    ],
)
def test_a_conformance_scenario(conforming: Live, scenario: str, tmp_path: Any) -> None:
    """Those of MCP's own that ask for something a program can be; the others want resources, prompts or media."""
    node, package = npm_package("@modelcontextprotocol/conformance/dist/index.js")
    command = [node, package, "server", "--url", conforming.url + "/mcp", "--scenario", scenario]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout
    assert " 0 failed" in done.stdout


def test_a_page_of_another_site_is_refused(tmp_path: Any) -> None:
    """The scenario of DNS rebinding, against the server as it is started: without keys, on loopback."""
    command = [sys.executable, "-m", "dspy_live", "serve", "question -> answer", "--sim", "--port", "0", "--no-ledger"]
    environ = {**os.environ, "DSPY_LIVE_HOME": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=environ) as process:
        try:
            assert process.stdout is not None
            url = next(found[0] for line in process.stdout if (found := re.search(r"http://[\d.:]+", line)))
            node, package = npm_package("@modelcontextprotocol/conformance/dist/index.js")
            scenario = [node, package, "server", "--url", f"{url}/mcp", "--scenario", "dns-rebinding-protection"]
            done = subprocess.run(scenario, capture_output=True, text=True, timeout=300, cwd=tmp_path, check=False)
        finally:
            process.terminate()
            process.wait(30)
    assert done.returncode == 0, done.stdout
