"""A run leaves no cycles behind: a server that makes thousands a second would otherwise live on its collector."""

from __future__ import annotations

import asyncio
import gc
import weakref
from contextlib import suppress
from typing import Any

import dspy
import pytest
from dspy.utils.exceptions import LMServerError
from tests.programs.conftest import Sim

from dspy_live import streamify
from dspy_live.core.call import Call
from dspy_live.core.sink import DISCARD
from dspy_live.programs.run.program import ProgramService
from dspy_live.simulator import Faults


@pytest.mark.parametrize("stream", [False, True])
async def test_a_run_leaves_nothing_for_the_collector(sim: Sim, stream: bool) -> None:
    service = ProgramService(dspy.Predict("question -> answer"), execution="native", served=True)
    with dspy.context(lm=sim.lm()):
        for _ in range(5):
            await service(Call({"question": "What is Rust?"}, stream=stream), DISCARD)
        gc.collect()
        gc.disable()
        try:
            found_again = gc.collect()  # closed event loops of uvloop's, which no collection frees
            for _ in range(20):
                await service(Call({"question": "What is Rust?"}, stream=stream), DISCARD)
            left = gc.collect() - found_again
        finally:
            gc.enable()
    # The simulated LM runs in a thread of this process and may leave some of its own.
    assert left < 20 * 10


class Document(str):
    """A large input."""


@pytest.mark.parametrize("fault", [None, "500"])
async def test_a_kept_connection_keeps_nothing_of_its_run(sim: Sim, fault: Any) -> None:
    """The socket's callbacks held the context of the run that had opened it: its inputs, its result, its traceback."""
    ask = streamify(dspy.Predict("question -> answer"), buffer=1)
    document = Document("What is Rust?")
    gone = weakref.ref(document)
    with dspy.context(lm=sim.lm(num_retries=0), trace=[], disable_history=True):
        sim.server.set_faults(Faults(schedule=(None, fault)))
        for _ in range(2):
            with suppress(LMServerError):
                async for _ in ask(question=document):
                    await asyncio.sleep(0)
    del document
    gc.collect()
    assert sim.server.snapshot()["open_connections"] > 0
    assert gone() is None


async def test_a_served_run_leaves_nothing_in_dspys_trace(sim: Sim) -> None:
    """DSPy keeps the inputs and results of the last 10,000 predictions: a server would hold that many for nobody."""
    service = ProgramService(dspy.Predict("question -> answer"), execution="native", served=True)
    with dspy.context(lm=sim.lm(), trace=[]):
        await service(Call({"question": "What is Rust?"}), DISCARD)
        assert dspy.settings.trace == []
