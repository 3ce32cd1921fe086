"""OpenInference's and MLflow's instrumentation of DSPy, as they are installed, around programs that run on ours.

They are in an environment of their own (``scripts/environments/instrumented.in``): it took 18 s to make where no
package was on the machine, 4 s where they were, and stays. Each tool is asked for all cases at once, in 5 s.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
LM_CALLS = ("LM.__call__", "LM.acall")
pytestmark = pytest.mark.timeout(600)


@functools.cache
def environment(name: str) -> str:
    command = [ROOT / "scripts/environment.sh", name]
    made = subprocess.run(command, env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


@functools.cache
def recorded(tool: str) -> dict[str, Any]:
    command = [environment("instrumented"), HERE / "recorded.py", *tool.split()]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    cases: dict[str, Any] = json.loads(ran.stdout)
    return cases


def lm_calls(case: dict[str, Any]) -> list[dict[str, Any]]:
    return [span for span in case["spans"] if span["path"][-1] in LM_CALLS]


def modules(span: dict[str, Any]) -> list[str]:
    """The classes of the modules around a span, the outermost first; each once, whatever the tool calls them."""
    names = [name.partition(".")[0] for name in span["path"] if name.endswith(("forward", "call__", "acall"))]
    return [name for name in names if name in ("Rag", "Fan", "ChainOfThought", "Predict", "LM")]


@pytest.fixture(params=["openinference", "openinference first", "mlflow"])
def cases(request: pytest.FixtureRequest) -> dict[str, Any]:
    return recorded(request.param)


@pytest.mark.parametrize("kind", ["dspy_live", "dspy"])
@pytest.mark.parametrize("execution", ["native", "thread", "inline"])
def test_each_lm_call_has_a_span_inside_of_its_modules(cases: dict[str, Any], execution: str, kind: str) -> None:
    """OpenInference wraps ``dspy.LM.__call__`` and ``acall``: calls that did not pass through these had no span."""
    case = cases[f"{execution} {kind}"]
    assert case["result"] is True
    assert [modules(span) for span in lm_calls(case)] == [
        ["Rag", "ChainOfThought", "Predict", "LM"],
        ["Rag", "Predict", "LM"],
    ]
    assert [span["status"] for span in lm_calls(case)] == ["OK", "OK"]
    assert case["requests"] == 2


def test_a_stream_is_recorded_as_a_plain_run_is(cases: dict[str, Any]) -> None:
    assert cases["streamed"]["result"] == [True, True]
    assert [modules(span)[-1] for span in lm_calls(cases["streamed"])] == ["LM", "LM"]


def test_retries_are_inside_of_one_span(cases: dict[str, Any]) -> None:
    assert (cases["retried"]["requests"], len(lm_calls(cases["retried"]))) == (2, 1)


def test_an_answer_from_the_cache_has_a_span_and_no_request(cases: dict[str, Any]) -> None:
    first, second = cases["cached"]["result"]
    assert first == second
    assert (cases["cached"]["requests"], len(lm_calls(cases["cached"]))) == (1, 2)


def test_a_failed_call_is_recorded_as_failed(cases: dict[str, Any]) -> None:
    assert cases["failed"]["result"] == "LMAuthError"
    assert [span["status"] for span in lm_calls(cases["failed"])] == ["ERROR"]


def test_the_span_of_a_call_that_is_cancelled_ends(cases: dict[str, Any]) -> None:
    assert cases["left"]["result"] == "CancelledError"
    assert len(lm_calls(cases["left"])) == 1


def test_runs_at_once_do_not_mix(cases: dict[str, Any]) -> None:
    many = cases["many"]
    assert (many["result"], many["requests"], len(lm_calls(many))) == (20, 40, 40)
    assert sorted(len(modules(span)) for span in lm_calls(many)) == [3] * 20 + [4] * 20


@pytest.mark.parametrize("name", ["fan", "batch"])
def test_threads_of_dspy_and_a_batch_lose_no_lm_call(cases: dict[str, Any], name: str) -> None:
    assert (cases[name]["requests"], len(lm_calls(cases[name]))) == (3, 3)
    assert all(modules(span)[-2:] == ["Predict", "LM"] for span in lm_calls(cases[name]))


def test_an_agents_tool_has_a_span_for_each_time_that_it_was_called(cases: dict[str, Any]) -> None:
    agent = cases["agent"]
    tools = [span["path"][-1] for span in agent["spans"] if "look_up" in span["path"][-1]]
    assert len(tools) == agent["result"] > 0
    assert len(lm_calls(agent)) == agent["requests"] > 1


def test_our_lm_in_plain_dspy_is_recorded(cases: dict[str, Any]) -> None:
    assert (cases["without_a_run"]["requests"], len(lm_calls(cases["without_a_run"]))) == (2, 2)


def test_one_switch_leaves_the_parts_of_a_run_to_the_tool(cases: dict[str, Any]) -> None:
    both, one = cases["ours_as_well"], cases["ours_without_parts"]
    assert (len(lm_calls(both)), len(lm_calls(one))) == (2, 2)
    assert [name.partition(" ")[0] for name in our_spans(both)] == ["invoke_workflow", "chat", "chat"]
    assert [name.partition(" ")[0] for name in our_spans(one)] == ["invoke_workflow"]


def our_spans(case: dict[str, Any]) -> list[str]:
    names = [span["path"][-1] for span in case["spans"]]
    return sorted((name for name in names if name.startswith(("invoke_workflow", "chat "))), reverse=True)


def test_openinferences_spans_are_inside_of_our_run() -> None:
    spans = lm_calls(recorded("openinference")["ours_without_parts"])
    assert [span["path"][0] for span in spans] == ["invoke_workflow Rag"] * 2


def test_nothing_is_recorded_any_more_when_the_tool_is_off(cases: dict[str, Any]) -> None:
    over = cases["no_longer_recorded"]
    assert (over["result"], over["requests"], over["spans"]) == ([True, 1], 5, [])


def test_no_key_is_recorded(cases: dict[str, Any]) -> None:
    assert not [span for case in cases.values() for span in case["spans"] if "sk-secret" in span["attributes"]]
