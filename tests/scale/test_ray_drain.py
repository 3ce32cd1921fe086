"""The end of a server on Ray; in a file of its own, since no other test finds the server afterwards."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.scale.cluster import PATIENCE, Serving
from tests.scale.test_ray_serve import SLOW, quiet, read, server  # noqa: F401  (fixtures)
from tests.support.until import until

from dspy_live.simulator.server import Simulator

pytestmark = [pytest.mark.timeout(600), pytest.mark.ray]


def test_a_stream_that_has_begun_is_finished_at_the_end(server: Serving, lm: Simulator) -> None:  # noqa: F811
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(read, server, SLOW)
        until(lambda: lm.stats.active == 1, PATIENCE)
        server.process.terminate()
        assert running.result(PATIENCE) == "prediction"
    assert server.process.wait(PATIENCE) == 0
