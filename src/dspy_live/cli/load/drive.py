"""Drive a load: so many at once, one after the other (closed loop), or so many a second, come what may (open loop)."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

MOST_WAITING = 20_000
"""Runs that an open loop leaves unanswered at most: further ones are counted as ``not_sent``."""

Ask = Callable[[int, "Sample"], Awaitable[None]]


@dataclass(slots=True)
class Sample:
    """One run. Times are seconds of the loop's clock.

    ``due`` is when it was to begin: an open loop's latency counts from then, so that a server that stalls
    is not spared the runs that would have begun meanwhile. ``error`` is the error's code.
    """

    due: float
    ended: float = 0.0
    first: float | None = None
    tokens: int = 0
    error: str | None = None

    @property
    def latency(self) -> float:
        """Seconds from when it was due to its end."""
        return self.ended - self.due


@dataclass(slots=True)
class Load:
    """All runs of a load; ``samples`` grows as they end."""

    started: float = 0.0
    ended: float = 0.0
    samples: list[Sample] = field(default_factory=list)
    interrupted: bool = False


async def drive(
    ask: Ask, *, seconds: float, concurrency: int = 32, rate: float | None = None, requests: int | None = None
) -> Load:
    """Load until ``seconds`` have passed or ``requests`` runs have begun, then wait for those under way.

    Args:
        ask: makes the run of a number and notes first token, tokens and error in its sample; it must not raise.
        seconds: how long runs are begun.
        concurrency: of the closed loop: how many are under way at any time.
        rate: runs a second of the open loop; with it ``concurrency`` has no meaning.
        requests: the most runs, ``None`` for no limit.

    Cancelling it ends the load early and returns what there is.
    """
    loop = asyncio.get_running_loop()
    load = Load(started=loop.time())
    numbers: Iterator[int] = itertools.count() if requests is None else iter(range(requests))
    try:
        if rate is None:
            ends = load.started + seconds
            async with asyncio.TaskGroup() as workers:
                for _ in range(concurrency):
                    workers.create_task(_worker(ask, numbers, ends, load))
        else:
            await _open_loop(ask, numbers, rate, seconds, load)
    except asyncio.CancelledError:
        load.interrupted = True
    load.ended = loop.time()
    return load


async def _worker(ask: Ask, numbers: Iterator[int], ends: float, load: Load) -> None:
    loop = asyncio.get_running_loop()
    for number in numbers:
        if loop.time() >= ends:
            return
        await _one(ask, number, Sample(loop.time()), load)


async def _open_loop(ask: Ask, numbers: Iterator[int], rate: float, seconds: float, load: Load) -> None:
    loop = asyncio.get_running_loop()
    begun = 0
    async with asyncio.TaskGroup() as runs:
        for number in numbers:
            due = load.started + number / rate
            if number / rate >= seconds:
                break
            if (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            if begun - len(load.samples) >= MOST_WAITING:
                load.samples.append(Sample(due, loop.time(), error="not_sent"))
            else:
                runs.create_task(_one(ask, number, Sample(due), load))
            begun += 1


async def _one(ask: Ask, number: int, sample: Sample, load: Load) -> None:
    await ask(number, sample)
    sample.ended = asyncio.get_running_loop().time()
    load.samples.append(sample)
