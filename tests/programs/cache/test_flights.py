"""Identical LM calls at once: one asks, the others find its reply."""

from __future__ import annotations

import asyncio

import pytest

from dspy_live.programs.cache.flights import Flights
from dspy_live.testing.virtual_time import virtual_time


class Asker:
    """Looks up, asks for 10 seconds, stores: as the engine does it."""

    def __init__(self, fails: bool = False) -> None:
        self.flights = Flights()
        self.kept: dict[str, str] = {}
        self.requests = 0
        self.fails = fails

    async def ask(self, key: str = "a") -> str:
        async with self.flights.turn(key):
            if key in self.kept:
                return self.kept[key]
            self.requests += 1
            await asyncio.sleep(10)
            if self.fails:
                raise ValueError("the LM fails")
            self.kept[key] = "reply"
            return self.kept[key]


def now() -> float:
    return asyncio.get_running_loop().time()


@virtual_time
async def test_identical_calls_make_one_request_and_others_their_own() -> None:
    asker = Asker()
    assert await asyncio.gather(*(asker.ask() for _ in range(20)), asker.ask("b")) == ["reply"] * 21
    assert (asker.requests, now()) == (2, 10)
    assert not asker.flights._flying


@virtual_time
async def test_when_the_first_caller_leaves_another_takes_over() -> None:
    asker = Asker()
    tasks = [asyncio.create_task(asker.ask()) for _ in range(3)]
    await asyncio.sleep(5)
    tasks[0].cancel()
    assert await asyncio.gather(*tasks[1:]) == ["reply"] * 2
    assert (asker.requests, now()) == (2, 15)


@virtual_time
async def test_one_that_waits_and_leaves_disturbs_nobody() -> None:
    asker = Asker()
    tasks = [asyncio.create_task(asker.ask()) for _ in range(3)]
    await asyncio.sleep(5)
    tasks[1].cancel()
    assert await tasks[0] == await tasks[2] == "reply"
    assert tasks[1].cancelled()
    assert (asker.requests, now()) == (1, 10)


@virtual_time
async def test_after_a_failure_the_others_ask_at_once_and_not_one_after_the_other() -> None:
    asker = Asker(fails=True)
    results = await asyncio.gather(*(asker.ask() for _ in range(20)), return_exceptions=True)
    assert all(isinstance(result, ValueError) for result in results)
    assert (asker.requests, now()) == (20, 20)
    with pytest.raises(ValueError, match="the LM fails"):
        await asker.ask()
