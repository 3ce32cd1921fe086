"""MCP's messages on the wire: what is refused with which code, and which header belongs to a reply."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import pytest
from tests.server.support import QA, Live, Tape, http, qa, serving, until

from dspy_live.core.call import Call
from dspy_live.core.events import Predicted, Started, Status
from dspy_live.core.schema import Field, Schema
from dspy_live.server import create_app
from dspy_live.server.keys.key import Key
from dspy_live.server.keys.token import digest_of
from dspy_live.server.transport.auth import Keys

META = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
JSON_ONLY = {"accept": "application/json"}
BOTH = {"accept": "application/json, text/event-stream"}


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with serving(qa()) as server:
        yield server


def modern(live: Live, method: str, params: Any = None, **headers: str) -> Any:
    """Ask as a client of 2026 does; a header of the value ``-`` is left out."""
    with modern_stream(live, method, params, **headers) as reply:
        reply.read()
        return reply


def modern_stream(live: Live, method: str, params: Any = None, **headers: str) -> AbstractContextManager[Any]:
    """Ask so, and read the reply as it comes."""
    params = {"_meta": META} | (params or {})
    sent = {"mcp-protocol-version": "2026-07-28", "mcp-method": method, **BOTH}
    if "name" in params:
        sent["mcp-name"] = params["name"]
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    sent = {name: value for name, value in sent.items() if value != "-"}
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return http.stream("POST", live.url + "/mcp", json=body, headers=sent)


def handshake(live: Live, method: str, params: Any = None, **headers: str) -> Any:
    body = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params or {}}
    return http.post(live.url + "/mcp", json=body, headers={"mcp-protocol-version": "2025-06-18", **BOTH, **headers})


def test_discovery(live: Live) -> None:
    result = modern(live, "server/discover").json()["result"]
    assert result["supportedVersions"][0] == "2026-07-28"
    assert (result["resultType"], result["cacheScope"], result["ttlMs"]) == ("complete", "private", 0)
    assert result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "dspy-live"
    assert result["capabilities"] == {"tools": {}}


@pytest.mark.parametrize(
    ("asked", "answered"), [("2025-06-18", "2025-06-18"), ("2025-03-26", "2025-03-26"), ("2024-11-05", "2025-11-25")]
)
def test_the_handshake_of_2025(live: Live, asked: str, answered: str) -> None:
    reply = handshake(live, "initialize", {"protocolVersion": asked, "capabilities": {}, "clientInfo": {}})
    assert reply.json()["result"]["protocolVersion"] == answered
    assert len(reply.headers["mcp-session-id"]) == 32
    assert handshake(live, "ping").json()["result"] == {}
    note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    assert http.post(live.url + "/mcp", json=note).status_code == 202
    assert http.delete(live.url + "/mcp").status_code == 204
    assert http.get(live.url + "/mcp").status_code == 405


@pytest.mark.parametrize(
    ("method", "params", "headers", "status", "code"),
    [
        ("tools/list", {"_meta": {}}, {}, 400, -32602),
        ("tools/list", {}, {"mcp_method": "ping"}, 400, -32020),
        ("tools/list", {}, {"mcp_method": "-"}, 400, -32020),
        ("tools/list", {}, {"mcp_protocol_version": "2025-06-18"}, 400, -32020),
        ("tools/list", {"_meta": META | {"io.modelcontextprotocol/protocolVersion": "2030-01-01"}},
         {"mcp_protocol_version": "2030-01-01"}, 400, -32022),
        ("tools/call", {"name": "qa", "arguments": {}}, {"mcp_name": "other"}, 400, -32020),
        ("tools/call", {"name": "qa", "arguments": {}}, {"mcp_name": "=?base64?cWF=?="}, 400, -32020),
        ("tools/call", {"name": "nobody", "arguments": {}}, {}, 400, -32602),
        ("tools/call", {"name": "qa", "arguments": []}, {}, 400, -32602),
        ("ping", {}, {}, 404, -32601),
        ("initialize", {}, {}, 404, -32601),
        ("resources/list", {}, {}, 404, -32601),
    ],
)  # fmt: skip
def test_a_request_of_2026_that_is_refused(
    live: Live, method: str, params: Any, headers: dict[str, str], status: int, code: int
) -> None:
    reply = modern(live, method, params, **headers)
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)
    assert reply.json()["id"] == 1


def test_an_unknown_revision_is_told_which_there_are(live: Live) -> None:
    meta = META | {"io.modelcontextprotocol/protocolVersion": "2030-01-01"}
    error = modern(live, "tools/list", {"_meta": meta}, mcp_protocol_version="2030-01-01").json()["error"]
    assert error["data"]["requested"] == "2030-01-01"
    assert "2026-07-28" in error["data"]["supported"]
    note = {"jsonrpc": "2.0", "method": "notifications/cancelled"}
    reply = http.post(live.url + "/mcp", json=note, headers={"mcp-protocol-version": "2030-01-01"})
    assert reply.json()["error"]["code"] == -32022


def test_errors_of_2025_come_with_200(live: Live) -> None:
    reply = handshake(live, "resources/list")
    assert (reply.status_code, reply.json()["error"]["code"], reply.json()["id"]) == (200, -32601, 7)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", -32700),
        (b"[]", -32600),
        (b'{"jsonrpc": "1.0", "id": 1, "method": "ping"}', -32600),
        (b'{"jsonrpc": "2.0", "id": true, "method": "ping"}', -32600),
        (b'{"jsonrpc": "2.0", "id": null, "method": "ping"}', -32600),
        (b'{"jsonrpc": "2.0", "id": 1}', -32600),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": []}', -32602),
    ],
)
def test_a_body_that_is_no_message_is_refused(live: Live, body: bytes, code: int) -> None:
    reply = http.post(live.url + "/mcp", content=body)
    assert (reply.status_code, reply.json()["error"]["code"], reply.json()["id"]) == (400, code, None)


def test_a_key_is_asked_for_in_jsonrpc() -> None:
    with serving(qa(), api_keys={"a": "secret-key"}) as live:
        reply = modern(live, "server/discover")
        assert (reply.status_code, reply.json()["error"]["code"]) == (401, -32600)
        assert modern(live, "server/discover", authorization="Bearer secret-key").status_code == 200


def test_a_call_without_progress_is_one_json_object(live: Live) -> None:
    reply = modern(live, "tools/call", {"name": "qa", "arguments": {"question": "why?"}}, **JSON_ONLY)
    assert reply.headers["content-type"] == "application/json"
    found = reply.json()["result"]
    assert found["structuredContent"] == {"reasoning": "I think.", "answer": "You asked: why?"}
    assert json.loads(found["content"][0]["text"]) == found["structuredContent"]
    assert found["_meta"]["dspy-live/run"]["id"] == reply.headers["x-run-id"]
    assert live.service.calls[-1].stream is False


def test_a_call_with_progress_is_an_event_stream(live: Live) -> None:
    params = {"name": "qa", "arguments": {"question": "why?"}, "_meta": META | {"progressToken": "t"}}
    reply = modern(live, "tools/call", params)
    assert reply.headers["content-type"].startswith("text/event-stream")
    *notes, last = (json.loads(line[6:]) for line in reply.text.split("\n") if line.startswith("data: "))
    assert {note["params"]["progressToken"] for note in notes} == {"t"}
    assert last["result"]["structuredContent"]["answer"] == "You asked: why?"


def test_two_types_of_one_name_stay_apart() -> None:
    """A schema's references point to its own root, and a tool has one root for all fields."""
    one = {"type": "array", "items": {"$ref": "#/$defs/Item"}, "$defs": {"Item": {"type": "string"}}}
    two = {"type": "array", "items": {"$ref": "#/$defs/Item"}, "$defs": {"Item": {"type": "integer"}}}
    schema = Schema("S", (Field("a", "list[Item]", one), Field("b", "list[Item]", two, required=False)), QA.outputs)
    with serving(qa(schema=schema)) as live:
        takes = modern(live, "tools/list").json()["result"]["tools"][0]["inputSchema"]
    assert takes["$defs"] == {"Item": {"type": "string"}, "b.Item": {"type": "integer"}}
    assert takes["properties"]["b"]["items"] == {"$ref": "#/$defs/b.Item"}
    assert takes["required"] == ["a"]


