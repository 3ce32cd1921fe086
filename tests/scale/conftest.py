"""One LM server, and the order in which Ray's tests run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dspy_live.simulator.server import Simulator

FIRST = "test_ray.py"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of one server on Ray before all others: so they stay in one worker, which starts it once.

    A worker of pytest-xdist begins with its first tests, and has only its last ones taken away. The others' tests run
    while Ray starts.
    """
    items.sort(key=lambda item: item.path.name != FIRST)


@pytest.fixture(scope="session")
def lm() -> Iterator[Simulator]:
    """The LM's server; a question says how it answers: ``[sim tps=20 length=40]``."""
    simulator = Simulator(length=12)
    with simulator.running():
        yield simulator


@pytest.fixture(scope="session")
def environ(lm: Simulator, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of commands that ask the LM's server, and start a Ray of few processes."""
    home: Path = tmp_path_factory.mktemp("home")
    return {
        **os.environ,
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_prestart_worker_first_driver": "0",
        "RAY_enable_worker_prestart": "0",
        "DSPY_LIVE_HOME": str(home),
        "DSPY_LIVE_LM": "openai/simulated",
        "DSPY_LIVE_API_BASE": lm.url,
        "DSPY_LIVE_API_KEY": "x",
    }
