"""Which LM a program asks: flags, its own, the settings behind them, the simulated one."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import dspy
import pytest

from dspy_live.core.errors import ConfigurationError
from dspy_live.loading.configure import configure, current_settings


class SimulatedLM(dspy.LM):
    """Says of itself that it stands in for an LM, as the one that commands make does."""

    live = SimpleNamespace(endpoint=SimpleNamespace(simulated=True, stand_in=True))


def simulated() -> Any:
    return SimulatedLM("openai/simulated", api_key="x")


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    before = dspy.settings.lm
    dspy.configure(lm=None)
    yield
    dspy.configure(lm=before)


@pytest.fixture
def program() -> dspy.Module:
    return dspy.ChainOfThought("question -> answer")


def own_lm(name: str) -> dspy.LM:
    return dspy.LM(f"openai/{name}", api_key="x")


def test_with_nothing_the_simulated_lm_answers(program: dspy.Module) -> None:
    chosen = configure(program, simulated=simulated)
    assert chosen.simulated
    assert dspy.settings.lm.model == "openai/simulated"


def test_the_programs_own_goes_before_the_environments(program: dspy.Module) -> None:
    dspy.configure(lm=own_lm("mine"))
    chosen = configure(program, simulated=simulated, model="openai/env", source="DSPY_LIVE_LM")
    assert chosen.label == "openai/mine (configured by the program)"
    assert dspy.settings.lm.model == "openai/mine"


def test_an_explicit_model_goes_before_the_programs_own(program: dspy.Module) -> None:
    dspy.configure(lm=own_lm("mine"))
    options = {"api_key": "k", "temperature": 0.25}
    chosen = configure(program, simulated=simulated, model="openai/flag", options=options, explicit=True, source="--lm")
    assert chosen.label == "openai/flag (--lm)"
    assert not chosen.simulated
    assert dspy.settings.lm.kwargs["temperature"] == 0.25
    assert dspy.settings.lm.kwargs["api_key"] == "k"


def test_predictors_that_all_have_an_lm_need_no_other(program: dspy.Module) -> None:
    program.set_lm(own_lm("pinned"))
    assert configure(program, simulated=simulated).label == "openai/pinned (the predictors' own)"
    assert dspy.settings.lm is None


def test_the_environments_model_is_taken_where_the_program_has_none(program: dspy.Module) -> None:
    assert configure(program, simulated=simulated, model="openai/env", source=".env").label == "openai/env (.env)"
    assert type(dspy.settings.lm).__module__ == "dspy_live.programs.lm.lm"


def test_sim_replaces_every_lm(program: dspy.Module) -> None:
    dspy.configure(lm=own_lm("mine"))
    program.set_lm(own_lm("pinned"))
    assert configure(program, simulated=simulated, model="openai/flag", explicit=True, simulate=True).simulated
    assert {p.lm.model for p in program.predictors()} == {"openai/simulated"}
    assert dspy.settings.lm.model == "openai/simulated"


def test_a_simulated_lm_that_another_program_left_is_not_this_programs_own(program: dspy.Module) -> None:
    dspy.configure(lm=simulated())
    assert configure(program, simulated=simulated, model="openai/env", source="x").label == "openai/env (x)"
    dspy.configure(lm=simulated())
    assert configure(program, simulated=simulated).label == "the simulated LM"


def test_an_lm_that_can_not_be_made_is_told(program: dspy.Module) -> None:
    with pytest.raises(ConfigurationError, match="no LM 'openai/x'"):
        configure(program, simulated=simulated, model="openai/x", options={"stream": "sometimes"}, source="--lm")


def test_current_settings_are_those_configured_now(program: dspy.Module) -> None:
    configure(program, simulated=simulated)
    assert current_settings() == {"lm": dspy.settings.lm, "adapter": dspy.settings.adapter}
