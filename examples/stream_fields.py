"""Stream a program with two predictors, field by field, with its status in between.

python examples/stream_fields.py
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

import dspy

import dspy_live

dspy.configure(lm=dspy_live.LM("openai/gpt-4o-mini"))


class Research(dspy.Module):
    """Plans what to look at, then writes."""

    def __init__(self) -> None:
        super().__init__()
        self.plan = dspy.Predict("topic -> outline")
        self.write = dspy.ChainOfThought("topic, outline -> article, keywords: list[str]")

    def forward(self, topic: str) -> dspy.Prediction:
        outline = self.plan(topic=topic).outline
        return self.write(topic=topic, outline=outline)


class Progress(dspy_live.StatusMessageProvider):
    """Tells which part of the program is at work."""

    def get_status_message(self, module_name: str, status: str) -> str | None:
        return f"{module_name} {status}"


stream = dspy_live.streamify(Research(), status_message_provider=Progress())


async def main() -> None:
    texts: dict[tuple[str, str], str] = defaultdict(str)
    async for item in stream(topic="small buffers"):
        if isinstance(item, dspy_live.Restart):
            # The LM call was tried again: what it has said so far is void.
            for key in [k for k in texts if k[0] == item.predictor and (not item.fields or k[1] in item.fields)]:
                del texts[key]
        elif isinstance(item, str):
            texts[item.predict_name, item.signature_field_name] += item
        elif isinstance(item, dspy.Prediction):
            for (predictor, field), text in texts.items():
                print(f"{predictor}.{field}: {text}")
            print("the same as the prediction:", texts["write.predict", "article"] == item.article)
            print("keywords:", ", ".join(item.keywords))
        elif hasattr(item, "message"):
            print(f"[{item.message}]")


if __name__ == "__main__":
    asyncio.run(main())
