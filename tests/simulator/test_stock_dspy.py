"""DSPy's own LM talks to the simulator as to any OpenAI-compatible endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dspy
import pytest

from dspy_live.simulator import Simulator

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def sim() -> Iterator[Simulator]:
    simulator = Simulator(seed=1)
    with simulator.running():
        yield simulator


def stock(url: str, **more: Any) -> dspy.LM:
    return dspy.LM("openai/simulated", api_base=url, api_key="any", cache=False, num_retries=0, **more)


@pytest.mark.parametrize("adapter", [dspy.ChatAdapter(), dspy.JSONAdapter(), dspy.XMLAdapter()])
def test_a_program_over_the_socket(sim: Simulator, adapter: Any) -> None:
    lm = stock(sim.url)
    with dspy.context(lm=lm, adapter=adapter, track_usage=True):
        prediction = dspy.ChainOfThought("question -> answer, sure: bool")(question="Why do tides turn?")
    assert "tides" in prediction.answer
    assert isinstance(prediction.sure, bool)
    served = sim.stats.models["simulated"]
    usage = prediction.get_lm_usage()["openai/simulated"]
    assert usage["total_tokens"] == served.prompt_tokens + served.completion_tokens
    assert served.replies == 1


def test_a_broken_format_makes_the_adapter_fall_back(sim: Simulator) -> None:
    sim.next(fault="wrong_format")
    with dspy.context(lm=stock(sim.url), adapter=dspy.ChatAdapter()):
        prediction = dspy.Predict("question -> answer")(question="Why do tides turn?")
    assert "tides" in prediction.answer
    assert sim.stats.requests == 2


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("429", "LMRateLimitError"),
        ("401", "LMAuthError"),
        ("context", "ContextWindowExceededError"),
        ("500", "LMServerError"),
    ],
)
def test_refusals_become_dspys_own_errors(sim: Simulator, fault: str, error: str) -> None:
    sim.next(fault=fault)
    with dspy.context(lm=stock(sim.url)), pytest.raises(Exception) as caught:
        dspy.Predict("question -> answer")(question="Why?")
    assert type(caught.value).__name__ == error


async def test_dspys_streaming_reads_it(sim: Simulator) -> None:
    listener = dspy.streaming.StreamListener(signature_field_name="answer")
    program = dspy.streamify(dspy.Predict("question -> answer"), stream_listeners=[listener])
    said, prediction = "", None
    with dspy.context(lm=stock(sim.url), adapter=dspy.ChatAdapter()):
        async for item in program(question="Why do tides turn?"):
            if isinstance(item, dspy.Prediction):
                prediction = item
            elif isinstance(item, dspy.streaming.StreamResponse):
                said += item.chunk
    assert prediction is not None
    assert said.strip() == prediction.answer
