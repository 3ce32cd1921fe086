"""Bad input: each has a clear error, over a real socket, and never a traceback."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.server.support import QA, Live, Tape, http, qa, serving, text_convert

from dspy_live.core.call import Call
from dspy_live.core.errors import BudgetExceeded, CircuitOpen, DeadlineExceeded, LMFailed, ProgramFailed
from dspy_live.core.events import Started
from dspy_live.core.schema import Field, Schema
from dspy_live.server.errors import redacted
from dspy_live.server.transport import connection


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with serving(qa(), max_body=100_000) as server:
        yield server


def error(reply: httpx.Response) -> dict[str, Any]:
    assert reply.headers["content-type"] == "application/json"
    body = reply.json()
    assert set(body) == {"error"}
    assert {"type", "message", "run_id"} <= set(body["error"])
    found: dict[str, Any] = body["error"]
    return found


@pytest.mark.parametrize("path", ["/predict", "/predict/stream", "/runs"])
@pytest.mark.parametrize(
    ("body", "status", "kind", "words", "field"),
    [
        ({}, 422, "invalid_input", ["missing", "'question'", "str"], "question"),
        ({"question": 5}, 422, "invalid_input", ["'question'", "str", "int"], "question"),
        ({"question": "x", "quesion": "y"}, 422, "invalid_input", ["unknown", "'quesion'", "'question'"], "quesion"),
        ({"question": "x", "config": 5}, 422, "invalid_input", ["'config'", "object"], "config"),
        # An address from outside would be sent the server's own key.
        *(
            ({"question": "x", "config": {name: "http://127.0.0.1:1"}}, 422, "invalid_input", [name], f"config.{name}")
            for name in ("api_base", "base_url", "api_key", "model", "extra_headers", "extra_body")
        ),
        ({"question": "x", "stream": "yes"}, 422, "invalid_input", ["'stream'", "true or false"], "stream"),
    ],
)
def test_inputs_that_do_not_fit(
    live: Live, path: str, body: dict[str, Any], status: int, kind: str, words: list[str], field: str
) -> None:
    reply = http.post(live.url + path, json=body)
    found = error(reply)
    assert reply.status_code == status
    assert found["type"] == kind
    assert found["field"] == field
    assert found["run_id"] == reply.headers["x-run-id"]
    assert reply.headers["server-timing"].startswith("run;dur=")
    assert all(word in found["message"] for word in words)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"question": ', ["not valid JSON", "line 1, column"]),
        (b"", ["not valid JSON"]),
        (b"[1]", ["an array"]),
        (b'"x"', ["a string"]),
        (b"7", ["a number"]),
        (b"null", ["null"]),
        (b'{"question": "\xff"}', ["not valid JSON"]),
        (b"question=why", ["not valid JSON"]),
    ],
)
def test_a_body_that_is_no_json_object(live: Live, body: bytes, words: list[str]) -> None:
    reply = http.post(live.url + "/predict", content=body)
    assert reply.status_code == 400
    assert error(reply)["type"] == "bad_request"
    assert all(word in error(reply)["message"] for word in words)


def test_a_broken_config_header(live: Live) -> None:
    reply = http.post(live.url + "/predict", json={"question": "x"}, headers={"X-Config": "temperature=1"})
    assert reply.status_code == 400
    assert "X-Config" in error(reply)["message"]


def test_50_megabytes_are_refused_without_being_read(live: Live) -> None:
    sock = live.connect()
    sock.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 50000000\r\n\r\n" + b"x" * 1000)
    reply = sock.recv(65536)
    assert reply.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in reply
    assert b'"type":"too_large"' in reply
    assert b"100000 bytes" in reply
    sock.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused body may take long to come."""
    monkeypatch.setattr(connection, "LINGER", 60.0)


@pytest.mark.usefixtures("patient")
def test_a_client_that_sends_it_all_the_same_sees_the_reply(live: Live) -> None:
    reply = http.post(live.url + "/predict", content=b"x" * 50_000_000)
    assert reply.status_code == 413
    assert error(reply)["type"] == "too_large"


@pytest.mark.usefixtures("patient")
def test_a_client_that_reads_only_when_it_has_sent_all_sees_the_reply_too(live: Live) -> None:
    sock = live.connect()
    sock.sendall(live.request("POST", "/predict", b"x" * 20_000_000))
    assert sock.recv(65536).startswith(b"HTTP/1.1 413 ")
    sock.close()


