"""Answers a question with an LM over the guides' passages: the assistant's own DSPy program."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import dspy

from dspy_live.assistant.guides import Passage
from dspy_live.programs.api.streamify import streamify


class AnswerFromGuides(dspy.Signature):
    """Answer a question about dspy-live from its guides, and from nothing else.

    Be brief. Use the passages' own names of functions and options. When the passages do not answer the question,
    say so. Show code only from the passages, unchanged. After each statement, name the section that it comes from in
    brackets, as it stands at the beginning of its passage.
    """

    passages: list[str] = dspy.InputField(desc="sections of the guides; each begins with [page: section]")
    question: str = dspy.InputField()
    answer: str = dspy.OutputField(desc="in Markdown, at most three short paragraphs")


class Assistant(dspy.Module):
    """Answers from passages; it makes one LM call."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = dspy.Predict(AnswerFromGuides)

    async def aforward(self, question: str, passages: list[str]) -> Any:
        """Answer one question."""
        return await self.answer.acall(question=question, passages=passages)


async def answer_from(question: str, passages: Sequence[Passage], lm: Any) -> AsyncIterator[str]:
    """Yield the answer's text as it arrives, by our own streaming.

    Leaving the iteration closes the LM's connection. Raises what the LM raises.
    """
    texts = [f"[{passage.place}]\n{passage.text}" for passage in passages]
    stream = streamify(Assistant())
    with dspy.context(lm=lm):
        items = stream(question=question, passages=texts)
        async for item in items:
            if isinstance(item, str):
                yield item
