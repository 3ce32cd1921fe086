"""DSPy programs of the kinds that front ends show, over a simulated LM on a socket of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import dspy
from tests.server.support import Live, serving

from dspy_live import LM, create_app, emit
from dspy_live.simulator import Simulator


class Typed(dspy.Signature):
    """Answer, and say how sure you are."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()
    score: int = dspy.OutputField()
    tags: list[str] = dspy.OutputField()


class Chat(dspy.Signature):
    """Go on with the conversation."""

    question: str = dspy.InputField()
    history: dspy.History = dspy.InputField()
    answer: str = dspy.OutputField()


class See(dspy.Signature):
    """Say what is in the photo."""

    photo: dspy.Image = dspy.InputField()
    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


def double(number: int) -> int:
    """Return twice the number."""
    return 2 * number


def broken(number: int) -> int:
    """Fail, with something in the message that nobody may read."""
    raise ValueError(f"no {number} with the key sk-secret-1234567890")


class Agent(dspy.Module):
    """Calls two tools, one of which fails, and answers."""

    def __init__(self) -> None:
        super().__init__()
        self.say = dspy.ChainOfThought(Typed)
        self.double = dspy.Tool(double)
        self.broken = dspy.Tool(broken)

    async def aforward(self, question: str) -> dspy.Prediction:
        found = await self.double.acall(number=21)
        with contextlib.suppress(ValueError):
            await self.broken.acall(number=1)
        emit("note", {"found": found})
        return await self.say.acall(question=f"{question} ({found})")


class Fails(dspy.Module):
    """Raises an error with a secret in it."""

    def forward(self, question: str) -> dspy.Prediction:
        raise RuntimeError("the password is hunter2")


@dataclass(frozen=True, slots=True)
class Served:
    """A server of these programs, and the LM behind it."""

    live: Live
    lm: Simulator


def programs() -> dict[str, Any]:
    """The programs by name."""
    return {
        "qa": dspy.ChainOfThought("question -> answer"),
        "typed": dspy.Predict(Typed),
        "chat": dspy.Predict(Chat),
        "see": dspy.Predict(See),
        "agent": Agent(),
        "fails": Fails(),
    }


@contextlib.contextmanager
def served(**options: Any) -> Iterator[Served]:
    """Serve the programs. The question's ``[sim …]`` marker says what the LM does."""
    simulator = Simulator(seed=1, length=12)
    simulator.keep_requests = True
    with simulator.running() as url:
        lm = LM("openai/sim", api_base=url, api_key="none", cache=False, num_retries=0)
        made = programs()
        for program in made.values():
            program.set_lm(lm)
        with serving(create_app(made, **options)) as live:
            yield Served(live, simulator)
