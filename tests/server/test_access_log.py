"""The access log: a line for each request, with what a person asks a log about."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from tests.server.support import Live, Tape, http, qa, serving, until
from tests.support.until import BOUND
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from dspy_live.core.call import Call
from dspy_live.core.errors import ConfigurationError, LMFailed
from dspy_live.observe.logs import reset_logging, setup_logging
from dspy_live.server import create_app

QUESTION = {"question": "why?"}
KEY = {"X-API-Key": "ada-key"}


class Lines:
    """What the logs say, as objects."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    def of(self, logger: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.stream.getvalue().splitlines()]
        return [line for line in lines if line["logger"] == logger]

    def one(self, logger: str = "dspy_live.access") -> dict[str, Any]:
        until(lambda: bool(self.of(logger)))
        (line,) = self.of(logger)
        return line


@pytest.fixture
def lines() -> Iterator[Lines]:
    made = Lines()
    setup_logging("WARNING", json=True, stream=made.stream)
    yield made
    reset_logging()
    logging.getLogger("dspy_live.access").setLevel(logging.NOTSET)


@pytest.fixture
def live() -> Iterator[Live]:
    with serving(qa(), access_log=1.0, api_keys={"ada": "ada-key"}) as server:
        yield server


@pytest.mark.parametrize("path", ["/predict", "/predict/stream", "/programs/qa/predict", "/v1/chat/completions"])
def test_a_run_has_one_line(lines: Lines, live: Live, path: str) -> None:
    chat = {"model": "qa", "messages": [{"role": "user", "content": "why?"}]}
    reply = http.post(live.url + path + "?a=b", json=chat if "/v1" in path else QUESTION, headers=KEY)
    line = lines.one()
    assert line.pop("duration_ms") > 0
    assert line.pop("timestamp")
    assert line == {
        "level": "info",
        "logger": "dspy_live.access",
        "event": "request",
        "method": "POST",
        "path": path,
        "status": 200,
        "client": "127.0.0.1",
        "key": "ada",
        "program": "qa",
        "run": reply.headers["x-run-id"],
        "bytes": len(reply.content),
        "tokens": 12,
    }


def test_requests_that_are_no_runs_have_a_line_and_probes_have_none(lines: Lines, live: Live) -> None:
    assert http.get(live.url + "/health/ready").status_code == 200
    assert http.get(live.url + "/programs?access_token=ada-key").status_code == 401
    line = lines.one()
    assert (line["path"], line["status"], line["key"]) == ("/programs", 401, "")
    assert "run" not in line
    assert "ada-key" not in lines.stream.getvalue()


def test_a_websocket_has_a_line_when_it_is_closed(lines: Lines, live: Live) -> None:
    with connect(live.ws + "/ws", additional_headers=KEY) as socket:
        socket.send("why?")
        while socket.recv(BOUND) != "[DONE]":
            pass
        assert lines.of("dspy_live.access") == []
    line = lines.one()
    assert (line["method"], line["path"], line["status"], line["key"]) == ("WEBSOCKET", "/ws", 101, "ada")
    with pytest.raises(InvalidStatus):
        connect(live.ws + "/ws")
    until(lambda: [line["status"] for line in lines.of("dspy_live.access")] == [101, 401])


def test_a_failure_has_the_runs_id_as_a_field(lines: Lines) -> None:
    async def script(call: Call, tape: Tape) -> None:
        if call.inputs["question"] == "lm":
            raise LMFailed("the LM is down") from OSError("no route")
        raise KeyError("x")

    with serving(qa(script), access_log=1e-9) as live:
        replies = [http.post(live.url + "/predict", json={"question": name}) for name in ("lm", "program")]
        until(lambda: len(lines.of("dspy_live.access")) == 2)  # failures are logged whatever the rate is
    runs = [reply.headers["x-run-id"] for reply in replies]
    assert [line["run"] for line in lines.of("dspy_live.access")] == runs
    told = lines.of("dspy_live.server")
    assert [line["run"] for line in told] == runs
    assert told[0]["code"] == "lm_failed"
    assert "no route" in told[0]["event"]
    assert "KeyError" in told[1]["exception"]


@pytest.mark.parametrize("rate", [0.0, 1e-9])
def test_a_request_that_is_not_chosen_has_no_line(lines: Lines, rate: float) -> None:
    with serving(qa(), access_log=rate) as live:
        assert http.post(live.url + "/predict", json=QUESTION).status_code == 200
    assert lines.of("dspy_live.access") == []


@pytest.mark.parametrize("rate", [-1.0, 1.1, float("nan")])
def test_a_rate_that_is_no_share_is_refused(rate: float) -> None:
    with pytest.raises(ConfigurationError, match="rate"):
        create_app(qa(), access_log=rate)


class Kept(logging.Handler):
    """Keeps records as a user's own handler gets them."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


class Own(logging.LogRecord):
    """A record of the user's own."""


def test_a_users_own_handler_gets_records_such_as_the_logging_package_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, access = Kept(), logging.getLogger("dspy_live.access")
    access.addHandler(kept)
    try:
        with serving(qa(), access_log=1.0) as live:
            http.post(live.url + "/predict", json=QUESTION)
            until(lambda: len(kept.records) == 1)
            monkeypatch.setattr(logging, "_logRecordFactory", Own)
            http.post(live.url + "/predict", json=QUESTION)
            until(lambda: len(kept.records) == 2)
    finally:
        access.removeHandler(kept)
        access.setLevel(logging.NOTSET)
    ours, usual = kept.records
    assert type(usual) is Own
    assert vars(ours).keys() == vars(usual).keys()
    assert ours.getMessage().startswith("POST /predict 200 in ")
    same = ("name", "levelname", "levelno", "filename", "module", "process", "thread", "msg", "funcName")
    assert [getattr(ours, name) for name in same] == [getattr(usual, name) for name in same]
    assert ours.created <= usual.created
    assert 0 <= ours.msecs < 1000
    assert ours.relativeCreated <= usual.relativeCreated
