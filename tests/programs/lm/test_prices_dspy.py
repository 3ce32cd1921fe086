"""DSPy's table gives the same prices as DSPy's own estimate, without asking the network for anything."""

from __future__ import annotations

import socket

import pytest

from dspy_live.core.usage import LMUsage
from dspy_live.programs.lm import prices as prices_dspy

USAGE = LMUsage(300_000, 40_000, 340_000, 100_000, 0, 10_000)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a price was looked up on the network")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize(
    ("model", "provider", "name"),
    [
        ("openai/gpt-4o-mini", "openai", "gpt-4o-mini"),
        ("gemini/gemini-2.5-pro", "gemini", "gemini-2.5-pro"),
        ("anthropic/claude-sonnet-4-5", "anthropic", "claude-sonnet-4-5"),
        ("deepseek/deepseek-chat", "deepseek", "deepseek-chat"),
    ],
)
def test_the_same_cost_as_dspys_own_estimate(
    model: str, provider: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dspy.clients.costs import estimate_cost
    from dspy.lm15 import Message, Response, TextPart, Usage

    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "true")
    beside = provider == "anthropic"
    aside = provider == "gemini"
    usage = Usage(
        input_tokens=USAGE.prompt_tokens - (USAGE.cached_tokens if beside else 0),
        output_tokens=USAGE.completion_tokens - (USAGE.reasoning_tokens if aside else 0),
        cache_read_tokens=USAGE.cached_tokens,
        reasoning_tokens=USAGE.reasoning_tokens,
    )
    response = Response(
        id="r", model=name, message=Message(role="assistant", parts=(TextPart("x"),)), finish_reason="stop", usage=usage
    )
    theirs, why = estimate_cost(response, provider=provider, requested_model=name)
    assert theirs, why
    price = prices_dspy.price_of(model)
    assert price is not None
    assert price.cost(USAGE) == pytest.approx(theirs)


@pytest.mark.parametrize("model", ["acme/none", "nothing-of-that-name", "openai/", "", "openai/claude-sonnet-4-5"])
def test_no_entry_is_no_price(model: str) -> None:
    assert prices_dspy.price_of(model) is None


def test_a_bare_name_is_found() -> None:
    assert prices_dspy.price_of("gpt-4o-mini") == prices_dspy.price_of("openai/gpt-4o-mini")


def test_the_table_is_read_once() -> None:
    assert prices_dspy.load() is prices_dspy.load()