def test_a_body_that_does_not_come_is_not_waited_for_for_ever() -> None:
    with serving(qa(), body_timeout=0.1) as server:
        sock = server.connect()
        sock.sendall(server.request("POST", "/predict", b'{"question":"x"}')[:-3])
        assert sock.recv(65536).startswith(b"HTTP/1.1 408 ")
        assert sock.recv(65536) == b""
        sock.close()


@pytest.mark.usefixtures("patient")
def test_a_chunked_body_is_refused_when_it_grows_too_large(live: Live) -> None:
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        while sent < 20_000_000:
            sent += 50_000
            yield b"x" * 50_000

    reply = http.post(live.url + "/predict", content=chunks())
    assert reply.status_code == 413


def test_a_body_of_the_largest_size_is_taken(live: Live) -> None:
    body = b'{"question":"' + b"x" * (100_000 - 15) + b'"}'
    assert len(body) == 100_000
    assert http.post(live.url + "/predict", content=body).status_code == 200
    assert http.post(live.url + "/predict", content=body + b" ").status_code == 413


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("GET", "/predict", 405), ("PUT", "/runs/x", 405), ("GET", "/programs/other", 404)],
)
def test_paths_and_methods_that_are_not_there(live: Live, method: str, path: str, status: int) -> None:
    reply = http.request(method, live.url + path)
    assert reply.status_code == status
    assert error(reply)["run_id"] is None
    if status == 405:
        assert reply.headers["allow"]


@pytest.mark.parametrize(
    ("failure", "status", "kind", "retry_after"),
    [
        (LMFailed("cannot reach the LM at http://127.0.0.1:1"), 502, "lm_failed", None),
        (DeadlineExceeded("the run's 5 s are up"), 504, "deadline_exceeded", None),
        (CircuitOpen("the LM has failed 5 times"), 503, "circuit_open", "1"),
        (BudgetExceeded("spent $2.00 of $2.00"), 402, "budget_exceeded", None),
        (ProgramFailed("ZeroDivisionError: secret"), 500, "program_failed", None),
        (ZeroDivisionError("secret"), 500, "program_failed", None),
    ],
)
def test_failures_of_a_run(failure: Exception, status: int, kind: str, retry_after: str | None) -> None:
    async def script(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        raise failure

    with serving(qa(script)) as server:
        reply = http.post(server.url + "/predict", json={"question": "x"})
    assert reply.status_code == status
    assert error(reply)["type"] == kind
    assert reply.headers.get("retry-after") == retry_after
    assert "secret" not in reply.text
    assert "Traceback" not in reply.text


def test_a_key_in_a_message_is_taken_out() -> None:
    async def script(call: Call, tape: Tape) -> None:
        raise LMFailed(
            "401: Incorrect API key provided: sk-proj-abcdefgh123. Header was 'Authorization: Bearer tok123'"
        )

    with serving(qa(script)) as server:
        text = http.post(server.url + "/predict", json={"question": "x"}).text
    assert "abcdefgh" not in text
    assert "tok123" not in text
    assert "Incorrect API key provided" in text


@pytest.mark.parametrize(
    "text",
    [
        "API key not valid: AIzaSyS3CRETs3cretS3cret77",
        "invalid key hf_S3CRETs3cretS3cret77",
        "can't reach https://me:S3CRETpassword@10.0.0.1/v1",
        "Authorization: Token S3CRETs3cret",
        "{'x-api-key': 'S3CRET and more'}",
        "https://host/v1/models?key=S3CRETs3cretS3cret77",
    ],
)
def test_keys_of_any_provider_are_taken_out(text: str) -> None:
    """Clients were told what the log hides."""
    assert "S3CRET" not in redacted(text)
    assert "[redacted]" in redacted(text)


def test_ordinary_words_are_not_taken_out() -> None:
    text = "the key-value store is task-oriented; api-version 2 risk-free"
    assert redacted(text) == text


def test_a_run_without_an_end_is_an_error() -> None:
    async def script(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))

    with serving(qa(script)) as server:
        reply = http.post(server.url + "/predict", json={"question": "x"})
    assert reply.status_code == 500


