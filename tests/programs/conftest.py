"""The simulated LM behind a real socket, in a thread of its own, and LMs that talk to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import dspy
import pytest
from tests.support.held_simulator import HeldSimulator

from dspy_live import LM
from dspy_live.simulator import Simulator

MODEL = "openai/gpt-4o-mini"


@dataclass(frozen=True)
class Sim:
    """A running simulated LM: its URL and its own object, for faults and counts."""

    url: str
    server: Simulator

    def lm(self, model: str = MODEL, **options: Any) -> LM:
        options.setdefault("cache", False)
        return LM(model, api_base=self.url, api_key="sk-test", **options)

    def plain(self, model: str = MODEL, **options: Any) -> dspy.LM:
        options.setdefault("cache", False)
        return dspy.LM(model, api_base=self.url, api_key="sk-test", **options)


@dataclass(frozen=True)
class HeldSim(Sim):
    """A running simulated LM that answers when ``server.release()`` is called."""

    server: HeldSimulator


@pytest.fixture
def sim() -> Iterator[Sim]:
    """A simulated LM that answers at once."""
    server = Simulator(seed=1)
    with server.running() as url:
        yield Sim(url, server)


@pytest.fixture
def paced() -> Iterator[Sim]:
    """A simulated LM that takes its time: about a second for a reply. Whatever must come before its end may be late."""
    server = Simulator(seed=1, ttft=0.02, tokens_per_second=60)
    with server.running() as url:
        yield Sim(url, server)


@pytest.fixture
def endless() -> Iterator[Sim]:
    """A simulated LM whose replies go on for minutes: a run that asks it ends because something else ends it."""
    server = Simulator(seed=1, ttft=0.02, tokens_per_second=60, length=20_000)
    with server.running() as url:
        yield Sim(url, server)


@pytest.fixture
def held() -> Iterator[HeldSim]:
    """A simulated LM that answers nobody before the test says so."""
    server = HeldSimulator(seed=1)
    with server.running() as url:
        yield HeldSim(url, server)
