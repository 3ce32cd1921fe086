"""Pace and faults as arithmetic: no clock, no socket."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import pytest
from tests.simulator.wire import QUESTION, chat

from dspy_live.simulator.brain import Brain
from dspy_live.simulator.faults import Faults
from dspy_live.simulator.inprocess import InProcessLM
from dspy_live.simulator.options import Options, asked_for
from dspy_live.simulator.plan import Action, Plan


def actions(*, stream: bool = True, usage: bool = False, **options: Any) -> list[Action]:
    brain = Brain(3, Options().but({"length": 10, **options}))
    body = chat(stream)
    plan = Plan(brain.complete(body, brain.options_for({}, body)), brain.options, Random(1))
    return list(plan.stream(include_usage=usage) if stream else plan.whole())


def waits(made: list[Action]) -> list[float]:
    return [action.wait for action in made if action.tokens]


def test_without_pace_nothing_waits() -> None:
    assert {action.wait for action in actions(usage=True)} == {0.0}


def test_the_first_wait_is_the_first_tokens_and_the_others_the_pace() -> None:
    made = actions(ttft=0.5, tps=20)
    assert made[0].wait == 0.5
    assert waits(made) == [0.0] + [pytest.approx(0.05)] * 9
    assert sum(action.tokens for action in made) == 10


def test_chunks_of_several_tokens_take_the_time_of_several() -> None:
    assert waits(actions(tps=20, chunk=5)) == [0.0, pytest.approx(0.25)]


def test_a_plain_reply_takes_the_time_of_its_tokens() -> None:
    (only,) = actions(stream=False, ttft=0.5, tps=20)
    assert only.wait == pytest.approx(1.0)
    assert only.tokens == 10


def test_jitter_varies_by_its_share_and_the_same_way_each_time() -> None:
    made = waits(actions(tps=20, jitter=0.5, length=200))
    assert made == waits(actions(tps=20, jitter=0.5, length=200))
    assert all(0.025 <= wait <= 0.075 for wait in made[1:])
    assert len(set(made)) > 150
    assert sum(made) == pytest.approx(199 * 0.05, rel=0.1)


def test_a_stall_is_for_ever_or_for_a_while() -> None:
    assert [a.wait for a in actions(fault="stall", after=3) if a.wait] == [math.inf]
    assert [a.wait for a in actions(fault="stall", after=3, stall=2.5) if a.wait] == [2.5]


@pytest.mark.parametrize("after", [0, 3, 10, 99])
def test_a_cut_comes_after_so_many_tokens_or_at_the_texts_end(after: int) -> None:
    made = actions(fault="cut", after=after)
    assert made[-1].data is None
    assert sum(action.tokens for action in made) == min(after, 10)


def test_options_say_what_they_are_not() -> None:
    for wrong in ({"colour": 1}, {"fault": "rain"}, {"tps": 0}, {"chunk": 0}, {"ttft": -1}, {"length": "many"}):
        with pytest.raises(ValueError, match=r"no option|no fault|can't be|invalid literal"):
            Options().but(wrong)
    assert Options().but({"tps": "none", "length": None}) == Options()


def test_a_marker_counts_in_the_last_user_message_only() -> None:
    old = {"role": "user", "content": "[sim fault=429] before"}
    assert asked_for({}, {"messages": [old, *QUESTION]}) == {}
    assert asked_for({}, {"messages": [*QUESTION, old]}) == {"fault": "429"}


def test_text_that_only_looks_like_a_marker_is_text() -> None:
    for text in ("[sim city=Oslo]", "[sim tps=fast]", "[sim]", "[simulate length=3]"):
        assert asked_for({}, {"messages": [{"role": "user", "content": text}]}) == {}


def test_faults_by_chance_depend_on_the_seed() -> None:
    def faults(seed: int) -> list[str | None]:
        brain = Brain(seed, faults=Faults.every(0.5))
        return [brain.options_for({}, chat()).fault for _ in range(40)]

    assert faults(1) == faults(1) != faults(2)
    assert 8 < sum(fault is not None for fault in faults(1)) < 32


async def test_in_the_process_all_faces_say_the_same() -> None:
    lm = InProcessLM(seed=3, length=12)
    whole = lm.complete_now(chat())
    assert (await lm.complete(chat()))["choices"] == whole["choices"]
    text = "".join([token async for token in lm.stream(chat())])
    assert text == whole["choices"][0]["message"]["content"]
    body = chat(stream_options={"include_usage": True})
    frames = [frame async for frame in lm.frames(body)]
    assert frames[-1] == b"data: [DONE]\n\n"
    assert b'"completion_tokens":12' in frames[-2]
    assert len([frame for frame in frames if b'"content":"' in frame]) == 1 + 12


async def test_in_the_process_it_keeps_its_pace() -> None:
    import asyncio

    loop = asyncio.get_running_loop()
    lm = InProcessLM(ttft=0.02, tokens_per_second=400, length=9)
    for waited in (lm.complete(chat()), _drain(lm.stream(chat())), _drain(lm.frames(chat()))):
        begun = loop.time()
        await waited
        assert loop.time() - begun >= 0.02 + 8 / 400 - 0.002


async def _drain(items: Any) -> None:
    async for _ in items:
        pass


@pytest.mark.parametrize("wrong", [{"ttft": math.nan}, {"tps": math.nan}, {"jitter": 3}, {"jitter": -0.1}, {"tps": 0}])
def test_a_pace_that_can_not_be(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="option"):
        Options().but(wrong)


def test_a_rate_that_is_no_number() -> None:
    with pytest.raises(ValueError, match="rates"):
        Faults({"429": math.nan})