def test_overload_is_503_with_retry_after() -> None:
    async def slow(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        await asyncio.Event().wait()

    with serving(qa(slow), max_active=1) as server:
        sock = server.connect()
        sock.sendall(server.request("POST", "/predict/stream", b'{"question":"x"}'))
        sock.recv(100)
        reply = http.post(server.url + "/predict", json={"question": "x"})
        ready = http.get(server.url + "/health/ready")
        sock.close()
    assert reply.status_code == 503
    assert error(reply)["type"] == "overloaded"
    assert "1 may be; try again in 1 s" in error(reply)["message"]
    assert reply.headers["retry-after"] == "1"
    assert ready.status_code == 503
    assert ready.json()["status"] == "full"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("temperature", "hot"),
        ("temperature", True),
        ("n", 0),
        ("n", "many"),
        ("n", 129),
        ("n", 1_000_000),
        ("max_tokens", -1),
        ("max_tokens", 1.5),
        ("stop", [1]),
        ("cache", "no"),
        ("logit_bias", []),
        ("rollout_id", {}),
    ],
)
def test_an_option_of_the_lm_that_is_of_the_wrong_type(live: Live, option: str, value: Any) -> None:
    ran = len(live.service.calls)
    reply = http.post(live.url + "/predict", json={"question": "x", "config": {option: value}})
    assert reply.status_code == 422
    assert error(reply)["field"] == f"config.{option}"
    assert repr(option) in error(reply)["message"]
    assert len(live.service.calls) == ran


def test_options_of_the_lm_that_fit_go_along(live: Live) -> None:
    config = {"temperature": 1, "stop": ["x"], "n": 2, "rollout_id": "a", "cache": False, "seed": None}
    assert http.post(live.url + "/predict", json={"question": "x", "config": config}).status_code == 200
    assert live.service.calls[-1].config == config


def test_a_config_header_may_have_any_letters(live: Live) -> None:
    header = {"X-Config": '{"stop": "Grüße"}'.encode()}
    assert http.post(live.url + "/predict", json={"question": "x"}, headers=header).status_code == 200
    assert live.service.calls[-1].config == {"stop": "Grüße"}
    assert http.post(live.url + "/predict", json={"question": "x"}, headers={"X-Config": b'"\xff"'}).status_code == 400


def test_a_compressed_body_is_named_as_the_trouble(live: Live) -> None:
    body = gzip.compress(b'{"question": "x"}')
    reply = http.post(live.url + "/predict", content=body, headers={"Content-Encoding": "gzip"})
    assert reply.status_code == 400
    assert "compressed (gzip)" in error(reply)["message"]


def test_each_field_that_does_not_fit_is_told_at_once() -> None:
    """Only the first was, so that a client with three mistakes asked four times."""
    schema = Schema("Two", (Field("question", convert=text_convert), Field("context"), Field("times")), QA.outputs)
    with serving(qa(schema=schema)) as live:
        body = {"question": 5, "nonsense": 1, "times": "x", "config": {"temperature": "hot"}}
        reply = http.post(live.url + "/predict", json=body)
        many = http.post(live.url + "/predict", json={f"f{i}": 1 for i in range(100_000)})
    error = reply.json()["error"]
    assert reply.status_code == 422
    assert [one["field"] for one in error["errors"]] == ["config.temperature", "nonsense", "question", "context"]
    assert (error["field"], error["expected"]) == ("config.temperature", "a number")
    assert all(one["message"] in error["message"] for one in error["errors"])
    assert len(many.json()["error"]["errors"]) == 20
    assert many.json()["error"]["message"].endswith("; and more")


@pytest.mark.parametrize("raised", [TypeError("`download` is only for a source"), KeyError("url")])
def test_a_value_that_a_types_own_code_trips_over_is_the_clients_mistake(raised: Exception) -> None:
    """An image's ``download`` made DSPy raise a TypeError, which was a 500."""

    def convert(value: Any) -> Any:
        raise raised

    with serving(qa(schema=Schema("Photo", (Field("photo", "dspy.Image", convert=convert),), QA.outputs))) as live:
        reply = http.post(live.url + "/predict", json={"photo": {"url": "x", "download": True}})
        asked = {"model": "qa", "messages": [{"role": "user", "content": "{}"}]}
        chat = http.post(live.url + "/v1/chat/completions", json=asked)
    assert (reply.status_code, reply.json()["error"]["field"]) == (422, "photo")
    assert ("download" in reply.json()["error"]["message"]) == isinstance(raised, TypeError)
    assert chat.status_code == 422


def test_an_empty_header_sets_no_options() -> None:
    with serving(qa()) as live:
        reply = http.post(live.url + "/predict", json={"question": "x"}, headers={"X-Config": ""})
    assert reply.status_code == 200