async def endless(call: Call, tape: Tape) -> None:
    await tape.push(Started(call.id), Status("at work"))
    await asyncio.Event().wait()
    await tape.push(Predicted({}))


def test_a_message_of_2025_cancels_its_own_call_only() -> None:
    with serving(qa(endless)) as live:
        call = {"jsonrpc": "2.0", "id": 5, "method": "tools/call",
                "params": {"name": "qa", "arguments": {"question": "x"}, "_meta": {"progressToken": 1}}}  # fmt: skip
        sock = live.connect()
        headers = {"mcp_session_id": "mine", "accept": "text/event-stream", "content_type": "application/json"}
        sock.sendall(live.request("POST", "/mcp", json.dumps(call).encode(), **headers))
        until(lambda: len(live.app.mcp_calls) == 1)

        def cancel(session: str, request_id: int) -> None:
            note = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": request_id}}
            sent = {"mcp-session-id": session} if session else {}
            assert http.post(live.url + "/mcp", json=note, headers=sent).status_code == 202

        for session, request_id in (("other", 5), ("mine", 6), ("", 5)):
            cancel(session, request_id)
        assert not live.service.ended
        cancel("mine", 5)
        until(lambda: list(live.service.ended.values()) == ["CancelledError"])
        sock.close()


def test_leaving_cancels_the_run() -> None:
    with serving(qa(endless)) as live:
        call = {
            "jsonrpc": "2.0",
            "id": 5,
            "method": "tools/call",
            "params": {"name": "qa", "arguments": {"question": "x"}},
        }
        sock = live.connect()
        sock.sendall(live.request("POST", "/mcp", json.dumps(call).encode()))
        until(lambda: bool(live.service.calls))
        live.ends_when(sock.close)
        until(lambda: len(live.app.runs) == 0)


