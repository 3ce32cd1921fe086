"""What a client is told when the LM fails: whose fault it is and a code, never the provider's own words."""

from __future__ import annotations

from typing import Any

import dspy
import httpx
import pytest
from tests.programs.conftest import MODEL, Sim
from tests.server.support import serving

from dspy_live import LM, create_app
from dspy_live.simulator import Faults

QA = "question -> answer"


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        ("401", 502, "lm_refused"),
        ("429", 503, "lm_rate_limited"),
        ("500", 502, "lm_failed"),
        ("context", 502, "lm_refused"),
        ("cut_start", 502, "lm_failed"),
        ("stall_start", 504, "lm_timeout"),
    ],
)
def test_an_lm_that_fails(sim: Sim, fault: Any, status: int, kind: str) -> None:
    program = dspy.Predict(QA)
    program.lm = sim.lm(num_retries=0, first_token_timeout=0.2 if fault == "stall_start" else 30)
    with serving(create_app(program)) as live:
        sim.server.set_faults(Faults(schedule=(fault,)))
        reply = httpx.post(f"{live.url}/predict", json={"question": "What?"})
        assert reply.status_code == status
        error = reply.json()["error"]
        assert error["type"] == kind
        assert error["run_id"] == reply.headers["x-run-id"]
        assert "sk-test" not in reply.text
        assert "Traceback" not in reply.text
        assert ("retry-after" in reply.headers) == (kind == "lm_rate_limited")
        sim.server.set_faults(Faults(schedule=(fault,)))
        with httpx.stream("POST", f"{live.url}/predict/stream", json={"question": "What?"}) as stream:
            text = stream.read().decode()
        assert kind in text
        assert "prediction" not in text


def test_a_dead_endpoint() -> None:
    program = dspy.Predict(QA)
    program.lm = LM(MODEL, api_base="http://127.0.0.1:9/v1", api_key="sk-secret1", cache=False, num_retries=0)
    with serving(create_app(program)) as live:
        reply = httpx.post(f"{live.url}/predict", json={"question": "What?"})
    assert (reply.status_code, reply.json()["error"]["type"]) == (502, "lm_failed")
    assert "sk-secret1" not in reply.text


def test_a_reply_that_can_not_be_read(sim: Sim) -> None:
    program = dspy.Predict("question -> answer, score: int")
    program.lm = sim.lm(num_retries=0)
    sim.server.set_faults(Faults(schedule=("wrong_format", "wrong_format", "wrong_format")))
    with serving(create_app(program)) as live:
        reply = httpx.post(f"{live.url}/predict", json={"question": "What?"})
    assert (reply.status_code, reply.json()["error"]["type"]) == (502, "lm_bad_reply")


def test_no_lm_at_all() -> None:
    dspy.configure(lm=None)
    with serving(create_app(dspy.Predict(QA))) as live:
        reply = httpx.post(f"{live.url}/predict", json={"question": "What?"})
    assert reply.status_code == 500
    assert reply.json()["error"]["type"] == "configuration"
    assert "no LM" in reply.text
    assert "Traceback" not in reply.text


def test_a_program_that_raises_tells_no_secret(sim: Sim) -> None:
    class Fails(dspy.Module):  # type: ignore[misc]
        def forward(self, question: str) -> Any:
            raise RuntimeError("password=hunter2")

    with serving(create_app(Fails())) as live:
        reply = httpx.post(f"{live.url}/predict", json={"question": "What?"})
        stream = httpx.post(f"{live.url}/predict/stream", json={"question": "What?"})
    assert reply.status_code == 500
    for text in (reply.text, stream.text):
        assert "hunter2" not in text
        assert "program_failed" in text


def test_the_operator_sees_the_providers_words_and_the_client_does_not(sim: Sim, caplog: Any) -> None:
    program = dspy.Predict(QA)
    program.lm = LM(MODEL, api_base="http://127.0.0.1:9/v1", api_key="sk-secret1", cache=False, num_retries=0)
    with serving(create_app(program)) as live:
        reply = httpx.post(f"{live.url}/predict", json={"question": "What?"})
    lines = [r.getMessage() for r in caplog.records if r.name.startswith("dspy_live.server")]
    assert any(reply.headers["x-run-id"] in line and "127.0.0.1:9" in line for line in lines), caplog.text
    assert "127.0.0.1:9" not in reply.text
    assert "sk-secret1" not in caplog.text
