"""Prices: the user's first, then the table, each looked up once; unknown is not zero."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest

from dspy_live.core.errors import ConfigurationError
from dspy_live.core.usage import LMUsage
from dspy_live.runtime.books.prices import Price, Prices

MILLION = 1_000_000


def test_every_part_has_its_own_rate() -> None:
    price = Price(input=2.0, output=10.0, cached_input=0.5, cache_write=2.5, reasoning=4.0)
    usage = LMUsage(10 * MILLION, 5 * MILLION, 15 * MILLION, 6 * MILLION, 1 * MILLION, 2 * MILLION)
    assert price.cost(usage) == 3 * 2.0 + 6 * 0.5 + 1 * 2.5 + 3 * 10.0 + 2 * 4.0


def test_parts_without_a_rate_cost_the_rate_of_their_whole() -> None:
    usage = LMUsage(10 * MILLION, 5 * MILLION, 15 * MILLION, 6 * MILLION, 1 * MILLION, 2 * MILLION)
    assert Price(input=2.0, output=10.0).cost(usage) == 70.0


def test_a_part_that_is_free_is_free() -> None:
    assert Price(input=2.0, output=1.0, cached_input=0.0).cost(LMUsage(MILLION, 0, MILLION, MILLION)) == 0.0


def test_a_long_prompt_has_the_higher_price_throughout() -> None:
    price = Price(1.0, 2.0, above=((200_000, Price(2.0, 3.0)),))
    assert price.cost(LMUsage(200_000, MILLION, 0)) == pytest.approx(2.2)
    assert price.cost(LMUsage(200_001, MILLION, 0)) == pytest.approx(3.400002)


def test_audio_has_no_price_here() -> None:
    assert Price(1.0, 1.0).cost(LMUsage(10, 10, 20, audio_tokens=1)) is None


def test_own_prices_come_first_and_the_table_is_asked_once_per_model() -> None:
    asked: list[str] = []

    def table(model: str) -> Price | None:
        asked.append(model)
        return Price(1.0, 1.0) if model == "openai/known" else None

    prices = Prices({"openai/mine": Price(7.0, 7.0), "short": Price(8.0, 8.0), "ollama/*": Price(0.0, 0.0)}, table)
    for _ in range(3):
        assert prices.price("openai/mine") == Price(7.0, 7.0)
        assert prices.price("any/short") == Price(8.0, 8.0)
        assert prices.price("ollama/llama3:8b") == Price(0.0, 0.0)
        assert prices.price("openai/known") == Price(1.0, 1.0)
        assert prices.price("openai/unknown") is None
    assert asked == ["openai/known", "openai/unknown"]


def test_an_unknown_model_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    prices = Prices()
    with caplog.at_level(logging.WARNING, "dspy_live.prices"):
        threads = [threading.Thread(target=prices.cost, args=("acme/x", LMUsage(1, 1, 2))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len([r for r in caplog.records if "acme/x" in r.getMessage()]) <= 8
    before = len(caplog.records)
    assert prices.cost("acme/x", LMUsage(1, 1, 2)) is None
    assert len(caplog.records) == before == 1


def test_a_price_given_later_counts() -> None:
    prices = Prices()
    assert prices.cost("m", LMUsage(MILLION, 0, MILLION)) is None
    prices.set({"m": {"input": 3, "output": 4}})
    assert prices.cost("m", LMUsage(MILLION, 0, MILLION)) == 3.0


@pytest.mark.parametrize("bad", [{"input": 1}, {"input": "much", "output": 1}, {"input": -1, "output": 1}, {}])
def test_a_wrong_price_is_refused_with_an_example(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="dollars per million"):
        Prices().set({"m": bad})


def test_not_a_number_is_no_price() -> None:
    with pytest.raises(ConfigurationError, match="input"):
        Price(float("nan"), 1.0)


def test_nothing_here_reaches_for_the_network() -> None:
    source = Path(__file__).parents[2] / "src/dspy_live/programs/lm/prices.py"
    assert "urllib" not in source.read_text()
