"""The simulated LM behind a real socket, in a thread of its own, and LMs that talk to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import dspy
import pytest

from dspy_live import LM
from dspy_live.simulator import Simulator

MODEL = "openai/gpt-4o-mini"


class Sim(NamedTuple):
    """A running simulated LM: its URL and its own object, for faults and counts."""

    url: str
    server: Simulator

    def lm(self, model: str = MODEL, **options: Any) -> LM:
        options.setdefault("cache", False)
        return LM(model, api_base=self.url, api_key="sk-test", **options)

    def plain(self, model: str = MODEL, **options: Any) -> dspy.LM:
        options.setdefault("cache", False)
        return dspy.LM(model, api_base=self.url, api_key="sk-test", **options)


@pytest.fixture
def sim() -> Iterator[Sim]:
    """A simulated LM that answers at once."""
    server = Simulator(seed=1)
    with server.running() as url:
        yield Sim(url if url.endswith("/v1") else f"{url}/v1", server)


@pytest.fixture
def paced() -> Iterator[Sim]:
    """A simulated LM that takes its time: about a second for a reply."""
    server = Simulator(seed=1, ttft=0.02, tokens_per_second=60)
    with server.running() as url:
        yield Sim(url if url.endswith("/v1") else f"{url}/v1", server)
