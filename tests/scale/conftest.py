"""One cluster and one LM server for all tests of a worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.scale.cluster import cluster

from dspy_live.simulator.server import Simulator


@pytest.fixture(scope="session")
def lm() -> Iterator[Simulator]:
    """The LM's server; a question says how it answers: ``[sim tps=20 length=40]``."""
    simulator = Simulator(length=12)
    with simulator.running():
        yield simulator


@pytest.fixture(scope="session")
def environ(lm: Simulator) -> Iterator[dict[str, str]]:
    """The environment of commands that run on the cluster and ask the LM's server."""
    with cluster() as found:
        yield {**found, "DSPY_LIVE_LM": "openai/simulated", "DSPY_LIVE_API_BASE": lm.url, "DSPY_LIVE_API_KEY": "x"}
