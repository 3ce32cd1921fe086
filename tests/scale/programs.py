"""Programs for replicas and workers on Ray. A question tells what happens to the process that answers it."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import dspy

# What the LM is asked is counted; an answer of the disk's cache would not be.
dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)


class Answer(dspy.Module):
    """Answers with the LM; ``die`` kills its process, once where ``ONCE`` names a file that remembers it."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    async def aforward(self, question: str) -> dspy.Prediction:
        if question == "pid":
            return dspy.Prediction(answer=str(os.getpid()))
        if question.startswith("die"):
            _die_once(question.removeprefix("die").strip())
        return await self.ask.acall(question=question)


class Weighing(dspy.Module):
    """Answers with the most megabytes that its process has had, and asks no LM."""

    async def aforward(self, question: str) -> dspy.Prediction:
        return dspy.Prediction(answer=str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10))


def _die_once(mark: str) -> None:
    if mark:
        try:
            Path(mark).touch(exist_ok=False)
        except FileExistsError:
            return
    os.kill(os.getpid(), signal.SIGKILL)


program = Answer()
weighing = Weighing()
