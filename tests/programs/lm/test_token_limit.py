"""A limit of tokens goes out under the name that stock DSPy 3.4 sends it by: reasoning models refuse ``max_tokens``."""

from __future__ import annotations

from typing import Any

import pytest
from tests.programs.conftest import Sim

NEWER, OLDER = "max_completion_tokens", "max_tokens"


def sent(sim: Sim, lm: Any, **options: Any) -> dict[str, Any]:
    """The limits that the endpoint was sent by this LM."""
    sim.server.keep_requests = True
    lm("What is Rust?", **options)
    return {name: value for name, value in sim.server.requests[-1].items() if name in (NEWER, OLDER)}


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("openai/gpt-4o", NEWER),
        ("openai/gpt-5", NEWER),
        ("openai/a-server-of-mine", NEWER),
        ("groq/llama", OLDER),
        ("openrouter/openai/gpt-5", OLDER),
    ],
)
@pytest.mark.parametrize("options", [{}, {OLDER: 30_000}, {NEWER: 20_000}], ids=["lm", "call", "the same twice"])
def test_limit_has_the_providers_name(sim: Sim, model: str, name: str, options: dict[str, Any]) -> None:
    ours, stock = (make(model, max_tokens=20_000) for make in (sim.lm, sim.plain))
    if model.endswith("gpt-5") and OLDER in options:
        options = {NEWER: options[OLDER]}  # that of the LM has the newer name already, and two that differ stay apart
    found = sent(sim, ours, **options)
    assert found == sent(sim, stock, **options)
    assert found == {name: next(iter(options.values()), 20_000)}


def test_lm_without_a_limit_sends_none(sim: Sim) -> None:
    assert sent(sim, sim.lm("openai/gpt-5")) == {}


# DSPy hands these to LiteLLM, which sends what it was given; it is not asked here, since its import takes seconds.
@pytest.mark.parametrize(
    "options",
    [{"extra_headers": {"x-team": "a"}}, {"extra_body": {"top_k": 3}}, {"a_servers_own": 1}],
    ids=["headers", "body", "unknown"],
)
def test_what_dspys_own_engine_does_not_carry_keeps_its_names(sim: Sim, options: dict[str, Any]) -> None:
    assert sent(sim, sim.lm("openai/gpt-4o", max_tokens=20_000, **options)) == {OLDER: 20_000}
    assert sent(sim, sim.lm("openai/gpt-5", max_tokens=20_000, **options)) == {NEWER: 20_000}
    assert sent(sim, sim.lm("openai/gpt-5", **options), max_tokens=20_000) == {NEWER: 20_000}


def test_gateway_named_by_a_variable_gets_the_name_that_was_given(sim: Sim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_BASE", sim.url)
    assert sent(sim, sim.lm("openai/gpt-4o", max_tokens=20_000)) == {OLDER: 20_000}


def test_two_limits_that_differ(sim: Sim) -> None:
    limits = {OLDER: 20_000, NEWER: 30_000}
    assert sent(sim, sim.lm("openai/gpt-4o"), **limits) == limits
    assert sent(sim, sim.lm("openai/gpt-5"), **limits) == {NEWER: 30_000}, "a reasoning model would refuse the other"


async def test_streamed_request_has_it_too(sim: Sim) -> None:
    sim.server.keep_requests = True
    await sim.lm("openai/gpt-4o", max_tokens=20_000, stream="always").acall("What is Rust?")
    assert (sim.server.requests[-1][NEWER], sim.server.requests[-1]["stream"]) == (20_000, True)
