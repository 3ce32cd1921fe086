"""A scripted program whose text is taken back in the middle, as a retry and a second LM call do."""

from __future__ import annotations

from tests.server.support import USAGE, Tape

from dspy_live.core.call import Call
from dspy_live.core.events import Partial, Predicted, Reasoning, Restart, Started, Tool

SAYS = {"reasoning": "Hm.", "answer": "The right words.", "score": 7}


async def takes_back(call: Call, tape: Tape) -> None:
    """Say something else, call a tool meanwhile, take the words back, and say the right ones."""
    await tape.push(Started(call.id), Reasoning("thinking", "predict", 1))
    await tape.tokens("Other words, which")
    await tape.push(
        Tool("look", "call", "t1", {"at": 1}),
        Tool("look", "result", "t1", result="seen"),
        Partial(6, "score", "predict", 1),
        Restart("predict", 1, "the LM's connection was lost"),
    )
    await tape.tokens("The right")
    await tape.tokens("The right words.", lm_call=2)
    await tape.push(Partial(7, "score", "predict", 2, True), USAGE, Predicted(SAYS))
