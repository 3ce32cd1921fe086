"""What a layer costs: microseconds of CPU per call, and per event where it looks at events.

Run it with ``python bench/layers.py``. The inner service costs next to nothing and is measured beside each
layer; what is printed is the difference. Best of several rounds: the machine may be busy.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from dspy_live.core.call import Buffer, Call
from dspy_live.core.events import Completion, TextDelta
from dspy_live.layers import (
    Adaptive,
    Breaker,
    Deadline,
    Fallback,
    Limit,
    Rate,
    Retry,
    Shed,
    SingleFlight,
    Timeouts,
)
from dspy_live.runtime.channel.channel import Channel

CALLS = 2000
ROUNDS = 7
LAYERS: dict[str, Callable[[], Any]] = {
    "shed": lambda: Shed(100),
    "deadline": lambda: Deadline(60),
    "single_flight": lambda: SingleFlight(lambda call: call.id),
    "fallback": lambda: Fallback(Service(1)),
    "retry": Retry,
    "breaker": Breaker,
    "rate (requests)": lambda: Rate(requests_per_minute=1e12),
    "rate (tokens)": lambda: Rate(tokens_per_minute=1e15),
    "limit": lambda: Limit(10),
    "adaptive": lambda: Adaptive(10),
    "timeouts": lambda: Timeouts(first_token=60, idle=60),
}


class Service:
    """Answers with so many events, in batches of one."""

    def __init__(self, events: int) -> None:
        self.events = [TextDelta("word ")] * (events - 1) + [Completion({})]

    def open(self, call: Call) -> Service:
        self.left = list(reversed(self.events))
        return self

    async def __aenter__(self) -> Any:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    def __aiter__(self) -> Any:
        return self

    async def receive_many(self) -> list[Any]:
        return [self.left.pop()] if self.left else []


async def cost(service: Any, calls: int) -> float:
    """Seconds of CPU per call, the best of several rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        made = [Call({}) for _ in range(calls)]
        began = time.process_time()
        for call in made:
            async with service.open(call) as receiver:
                while await receiver.receive_many():
                    pass
        best = min(best, (time.process_time() - began) / calls)
    return best


async def channel_cost(overflow: Any) -> tuple[float, float]:
    """Seconds per push with nobody waiting (50 per take), and per turn of push, wake-up and take."""
    channel = Channel(Buffer(overflow=overflow))
    token = TextDelta("word ")
    best = turn = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(400):
            for _ in range(50):
                channel.push(token)
            await channel.receiver.receive_many()
        best = min(best, (time.process_time() - began) / 20_000)
        began = time.process_time()
        for _ in range(2000):
            reading = channel.receiver.receive_many()
            asyncio.get_running_loop().call_soon(channel.push, token)
            await reading
        turn = min(turn, (time.process_time() - began) / 2000)
    return best, turn


async def main() -> None:
    one, many = Service(1), Service(101)
    bare_one, bare_many = await cost(one, CALLS), await cost(many, CALLS // 20)
    print(f"{'layer':18}{'per call':>12}{'per event':>12}   (µs of CPU)")
    for name, make in LAYERS.items():
        call = await cost(make()(one), CALLS) - bare_one
        event = (await cost(make()(many), CALLS // 20) - bare_many - call) / 100
        print(f"{name:18}{call * 1e6:12.1f}{max(0.0, event) * 1e6:12.2f}")
    for overflow in ("block", "coalesce", "drop_oldest"):
        push, turn = await channel_cost(overflow)
        print(f"channel, {overflow:12} {push * 1e6:.2f} µs per push, {turn * 1e6:.1f} µs for push, wake-up and take")


if __name__ == "__main__":
    asyncio.run(main())
