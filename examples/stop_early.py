"""Stop a stream in the middle, and give a call so many seconds. The connection to the LM is closed at once.

python examples/stop_early.py
"""

from __future__ import annotations

import asyncio

import dspy

import dspy_live
from dspy_live.core.errors import DeadlineExceeded

dspy.configure(lm=dspy_live.LM("openai/gpt-4o-mini", cache=False))

program = dspy.Predict("topic -> essay")
stream = dspy_live.streamify(program)
hurried = dspy_live.asyncify(program, timeout=0.001)


async def main() -> None:
    tokens = 0
    async for item in stream(topic="rivers"):
        tokens += isinstance(item, str)
        if tokens == 5:
            break
    print(f"left after {tokens} tokens")
    try:
        await hurried(topic="rivers")
    except DeadlineExceeded as exc:
        print(f"stopped: {exc}")


if __name__ == "__main__":
    asyncio.run(main())
