"""One run for the host: credits bound what is sent, and the result comes last, before the end."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from dspy_live.core.errors import LMFailed
from dspy_live.core.events import Event, Partial, Predicted, Started, Status, Token, Usage
from dspy_live.embed.outbox import Outbox
from dspy_live.embed.run import HostRun
from dspy_live.embed.wire import Start
from dspy_live.testing.scripted import Attempt, ScriptedService


class Host:
    """The host's side of one run."""

    def __init__(self, **options: Any) -> None:
        self.service = ScriptedService()
        self.replies: list[list[Any]] = []
        self.outbox = Outbox(self._deliver, asyncio.get_running_loop())
        self.run = HostRun(Start(1, 1, {}, **{"stream": True, **options}), self.service, self.outbox)
        self.task = asyncio.create_task(self.run.drive({}))
        self.task.add_done_callback(lambda _: self.run.report())

    def _deliver(self, batch: bytes) -> None:
        self.replies += json.loads(batch)

    @property
    def types(self) -> list[str]:
        return [event["type"] for _, events, _ in self.replies for event in events]

    @property
    def end(self) -> Any:
        return next((end for _, _, end in self.replies if end is not None), None)

    async def attempt(self) -> Attempt:
        return await self.service.attempt()

    async def turns(self, n: int = 5) -> None:
        for _ in range(n):
            await asyncio.sleep(0)


def tokens(n: int) -> list[Event]:
    return [Token(f"{i} ", "answer", "p", 1) for i in range(n)]


async def test_spent_credits_make_the_sink_full_until_more_are_granted() -> None:
    host = Host(credits=2)
    attempt = await host.attempt()
    attempt.send(*tokens(1))
    assert not attempt.full
    attempt.send(*tokens(1))
    assert attempt.full
    waiting = asyncio.create_task(host.run.room())
    await host.turns()
    assert not waiting.done()
    host.run.credit(1)
    await waiting
    attempt.end()
    await host.task


async def test_a_fast_source_never_has_more_on_its_way_than_the_credits() -> None:
    host = Host(credits=4)
    attempt = await host.attempt()
    sent = stops = 0

    async def source() -> None:
        nonlocal sent, stops
        for event in tokens(500):
            sent += 1
            if not host.run.push(event):
                stops += 1
                await host.run.room()

    pushing = asyncio.create_task(source())
    taken = 0
    while not pushing.done():
        await host.turns(20)  # the reader has stopped: nothing is sent but what it gave credit for
        assert sent - taken <= 4
        assert len(host.types) == sent, "nothing waits in the run"
        read_on = 1 + taken % 4
        taken += read_on
        host.run.credit(read_on)
    assert stops > 100
    host.run.credit(10)
    attempt.end()
    await host.task
    await host.turns()
    texts = [event["text"] for _, events, _ in host.replies for event in events if event["type"] == "token"]
    assert texts == [f"{i} " for i in range(500)]


async def test_events_without_credit_are_kept_and_sent_in_order_as_credits_come() -> None:
    host = Host(credits=2)
    attempt = await host.attempt()
    attempt.send(Started("r"), *tokens(4))
    await host.turns()
    assert host.types == ["started", "token"]
    host.run.credit(1)
    await host.turns()
    assert host.types == ["started", "token", "token"]
    assert not host.run.push(Status("working")), "a token still waits"
    host.run.credit(10)
    attempt.end(Predicted({"answer": "0 1 2 3 "}, value=object()))
    await host.task
    await host.turns()
    assert host.types == ["started", *["token"] * 4, "status", "prediction"]
    assert [e["text"] for _, events, _ in host.replies for e in events if e["type"] == "token"] == [
        "0 ",
        "1 ",
        "2 ",
        "3 ",
    ]
    assert host.end is True


async def test_the_result_waits_for_a_credit_and_comes_before_the_end() -> None:
    host = Host(credits=1)
    attempt = await host.attempt()
    attempt.send(Started("r"))
    attempt.end(Predicted({"answer": "x"}))
    await host.turns()
    assert host.types == ["started"]
    assert host.end is None
    host.run.credit(1)
    await host.task
    await host.turns()
    assert host.types == ["started", "prediction"]
    assert host.replies[-1][1:] == [[], True]


async def test_a_failure_comes_after_the_events_before_it() -> None:
    host = Host(credits=1)
    attempt = await host.attempt()
    attempt.send(Started("r"), *tokens(1))
    attempt.fail(LMFailed("the LM is down"))
    await host.turns()
    assert host.end is None
    host.run.credit(1)
    await host.task
    await host.turns()
    assert host.types == ["started", "token"]
    assert host.end["code"] == "lm_failed"


async def test_a_failure_that_has_no_text_has_its_kind() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("this exception can't be shown")

    host = Host()
    attempt = await host.attempt()
    attempt.fail(Mute())
    await host.task
    await host.turns()
    assert host.end["kind"].endswith("Mute")
    assert host.end["message"].endswith("Mute")
    assert host.end["code"] == "program_failed"


async def test_a_run_that_is_cancelled_while_its_events_wait_ends_as_cancelled() -> None:
    host = Host(credits=1)
    attempt = await host.attempt()
    attempt.send(Started("r"), *tokens(1))
    attempt.end()
    await host.turns()
    host.task.cancel()
    await asyncio.wait([host.task])
    await host.turns()
    assert host.end["code"] == "cancelled"


async def test_only_the_named_fields_are_sent() -> None:
    host = Host(fields=["answer"])
    attempt = await host.attempt()
    attempt.send(Started("r"), Token("a", "reasoning", "p", 1), Partial(1, "score", "p", 1), *tokens(1))
    attempt.end()
    await host.task
    await host.turns()
    assert host.types == ["started", "token", "prediction"]


async def test_without_a_stream_only_usage_and_the_result_are_sent() -> None:
    host = Host(stream=False)
    attempt = await host.attempt()
    attempt.send(Started("r"), Status("working"), Usage("m", "p", 1))
    attempt.end(Predicted({"answer": "x"}))
    await host.task
    await host.turns()
    assert host.types == ["usage", "prediction"]


async def test_all_of_one_turn_of_the_loop_crosses_as_one_reply() -> None:
    host = Host()
    attempt = await host.attempt()
    attempt.send(*tokens(50))
    await host.turns(1)
    assert [len(events) for _, events, _ in host.replies] == [50]
    attempt.end()
    await host.task
