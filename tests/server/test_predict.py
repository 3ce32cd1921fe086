"""POST /predict over a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx
import pytest
from tests.server.support import Live, Tape, http, qa, serving, sse, until

from dspy_live.core.call import Call
from dspy_live.core.events import Predicted, Started, Usage
from dspy_live.core.schema import Field, Schema


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with serving(qa(simulated=True)) as server:
        yield server


def test_outputs_come_flat_beside_the_run(live: Live) -> None:
    reply = http.post(live.url + "/predict", json={"question": "why?"})
    body = reply.json()
    assert reply.status_code == 200
    assert body["answer"] == "You asked: why?"
    assert body["reasoning"] == "I think."
    assert body["duration_ms"] > 0
    assert body["run"]["id"] == reply.headers["x-run-id"]
    assert body["run"]["usage"]["total_tokens"] == 12
    assert body["run"]["usage"]["cost"] == 0.001
    assert body["run"]["cached"] is False
    assert reply.headers["server-timing"].startswith("run;dur=")
    assert reply.headers["x-simulated"] == "1"


def test_a_plain_request_asks_the_lm_for_no_tokens(live: Live) -> None:
    http.post(live.url + "/predict", json={"question": "why?"})
    assert live.service.calls[-1].stream is False


@pytest.mark.parametrize("how", ["field", "header"])
def test_predict_streams_on_request(live: Live, how: str) -> None:
    body = {"question": "why?"} | ({"stream": True} if how == "field" else {})
    headers = {"Accept": "text/event-stream"} if how == "header" else {}
    reply = http.post(live.url + "/predict", json=body, headers=headers)
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert sse(reply.text)[-1][0] == "done"


@pytest.mark.parametrize("how", ["field", "header"])
def test_config_reaches_the_call(live: Live, how: str) -> None:
    config = {"rollout_id": 3, "temperature": 0.5}
    body = {"question": "why?"} | ({"config": config} if how == "field" else {})
    headers = {"X-Config": '{"rollout_id": 3, "temperature": 0.5}'} if how == "header" else {}
    http.post(live.url + "/predict", json=body, headers=headers)
    assert live.service.calls[-1].config == config
    assert dict(live.service.calls[-1].inputs) == {"question": "why?"}


def test_an_input_named_like_an_option_is_an_input_and_an_output_named_run_wins() -> None:
    schema = Schema("S", (Field("stream"), Field("config")), (Field("run"), Field("duration_ms")))

    async def echo(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id), Predicted({"run": call.inputs["stream"], "duration_ms": "mine"}))

    with serving(qa(echo, schema)) as live:
        reply = http.post(live.url + "/predict", json={"stream": "a river", "config": "x"})
    assert reply.json() == {"run": "a river", "duration_ms": "mine"}


def test_a_run_without_a_known_price_has_no_cost_and_one_from_the_cache_says_so() -> None:
    async def script(call: Call, tape: Tape) -> None:
        cached = call.inputs["question"] == "cached"
        await tape.push(Started(call.id), Usage("m", "p", 1, total_tokens=3, cached=cached), Predicted({"answer": ""}))

    with serving(qa(script)) as live:
        fresh = http.post(live.url + "/predict", json={"question": "fresh"}).json()["run"]
        cached = http.post(live.url + "/predict", json={"question": "cached"}).json()["run"]
    assert fresh["usage"]["cost"] is None
    assert fresh["cached"] is False
    assert cached["usage"]["cost"] == 0
    assert cached["cached"] is True


def test_the_run_is_cancelled_when_the_client_leaves() -> None:
    async def endless(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        await asyncio.Event().wait()

    with serving(qa(endless)) as live:
        sock = live.connect()
        sock.sendall(live.request("POST", "/predict", b'{"question":"x"}'))
        until(lambda: len(live.app.runs) == 1)
        live.ends_when(sock.close)
        assert list(live.service.ended.values()) == ["CancelledError"]
        until(lambda: len(live.app.runs) == 0)
        assert live.app.runs.statistics()["cancelled"] == 1


def test_requests_on_one_connection_follow_each_other(live: Live) -> None:
    with httpx.Client() as client:
        for i in range(20):
            assert client.post(live.url + "/predict", json={"question": str(i)}).json()["answer"] == f"You asked: {i}"


def test_pipelined_requests_are_answered_in_order(live: Live) -> None:
    sock = live.connect()
    requests = [live.request("POST", "/predict", b'{"question":"%d"}' % i) for i in range(5)]
    sock.sendall(b"".join(requests))
    received = b""
    while received.count(b'"run":{') < 5:
        received += sock.recv(65536)
    sock.close()
    positions = [received.index(b"You asked: %d" % i) for i in range(5)]
    assert positions == sorted(positions)
