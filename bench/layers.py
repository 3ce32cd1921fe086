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
from dspy_live.core.events import Completion, Result, TextDelta
from dspy_live.core.service import Layer, Service, compose
from dspy_live.core.sink import DISCARD, Sink
from dspy_live.layers import (
    Adaptive,
    Breaker,
    Budget,
    Cache,
    Deadline,
    Detached,
    Fallback,
    Limit,
    Rate,
    Retry,
    Shed,
    SingleFlight,
    Timeouts,
)
from dspy_live.runtime.channel import Channel, read

CALLS = 2000
EVENTS = 100
ROUNDS = 9
TOKEN = TextDelta("word ")
DONE = Completion({})


async def one(call: Call, sink: Sink) -> Result:
    return DONE


async def many(call: Call, sink: Sink) -> Result:
    for _ in range(EVENTS):
        sink.push(TOKEN)
    return DONE


LAYERS: dict[str, Callable[[], list[Layer]]] = {
    "shed": lambda: [Shed(100)],
    "deadline": lambda: [Deadline(60)],
    "detached": lambda: [Detached()],
    "single_flight": lambda: [SingleFlight(lambda call: call.id)],
    "cache (miss)": lambda: [Cache(key=lambda call: call.id)],
    "budget": lambda: [Budget(max_calls=10)],
    "fallback": lambda: [Fallback(one)],
    "retry": lambda: [Retry()],
    "breaker": lambda: [Breaker()],
    "rate (requests)": lambda: [Rate(requests_per_minute=1e12)],
    "rate (tokens)": lambda: [Rate(tokens_per_minute=1e15)],
    "limit": lambda: [Limit(10)],
    "adaptive": lambda: [Adaptive(10)],
    "timeouts": lambda: [Timeouts(first_token=60, idle=60)],
    "timeouts (first)": lambda: [Timeouts(first_token=60)],
    "retry, timeouts": lambda: [Retry(), Timeouts(first_token=60, idle=60)],
    "these four": lambda: [Deadline(60), Retry(), Limit(10), Timeouts(first_token=60, idle=60)],
}


async def cost(service: Service, calls: int) -> float:
    """Seconds of CPU per call, the best of several rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        made = [Call({}) for _ in range(calls)]
        began = time.process_time()
        for call in made:
            await service(call, DISCARD)
        best = min(best, (time.process_time() - began) / calls)
    return best


async def read_cost(service: Service, calls: int) -> float:
    """As :func:`cost`, for a caller that reads the events."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(calls):
            async with read(service, Call({})) as reader:
                async for _ in reader:
                    pass
        best = min(best, (time.process_time() - began) / calls)
    return best


async def channel_cost(overflow: Any) -> tuple[float, float]:
    """Seconds per push with nobody waiting (50 per take), and per turn of push, wake-up and take."""
    channel = Channel(Buffer(overflow=overflow))
    best = turn = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(400):
            for _ in range(50):
                channel.push(TOKEN)
            await channel.receive_many()
        best = min(best, (time.process_time() - began) / 20_000)
        began = time.process_time()
        for _ in range(2000):
            reading = channel.receive_many()
            asyncio.get_running_loop().call_soon(channel.push, TOKEN)
            await reading
        turn = min(turn, (time.process_time() - began) / 2000)
    return best, turn


async def main() -> None:
    bare_one, bare_many = await cost(one, CALLS), await cost(many, CALLS // 20)
    print(f"{'layer':18}{'per call':>12}{'per event':>12}   (µs of CPU)")
    for name, make in LAYERS.items():
        call = await cost(compose(one, make()), CALLS) - bare_one
        event = (await cost(compose(many, make()), CALLS // 20) - bare_many - call) / EVENTS
        print(f"{name:18}{call * 1e6:12.1f}{max(0.0, event) * 1e6:12.2f}")
    call = await read_cost(one, CALLS // 4) - bare_one
    event = (await read_cost(many, CALLS // 20) - bare_many - call) / EVENTS
    print(f"{'read':18}{call * 1e6:12.1f}{max(0.0, event) * 1e6:12.2f}")
    for overflow in ("block", "coalesce", "drop_oldest"):
        push, turn = await channel_cost(overflow)
        print(f"channel, {overflow:12} {push * 1e6:.2f} µs per push, {turn * 1e6:.1f} µs for push, wake-up and take")


if __name__ == "__main__":
    asyncio.run(main())
