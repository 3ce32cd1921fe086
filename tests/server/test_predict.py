"""POST /predict over a real socket."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.server.support import Live, qa, serving, sse


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with serving(qa()) as server:
        yield server


def test_outputs_come_flat_beside_the_run(live: Live) -> None:
    reply = httpx.post(live.url + "/predict", json={"question": "why?"})
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


def test_stream(live: Live) -> None:
    reply = httpx.post(live.url + "/predict/stream", json={"question": "why?"})
    events = sse(reply.text)
    run = reply.headers["x-run-id"]
    assert [name for name, _, _ in events] == [
        "started",
        "token",
        "token",
        "token",
        "token",
        "token",
        "usage",
        "prediction",
        "done",
    ]
    assert [ident for _, ident, _ in events] == [f"{run}:{i}" for i in range(1, len(events) + 1)]
    assert "".join(d["text"] for n, _, d in events if n == "token" and d["field"] == "answer") == "You asked: why?"
    assert events[-1][2] == "[DONE]"
