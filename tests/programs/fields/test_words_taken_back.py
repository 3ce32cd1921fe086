"""A door that can't take words back ends the run at the ``Restart``, before anybody is asked again."""

from __future__ import annotations

import asyncio
from typing import Any

import dspy
import pytest
from tests.programs.conftest import Sim

from dspy_live.core.call import Call
from dspy_live.core.errors import StreamBroken
from dspy_live.core.events import Event, Restart, Token
from dspy_live.layers import Fallback, Retry
from dspy_live.programs.lm import layers
from dspy_live.programs.run.program import ProgramService
from dspy_live.runtime.runtime import Runtime
from dspy_live.runtime.scope import Scope
from dspy_live.sansio.limits.backoff import Backoff
from dspy_live.simulator import Faults

QA = "question -> answer"


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "_BACKOFF", Backoff(base=0.001, cap=0.002))


class Door:
    """Gives words out at once; ends the run through its scope when they are taken back, unless it is patient."""

    def __init__(self, scope: Scope, patient: bool) -> None:
        self.scope = scope
        self.patient = patient
        self.words = ""

    def push(self, event: Event) -> bool:
        if isinstance(event, Token):
            self.words += event.text
        elif isinstance(event, Restart) and not self.patient:
            self.scope.fail(StreamBroken(event.reason))
        return self.scope.error is None

    async def room(self) -> None:
        if self.scope.error is not None:
            await asyncio.Event().wait()


async def behind_a_door(service: Any, patient: bool) -> str:
    with Scope() as scope:
        door = Door(scope, patient)
        await service(Call({"question": "What is Rust?"}), door)
    return door.words


class Falls(dspy.ChatAdapter):  # type: ignore[misc]
    """Streams as ChatAdapter does, and then can't read the reply: DSPy falls back to JSON."""

    def parse(self, signature: Any, completion: str) -> Any:
        from dspy.utils.exceptions import AdapterParseError

        raise AdapterParseError("Falls", signature, completion)


@pytest.mark.parametrize("patient", [False, True])
@pytest.mark.parametrize("way", ["native", "thread", "inline"])
@pytest.mark.parametrize("again", ["the LM's retries", "a retry layer", "a fallback layer", "another adapter"])
async def test_nobody_is_asked_again(sim: Sim, way: Any, again: str, patient: bool) -> None:
    lm_layers = {"a retry layer": [Retry(2)], "a fallback layer": [Fallback(sim.lm().service())]}.get(again, [])
    retries = 3 if again == "the LM's retries" else 0
    adapter = Falls() if again == "another adapter" else dspy.ChatAdapter()
    if again != "another adapter":
        sim.server.set_options(after=14)
        sim.server.set_faults(Faults(schedule=("cut",)))
    with dspy.context(lm=sim.lm(num_retries=retries), adapter=adapter):
        service = ProgramService(dspy.Predict(QA), execution=way, runtime=Runtime(lm_layers=lm_layers))
        if patient:
            assert await behind_a_door(service, patient)
        else:
            with pytest.raises(StreamBroken):
                await behind_a_door(service, patient)
    assert sim.server.stats.requests == 1 + patient
