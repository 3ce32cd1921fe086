"""Run a program over many inputs: results in order, errors kept with their item, resumable, with the bill at the end.

python examples/batch_reviews.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal

import dspy

import dspy_live

dspy.configure(lm=dspy_live.LM("openai/gpt-4o-mini"))


class Review(dspy.Signature):
    """Say what the reviewer thinks."""

    review: str = dspy.InputField()
    sentiment: Literal["good", "bad", "mixed"] = dspy.OutputField()
    summary: str = dspy.OutputField()


class Reviews(dspy.Module):
    """Judges one review; an empty one is an error of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.judge = dspy.Predict(Review)

    def forward(self, review: str) -> dspy.Prediction:
        if not review:
            raise ValueError("there is nothing in this review")
        return self.judge(review=review)


def main() -> None:
    inputs = [{"review": f"Number {n} was quite good, and a little too long."} for n in range(40)] + [{"review": ""}]
    with tempfile.TemporaryDirectory() as folder, dspy_live.UsageTracker() as tracker:
        checkpoint = Path(folder) / "reviews.checkpoint"
        results = dspy_live.batch(Reviews(), inputs, concurrency=16, checkpoint=checkpoint)
        first = tracker.get_stats()
        # The second time only what has failed is asked again.
        dspy_live.batch(Reviews(), inputs, concurrency=16, checkpoint=checkpoint)
        second = tracker.get_stats()
    failed = [result for result in results if isinstance(result, dspy_live.BatchError)]
    print(f"{len(results) - len(failed)} done, {len(failed)} failed: {failed[0]}")
    print("first:", results[0].sentiment, "-", results[0].summary)
    print(f"{first['api_calls']} LM calls and {first['total_tokens']} tokens; the second time")
    print(f"{second['api_calls'] - first['api_calls']} LM calls")


if __name__ == "__main__":
    main()
