"""The product's own services are put through the suites that users put theirs through."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dspy
import pytest

from dspy_live import LM
from dspy_live.core.call import Call
from dspy_live.core.service import Service
from dspy_live.layers import Breaker, Deadline, Limit, Retry, SingleFlight, Timeouts
from dspy_live.programs.lm.openai_endpoint import OpenAIEndpoint
from dspy_live.programs.run.program import ProgramService
from dspy_live.runtime.http.transport import Timeouts as SocketTimeouts
from dspy_live.runtime.runtime import Runtime
from dspy_live.simulator import Simulator
from dspy_live.simulator.endpoint import SimulatedEndpoint
from dspy_live.testing import ServiceConformance

MESSAGES = [{"role": "user", "content": "What is Rust?"}]


def lm() -> LM:
    return LM("openai/simulated", endpoint=SimulatedEndpoint(), cache=False)


class ProgramConformance(ServiceConformance):
    execution: Any

    def make_service(self) -> Service:
        return ProgramService(dspy.Predict("question -> answer"), execution=self.execution, overrides={"lm": lm()})

    def make_call(self) -> Call:
        return Call({"question": "What is Rust?"})


class TestNative(ProgramConformance):
    execution = "native"


class TestThread(ProgramConformance):
    execution = "thread"


class TestInline(ProgramConformance):
    execution = "inline"


class TestLayersAroundTheProgramAndItsLM(ProgramConformance):
    """All of it together: limits around the program, others around its LM."""

    def make_service(self) -> Service:
        runtime = Runtime(
            layers=[Deadline(30), SingleFlight(lambda call: call.id), Limit(3)],
            lm_layers=[Retry(2), Breaker(), Limit(4), Timeouts(first_token=10, idle=10)],
        )
        program = dspy.Predict("question -> answer")
        return ProgramService(program, execution="native", overrides={"lm": lm()}, runtime=runtime).layered()


class TestSimulatedLM(ServiceConformance):
    def make_service(self) -> Service:
        return SimulatedEndpoint()

    def make_call(self) -> Call:
        return Call({"model": "m", "messages": MESSAGES})


class TestLMOverASocket(ServiceConformance):
    url: str

    @pytest.fixture(autouse=True)
    def _server(self) -> Iterator[None]:
        with Simulator(seed=1).running() as url:
            self.url = url if url.endswith("/v1") else f"{url}/v1"
            yield

    def make_service(self) -> Service:
        timeouts = SocketTimeouts(30.0, 30.0, 30.0)
        headers = {"Content-Type": "application/json"}
        return OpenAIEndpoint(f"{self.url}/chat/completions", headers, "m", timeouts, "openai/m")

    def make_call(self) -> Call:
        return Call({"model": "m", "messages": MESSAGES})
