"""Count, limit and write down what a program uses: a tracker, a budget with an alert, a ledger.

python examples/what_it_cost.py
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import dspy

import dspy_live
from dspy_live.observe.ledger import open_ledger

dspy.configure(lm=dspy_live.LM("openai/gpt-4o-mini", cache=False))


class Report(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.research = dspy.ChainOfThought("topic -> findings")
        self.summary = dspy.Predict("findings -> summary")

    async def aforward(self, topic: str) -> Any:
        found = await self.research.acall(topic=topic)
        return await self.summary.acall(findings=found.findings)


report = dspy_live.asyncify(Report())


async def main() -> None:
    ledger = open_ledger(Path(tempfile.mkdtemp()) / "ledger.db").attach()

    with dspy_live.UsageTracker() as usage:
        await asyncio.gather(*(report(topic=topic) for topic in ("tides", "moss", "chess")))
    stats = usage.get_stats()
    print(f"{stats['api_calls']} LM calls, {stats['total_tokens']} tokens, ${stats['total_cost']:.5f}")
    for predictor, part in stats["by_predictor"].items():
        print(f"  {predictor}: {part['total_tokens']} tokens")

    budget = dspy_live.Budget(max_calls=3, on_alert=lambda alert: print("alert:", alert.message))
    try:
        with budget:
            for topic in ("salt", "bees"):
                await report(topic=topic)
    except Exception as error:
        print("stopped:", error)

    ledger.flush()
    for run in ledger.runs():
        print(f"  run {run['id'][:8]}: {run['total_tokens']} tokens, {run['error'] or 'ok'}")
    ledger.close()


if __name__ == "__main__":
    asyncio.run(main())
