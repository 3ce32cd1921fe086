"""The simulator's own HTTP: what is no request, what is too large, and one timer for all."""

from __future__ import annotations

import asyncio

import pytest
from tests.simulator.wire import ask, chat, connected

from dspy_live.simulator import Simulator
from dspy_live.simulator.ticker import Ticker


async def test_bytes_that_are_no_http_are_answered_and_the_connection_closes() -> None:
    async with Simulator() as sim, connected(sim.url) as client:
        client.writer.write(b"hello?\r\n\r\n")
        answer = await client.receive()
        assert answer.status == 400
        assert await client.reader.read() == b""


async def test_a_body_over_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dspy_live.simulator.connection._MOST_BODY", 1000)
    async with Simulator() as sim:
        assert (await ask(sim.url, b"x" * 1000)).status == 400
        assert (await ask(sim.url, b"x" * 1001)).status == 413


async def test_a_client_may_ask_first_whether_to_send() -> None:
    async with Simulator() as sim, connected(sim.url) as client:
        await client.send("POST", "/v1/chat/completions", chat(), Expect="100-continue")
        assert (await client.head()).status == 100
        assert (await client.receive()).status == 200


async def test_a_client_that_would_rather_speak_another_protocol_is_answered() -> None:
    async with Simulator() as sim, connected(sim.url) as client:
        for _ in range(2):
            await client.send(
                "POST", "/v1/chat/completions", chat(), Upgrade="h2c", Connection="Upgrade, HTTP2-Settings"
            )
            assert (await client.receive()).status == 200


async def test_stopping_waits_for_every_connection() -> None:
    sim = Simulator()
    url = await sim.start()
    async with connected(url) as one, connected(url) as two:
        for client in (one, two):
            await client.send("GET", "/v1/models")
            await client.receive()
        await sim.stop()
        assert sim.snapshot()["open_connections"] == 0
    await sim.stop()


class Clock:
    """The part of a loop that a ticker uses, moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, asyncio.TimerHandle]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: object) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, (), self)  # type: ignore[arg-type]
        self.timers.append((when, handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None: ...

    def get_debug(self) -> bool:
        return False

    def advance(self, to: float) -> None:
        while True:
            due = [(when, handle) for when, handle in self.timers if when <= to and not handle.cancelled()]
            if not due:
                break
            when, handle = min(due, key=lambda item: item[0])
            self.timers.remove((when, handle))
            self.now = max(self.now, when)
            handle._run()
        self.now = to


def test_the_ticker_is_never_early_and_wakes_due_callbacks_together() -> None:
    clock = Clock()
    ticker = Ticker(clock)  # type: ignore[arg-type]
    called: list[tuple[str, float]] = []
    for name, due in (("c", 0.5), ("a", 0.1), ("b", 0.1003), ("d", 0.5)):
        ticker.at(due, lambda name=name: called.append((name, clock.now)))
    clock.advance(0.0999)
    assert called == []
    clock.advance(0.1001)
    assert [name for name, _ in called] == ["a", "b"]
    clock.advance(1.0)
    assert called[2:] == [("c", 0.5), ("d", 0.5)]
    ticker.at(0.2, lambda: called.append(("late", clock.now)))
    clock.advance(1.0)
    assert called[-1] == ("late", 1.0)


def test_a_closed_ticker_calls_nobody() -> None:
    clock = Clock()
    ticker = Ticker(clock)  # type: ignore[arg-type]
    called: list[int] = []
    ticker.at(0.1, lambda: called.append(1))
    ticker.close()
    clock.advance(1.0)
    assert called == []
