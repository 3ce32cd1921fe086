"""A reply that was cut at the limit of tokens is told from a whole one, on every door."""

from __future__ import annotations

from typing import Any

import dspy
import pytest
from tests.programs.conftest import Sim
from tests.server.support import http, serving, sse

from dspy_live import create_app
from dspy_live.programs.internals import CallResult, attributes
from dspy_live.programs.lm.reply_facts import is_truncated


def completion(*reasons: str | None) -> dict[str, Any]:
    return {"choices": [{"message": {"content": "x"}, "finish_reason": reason} for reason in reasons]}


@pytest.mark.parametrize(
    ("response", "cut"),
    [
        (completion("stop"), False),
        (completion("length"), True),
        (completion("stop", "length"), True),
        (completion(None), False),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, True),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, False),
        ({"status": "completed", "incomplete_details": None}, False),
        ({"choices": None}, False),
        (None, False),
    ],
)
def test_a_reply_tells_whether_it_was_cut(response: Any, cut: bool) -> None:
    assert is_truncated(response) is cut
    assert is_truncated(CallResult(raw=attributes(response))) is cut


@pytest.mark.parametrize("cached", [False, True])
def test_an_answer_that_was_cut_says_so(sim: Sim, cached: bool) -> None:
    program = dspy.Predict("question -> answer")
    program.lm = sim.lm(max_tokens=12, cache=cached)
    with serving(create_app(program)) as live:
        replies = [http.post(f"{live.url}/predict", json={"question": f"What {cached}?"}).json() for _ in range(2)]
        streamed = http.post(f"{live.url}/predict/stream", json={"question": f"What {cached}?"})
    assert [reply["run"]["cached"] for reply in replies] == [False, cached]
    assert [reply["run"]["truncated"] for reply in replies] == [True, True]
    (usage,) = [data for name, _, data in sse(streamed.text) if name == "usage"]
    (prediction,) = [data for name, _, data in sse(streamed.text) if name == "prediction"]
    assert usage["truncated"] is prediction["run"]["truncated"] is True


def test_a_whole_answer_is_not_called_cut(sim: Sim) -> None:
    program = dspy.Predict("question -> answer")
    program.lm = sim.lm()
    with serving(create_app(program)) as live:
        assert http.post(f"{live.url}/predict", json={"question": "What?"}).json()["run"]["truncated"] is False


@pytest.mark.parametrize("signature", ["question -> answer", "question -> answer, score: int"])
def test_an_answer_of_which_nothing_came_is_an_error(sim: Sim, signature: str) -> None:
    """It was a 200 with an empty answer, or an unreadable reply with no word on why it was that."""
    program = dspy.Predict(signature)
    program.lm = sim.lm(max_tokens=5, num_retries=0)
    with serving(create_app(program)) as live:
        reply = http.post(f"{live.url}/predict", json={"question": "What?"})
    assert (reply.status_code, reply.json()["error"]["type"]) == (502, "lm_truncated")
    assert "max_tokens" in reply.json()["error"]["message"]
