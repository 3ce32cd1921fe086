"""A run leaves no cycles behind: a server that makes thousands a second would otherwise live on its collector."""

from __future__ import annotations

import gc

import dspy
import pytest
from tests.programs.conftest import Sim

from dspy_live.core.call import Call
from dspy_live.programs.program import ProgramService
from dspy_live.runtime import door


@pytest.mark.parametrize("stream", [False, True])
async def test_a_run_leaves_nothing_for_the_collector(sim: Sim, stream: bool) -> None:
    service = ProgramService(dspy.Predict("question -> answer"), execution="native", served=True)
    with dspy.context(lm=sim.lm()):
        for _ in range(5):
            await door.run(service, Call({"question": "What is Rust?"}, stream=stream))
        gc.collect()
        gc.disable()
        try:
            for _ in range(20):
                await door.run(service, Call({"question": "What is Rust?"}, stream=stream))
            left = gc.collect()
        finally:
            gc.enable()
    # The simulated LM runs in a thread of this process and may leave some of its own.
    assert left < 20 * 10
