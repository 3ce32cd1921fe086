"""Ask many questions at once: one program, wrapped once, any number of concurrent calls.

python examples/many_at_once.py
"""

from __future__ import annotations

import asyncio
import time

import dspy

import dspy_live

dspy.configure(lm=dspy_live.LM("openai/gpt-4o-mini"))

ask = dspy_live.asyncify(dspy.ChainOfThought("question -> answer"))


async def main() -> None:
    questions = [f"What is the square of {n}?" for n in range(20)]
    started = time.perf_counter()
    predictions = await asyncio.gather(*(ask(question=question) for question in questions))
    for question, prediction in zip(questions[:3], predictions, strict=False):
        print(f"{question}  {prediction.answer}")
    print(f"{len(predictions)} answers in {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    asyncio.run(main())