def test_a_client_that_takes_no_event_stream_gets_none_however_long_it_waits() -> None:
    """The heartbeat of a silent stream began one."""

    go = asyncio.Event()

    async def slow(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        if call.stream:
            await go.wait()
        else:
            await asyncio.sleep(0.2)
        await tape.push(Predicted({"answer": "late"}))

    with serving(qa(slow), heartbeat=0.01) as live:
        params = {"name": "qa", "arguments": {"question": "why?"}}
        alone = modern(live, "tools/call", params, **JSON_ONLY)
        assert alone.headers["content-type"] == "application/json"
        assert alone.json()["result"]["structuredContent"] == {"answer": "late"}
        with modern_stream(live, "tools/call", params) as both:
            assert both.headers["content-type"].startswith("text/event-stream")
            pieces = both.iter_text()
            assert next(pieces).startswith(": keep-alive")
            live.loop.call_soon_threadsafe(go.set)
            assert "late" in "".join(pieces)


def test_a_key_is_shown_the_programs_that_it_may_run() -> None:
    """The others are no tools for it, and no models, and no error names them."""
    limited = Key(name="a", digest=digest_of("secret-key"), programs=("qa",))
    hidden = replace(qa(), name="hidden")
    with serving(create_app({"qa": qa(), "hidden": hidden}, api_keys=Keys([limited]))) as live:
        key = {"authorization": "Bearer secret-key"}
        assert [tool["name"] for tool in modern(live, "tools/list", **key).json()["result"]["tools"]] == ["qa"]
        refused = modern(live, "tools/call", {"name": "hidden", "arguments": {"question": "x"}}, **key)
        assert refused.json()["error"]["code"] == -32602
        for reply in (
            http.post(live.url + "/v1/responses", json={"model": "hidden", "input": "x"}, headers=key),
            http.get(live.url + "/v1/models/hidden", headers=key),
        ):
            assert reply.status_code == 404
            assert reply.json()["error"]["message"] == "no program 'hidden'; this server has 'qa'"
