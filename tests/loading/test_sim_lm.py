"""``dspy_live.sim_lm()``: an LM for a first try, for examples and for tests, without a key or a socket."""

from __future__ import annotations

import asyncio
import copy
import socket
import threading
from typing import Any

import dspy
import pytest

import dspy_live
from dspy_live.core.errors import ConfigurationError
from dspy_live.loading.configure import configure
from dspy_live.loading.simulated_lm import simulated_lm
from dspy_live.testing import run_virtual

QA = "question -> answer"


@pytest.fixture(autouse=True)
def _no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = socket.socket.connect

    def refuse(sock: socket.socket, address: Any) -> None:
        if threading.current_thread().name == "dspy-live-shared":
            connect(sock, address)  # shares the limits of another test's layers, for as long as their minute lasts
            return
        raise AssertionError(f"the simulated LM connects to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_a_program_runs_without_a_key_or_a_socket() -> None:
    dspy.configure(lm=dspy_live.sim_lm())
    prediction = dspy.ChainOfThought("review -> sentiment: bool, score: float")(review="Quite good.")
    assert isinstance(prediction.sentiment, bool)
    assert isinstance(prediction.score, float)


def test_the_same_seed_gives_the_same_answer_and_another_one_another() -> None:
    def answer(seed: int) -> str:
        with dspy.context(lm=dspy_live.sim_lm(seed=seed)):
            return str(dspy.Predict(QA)(question="Why do rivers bend?").answer)

    assert answer(1) == answer(1) != answer(2)


async def test_it_streams_token_by_token() -> None:
    with dspy.context(lm=dspy_live.sim_lm(length=30)):
        items = [item async for item in dspy_live.streamify(dspy.Predict(QA))(question="Why?")]
    tokens = [item for item in items if isinstance(item, dspy_live.StreamToken)]
    assert len(tokens) > 20
    assert "".join(tokens) == items[-1].answer


def test_it_is_paced_when_asked() -> None:
    async def seconds(lm: Any) -> float:
        began = asyncio.get_running_loop().time()
        with dspy.context(lm=lm):
            await dspy_live.asyncify(dspy.Predict(QA))(question="Why?")
        return asyncio.get_running_loop().time() - began

    assert run_virtual(seconds(dspy_live.sim_lm())) < 0.1
    # 40 seconds before the first token, then 40 tokens at one a second: virtual seconds, none of them waited.
    assert run_virtual(seconds(dspy_live.sim_lm(ttft=40.0, tokens_per_second=1, length=40))) > 80.0


def test_it_says_that_it_is_simulated_and_costs_nothing() -> None:
    with dspy_live.UsageTracker() as tracker, dspy.context(lm=dspy_live.sim_lm()):
        dspy.Predict(QA)(question="Why?")
    stats = tracker.get_stats()
    assert list(stats["by_model"]) == ["openai/simulated"]
    assert stats["total_tokens"] > 0
    assert stats["total_cost"] == 0.0


@pytest.mark.parametrize("wrong", [{"ttft": -1}, {"tokens_per_second": 0}, {"jitter": 2}, {"length": -3}])
def test_a_pace_that_can_not_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong)).replace("tokens_per_second", "tps")):
        dspy_live.sim_lm(**wrong)


def test_a_program_that_configures_it_keeps_it_with_its_pace() -> None:
    """It was replaced by a command's stand-in, whose pace is another one, or by the LM that the environment names."""
    own = dspy_live.sim_lm(length=7)
    dspy.configure(lm=own)
    chosen = configure(dspy.Predict(QA), simulated=simulated_lm, model="openai/env", source="DSPY_LIVE_LM")
    assert dspy.settings.lm is own
    assert chosen.simulated
    assert chosen.label == "openai/simulated (configured by the program)"


def test_a_commands_stand_in_gives_way_to_the_next_programs_lm() -> None:
    dspy.configure(lm=None)
    assert configure(dspy.Predict(QA), simulated=simulated_lm).label == "the simulated LM"
    assert configure(dspy.Predict(QA), simulated=simulated_lm, model="openai/env", source="x").label == "openai/env (x)"


def test_copies_are_simulated_too_and_threads_may_ask() -> None:
    lm = dspy_live.sim_lm(length=9)
    for copied in (lm.copy(temperature=0.5), copy.deepcopy(lm)):
        with dspy.context(lm=copied):
            calls = [(dspy.Predict(QA), {"question": f"Why {n}?"}) for n in range(4)]
            results = dspy.Parallel(num_threads=2, disable_progress_bar=True)(calls)
        assert all(result.answer for result in results)


def test_an_lm_without_a_key_says_where_one_without_a_key_is() -> None:
    with (
        dspy.context(lm=dspy_live.LM("openai/gpt-4o-mini", cache=False)),
        pytest.raises(Exception, match=r"dspy_live\.sim_lm\(\)"),
    ):
        dspy.Predict(QA)(question="Why?")


def test_the_environments_pace_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSPY_LIVE_SIM", "ttft=-1")
    with pytest.raises(ConfigurationError, match=r"DSPY_LIVE_SIM: .*ttft"):
        simulated_lm()


def test_an_application_over_a_simulated_lm_says_so() -> None:
    with dspy.context(lm=dspy_live.sim_lm()):
        assert dspy_live.create_app(dspy.Predict("question -> answer")).simulated
    with dspy.context(lm=dspy_live.LM("openai/gpt-4o-mini", api_key="x")):
        assert not dspy_live.create_app(dspy.Predict("question -> answer")).simulated
