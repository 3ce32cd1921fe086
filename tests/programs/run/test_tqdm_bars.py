"""Stock ``dspy.Parallel`` in many runs at once: its clearing of tqdm's bars fails nobody."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any
from weakref import WeakSet

import dspy
import pytest
import tqdm
from dspy.streaming import StatusMessage, StatusMessageProvider
from tests.programs.conftest import Sim
from tests.support.until import until

from dspy_live import StreamToken, asyncify, streamify
from dspy_live.programs.run.tqdm_bars import Bars, keep_bars_apart

RUNS = 20
PARTS = 4


class Fan(dspy.Module):  # type: ignore[misc]
    """Asks some parts of a question at once, with DSPy's own Parallel or one after another."""

    def __init__(self, *, at_once: bool) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")
        self.at_once = at_once

    def forward(self, question: str) -> Any:
        pairs = [(self.ask, {"question": f"{question}, part {part}"}) for part in range(PARTS)]
        if self.at_once:
            told = dspy.Parallel(num_threads=PARTS, disable_progress_bar=True)(pairs)
        else:
            told = [module(**inputs) for module, inputs in pairs]
        return dspy.Prediction(answers=[one.answer for one in told])


class Says(StatusMessageProvider):  # type: ignore[misc]
    def module_start_status_message(self, instance: Any, inputs: dict[str, Any]) -> str | None:
        question = inputs.get("kwargs", inputs).get("question", "")
        return f"asks {question}" if isinstance(instance, dspy.Predict) else None


@pytest.fixture
def quick_switches() -> Iterator[None]:
    """Threads take turns after every few instructions, so that each order of theirs comes up."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def plain_bars() -> Iterator[Any]:
    """tqdm as it is without us."""
    bars: Any = tqdm.tqdm._instances
    before = type(bars)
    bars.__class__ = WeakSet
    yield bars
    bars.__class__ = before


def clears_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let another thread's dspy.Parallel begin while a bar is being made, at the worst moment."""
    free = tqdm.tqdm._get_free_pos

    def free_line(bar: Any = None) -> Any:
        line = free(bar)
        other = threading.Thread(target=tqdm.tqdm._instances.clear)
        other.start()
        other.join()
        return line

    monkeypatch.setattr(tqdm.tqdm, "_get_free_pos", staticmethod(free_line))


def test_a_disabled_bar_outlives_a_clearing_while_it_is_made(plain_bars: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clears_meanwhile(monkeypatch)
    with pytest.raises(KeyError):
        tqdm.tqdm(total=1, disable=True)
    keep_bars_apart()
    tqdm.tqdm(total=1, disable=True).close()


def test_bars_that_are_there_stay_and_are_forgotten_when_they_die(plain_bars: Any) -> None:
    bar = tqdm.tqdm(total=1, file=sys.stderr)
    keep_bars_apart()
    keep_bars_apart()
    assert tqdm.tqdm._instances is plain_bars
    assert type(plain_bars) is Bars
    assert bar in plain_bars
    assert bar in list(plain_bars)
    assert type(plain_bars.copy()) is Bars
    second = tqdm.tqdm(total=1, file=sys.stderr)
    assert second.pos != bar.pos, "two bars have two lines"
    second.close()
    bar.close()
    assert bar not in plain_bars
    kept = Bars()
    thing = type("Thing", (), {})()
    kept.add(thing)
    del thing
    gc.collect()
    assert list(kept) == []
    assert len(kept) == 0


def test_a_set_of_another_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Theirs(WeakSet[Any]):
        pass

    theirs: Any = Theirs()
    monkeypatch.setattr(tqdm.tqdm, "_instances", theirs)
    keep_bars_apart()
    assert type(theirs) is Theirs


@pytest.mark.usefixtures("quick_switches")
def test_the_set_may_be_emptied_while_it_is_walked() -> None:
    bars = Bars()
    things = [type("Thing", (), {})() for _ in range(50)]
    over = threading.Event()
    rounds: list[int] = []

    def empty_and_fill() -> None:
        while not over.is_set():
            for thing in things:
                bars.add(thing)
            bars.clear()
            rounds.append(1)

    other = threading.Thread(target=empty_and_fill)
    other.start()
    try:
        until(lambda: [all(thing in things for thing in bars) for _ in range(20)] and len(rounds) > 50)
    finally:
        over.set()
        other.join()


@pytest.mark.usefixtures("quick_switches", "plain_bars")
async def test_stock_parallel_in_forty_runs_at_once(sim: Sim, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run ended with ``KeyError: <weakref … to 'tqdm'>``."""
    clears_meanwhile(monkeypatch)
    with dspy.context(lm=sim.lm(), track_usage=True):
        alone, fan = asyncify(Fan(at_once=False)), Fan(at_once=True)
        asked = asyncify(fan)
        listener = dspy.streaming.StreamListener("answer", predict=fan.ask, predict_name="ask", allow_reuse=True)
        streamed = streamify(fan, stream_listeners=[listener], status_message_provider=Says())

        async def items_of(question: str) -> list[Any]:
            return [item async for item in streamed(question=question)]

        questions = [f"What is {n}?" for n in range(RUNS)]
        expected = [await alone(question=question) for question in questions]
        before = sim.server.stats.requests
        told, streams = await asyncio.gather(
            asyncio.gather(*(asked(question=question) for question in questions)),
            asyncio.gather(*map(items_of, questions)),
        )
    assert sim.server.stats.requests - before == 2 * RUNS * PARTS
    for question, right, one, items in zip(questions, expected, told, streams, strict=True):
        assert one.answers == right.answers
        assert one.get_lm_usage() == right.get_lm_usage()
        assert items[-1].answers == right.answers
        assert items[-1].get_lm_usage() == right.get_lm_usage()
        words: dict[int, str] = {}
        for token in items:
            if isinstance(token, StreamToken):
                words[token.lm_call] = words.get(token.lm_call, "") + token
        assert Counter(words.values()) == Counter(right.answers), "to the token"
        said = Counter(item.message for item in items if isinstance(item, StatusMessage))
        assert said == Counter(f"asks {question}, part {part}" for part in range(PARTS))
