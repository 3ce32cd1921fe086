"""The program of the examples: it sorts a customer's message and drafts a reply."""

from __future__ import annotations

from typing import Literal

import dspy


class Sort(dspy.Signature):
    """Sort a customer's message."""

    message: str = dspy.InputField()
    topic: Literal["delivery", "refund", "product", "other"] = dspy.OutputField()
    urgent: bool = dspy.OutputField()


class Reply(dspy.Signature):
    """Draft a friendly reply to a customer's message."""

    message: str = dspy.InputField()
    topic: str = dspy.InputField()
    reply: str = dspy.OutputField()


class Desk(dspy.Module):
    """Two LM calls, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.sort = dspy.Predict(Sort)
        self.draft = dspy.Predict(Reply)

    async def aforward(self, message: str) -> dspy.Prediction:
        sorted_ = await self.sort.acall(message=message)
        drafted = await self.draft.acall(message=message, topic=sorted_.topic)
        return dspy.Prediction(topic=sorted_.topic, urgent=sorted_.urgent, reply=drafted.reply)


desk = Desk()
