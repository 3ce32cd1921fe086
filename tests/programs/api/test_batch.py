"""batch: order, errors per item, bounded memory, and a checkpoint that survives kill -9."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import dspy
import pydantic
import pytest
from tests.programs.conftest import Sim
from tests.support.held_simulator import HeldSimulator
from tests.support.until import async_until, until

import dspy_live
from dspy_live import BatchError, abatch, batch, stream_batch
from dspy_live.core.errors import ConfigurationError
from dspy_live.testing import virtual_time

QA = "question -> answer"


class Picky(dspy.Module):  # type: ignore[misc]
    """Fails for odd numbers, takes longer for small ones."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []
        self.active = self.most = 0

    async def aforward(self, n: int) -> Any:
        self.seen.append(n)
        self.active += 1
        self.most = max(self.most, self.active)
        try:
            await asyncio.sleep(0.02 if n < 4 else 0)
        finally:
            self.active -= 1
        if n % 2:
            raise ValueError(f"{n} is odd")
        return dspy.Prediction(double=2 * n)


async def test_results_in_input_order_and_errors_per_item() -> None:
    results = await abatch(Picky(), [{"n": n} for n in range(8)], concurrency=4)
    assert [r.double if isinstance(r, dspy.Prediction) else r.inputs["n"] for r in results] == [0, 1, 4, 3, 8, 5, 12, 7]
    error = results[3]
    assert isinstance(error, BatchError)
    assert (error.index, error.kind, error.message) == (3, "ValueError", "3 is odd")
    assert isinstance(error.error, ValueError)


async def test_the_first_error_can_end_it() -> None:
    program = Picky()
    with pytest.raises(BatchError, match="item 1 failed: ValueError: 1 is odd"):
        await abatch(program, [{"n": n} for n in range(1000)], concurrency=2, on_error="raise")
    assert len(program.seen) < 30


def test_the_synchronous_form_with_a_real_program(sim: Sim) -> None:
    with dspy.context(lm=sim.lm()):
        results = batch(dspy.Predict(QA), [{"question": f"What is {i}?"} for i in range(20)], concurrency=5)
    assert all(f"{i}" in r.answer for i, r in enumerate(results))
    assert sim.server.stats.peak_active <= 5


async def test_the_synchronous_form_beside_a_running_loop() -> None:
    assert len(batch(Picky(), [{"n": 2}])) == 1


async def test_examples_and_tuples_are_inputs_and_other_objects_are_refused() -> None:
    inputs = [dspy.Example(n=2, gold=1).with_inputs("n"), {"n": 4}, (6,), 7]
    results = await abatch(Picky(), inputs)
    assert [getattr(r, "double", None) for r in results] == [4, 8, 12, None]
    assert "of positional arguments; got int 7: write {'n': 7}" in str(results[3])


async def test_endless_inputs_are_taken_only_as_far_as_needed() -> None:
    program = Picky()
    items: Any = stream_batch(program, ({"n": n} for n in itertools.count(4)), concurrency=4)
    taken = [await anext(items) for _ in range(50)]
    await items.aclose()
    assert len({item.index for item in taken}) == 50
    assert len(program.seen) <= 50 + 4 + 4 + 4
    assert program.most <= 4
    assert program.active == 0


async def test_a_slow_item_holds_the_ordered_ones_up_at_the_window() -> None:
    release = asyncio.Event()
    started: list[int] = []

    async def program(n: int) -> int:
        started.append(n)
        if n == 0:
            await release.wait()
        return n

    items: Any = stream_batch(program, ({"n": n} for n in itertools.count()), concurrency=3, ordered=True, window=5)
    first = asyncio.ensure_future(anext(items))
    await async_until(lambda: len(started) == 8)
    await asyncio.sleep(0.05)
    assert len(started) == 8
    release.set()
    assert (await first).index == 0
    assert [(await anext(items)).index for _ in range(20)] == list(range(1, 21))
    await items.aclose()


async def test_async_inputs_and_leaving() -> None:
    closed = False

    async def inputs() -> Any:
        nonlocal closed
        try:
            for n in itertools.count(4):
                yield {"n": n}
        finally:
            closed = True

    program = Picky()
    items: Any = stream_batch(program, inputs(), concurrency=2)
    await anext(items)
    await items.aclose()
    assert closed
    assert program.active == 0


async def test_an_iterator_that_raises_ends_it() -> None:
    def inputs() -> Iterator[Any]:
        yield {"n": 2}
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        await abatch(Picky(), inputs())


@virtual_time
async def test_a_timeout_is_an_error_of_its_item() -> None:
    async def slow(n: int) -> int:
        await asyncio.sleep(n)
        return n

    results = await abatch(slow, [{"n": 60}, {"n": 0}], timeout=30)
    assert results[0].kind == "DeadlineExceeded"
    assert results[1] == 0


@pytest.mark.parametrize(
    "options", [{"concurrency": 0}, {"concurrency": -1}, {"concurrency": True}, {"window": -1}, {"timeout": 0}]
)
async def test_numbers_that_can_not_work(options: Any) -> None:
    with pytest.raises(ValueError, match="must be a"):
        await abatch(Picky(), [], **options)


async def test_a_checkpoint_runs_only_the_missing_items(tmp_path: Path) -> None:
    path = tmp_path / "done.jsonl"
    inputs = [{"n": n} for n in range(10)]
    first = Picky()
    items: Any = stream_batch(first, inputs, concurrency=1, checkpoint=path)
    for _ in range(4):
        await anext(items)
    await items.aclose()
    done = len(path.read_text().splitlines()) - 1
    second = Picky()
    results = await abatch(second, inputs, checkpoint=path)
    assert sorted(first.seen[:done] + second.seen) == list(range(10))
    assert [getattr(r, "double", None) for r in results] == [0, None, 4, None, 8, None, 12, None, 16, None]
    third = Picky()
    again = await abatch(third, inputs, checkpoint=path)
    assert third.seen == []
    assert [str(a) for a in again] == [str(r) for r in results]


class City(pydantic.BaseModel):
    name: str
    twins: list[str] = []


class Cities(dspy.Signature):  # type: ignore[misc]
    question: str = dspy.InputField()
    best: City = dspy.OutputField()
    others: list[City] = dspy.OutputField()
    colour: Literal["red", "blue"] = dspy.OutputField()
    reasoning: dspy.Reasoning = dspy.OutputField()


class Tells(dspy.Module):  # type: ignore[misc]
    """Gives on a model as a dict, and a value of no type that a signature names."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict(Cities)

    async def aforward(self, question: str) -> Any:
        told = await self.ask.acall(question=question)
        return dspy.Prediction(best=told.best.model_dump(), others=told.others, tags={"a"}, count=len(told.others))


async def test_values_from_a_checkpoint_have_their_types(sim: Sim, tmp_path: Path) -> None:
    """A model came back as a dict and a Reasoning as a str: code that worked failed after a crash, at those items."""
    for program in (dspy.Predict(Cities), Tells()):
        path = tmp_path / f"{type(program).__name__}.jsonl"
        with dspy.context(lm=sim.lm()):
            first = await abatch(program, [{"question": "Which?"}], checkpoint=path)
            requests = sim.server.stats.requests
            again = await abatch(program, [{"question": "Which?"}], checkpoint=path)
        assert sim.server.stats.requests == requests
        for name in set(first[0].keys()) - {"tags"}:
            assert (name, again[0][name]) == (name, first[0][name])
            assert type(again[0][name]) is type(first[0][name])


async def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "done.jsonl"
    await abatch(Picky(), [{"n": 2}, {"n": 4}], checkpoint=path)
    with pytest.raises(ConfigurationError, match="belongs to other inputs: its item 1"):
        await abatch(Picky(), [{"n": 2}, {"n": 6}], checkpoint=path)
    with pytest.raises(ConfigurationError, match="belongs to another program"):
        await abatch(dspy.Predict(QA), [{"question": "x"}], checkpoint=path)
    path.write_text("hello\n")
    with pytest.raises(ConfigurationError, match="is no checkpoint"):
        await abatch(Picky(), [{"n": 2}], checkpoint=path)


async def test_half_a_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "done.jsonl"
    inputs = [{"n": n} for n in (2, 4, 6)]
    await abatch(Picky(), inputs, checkpoint=path, concurrency=1)
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    program = Picky()
    await abatch(program, inputs, checkpoint=path)
    assert program.seen == [6]
    assert path.read_bytes().count(b"\n") == whole.count(b"\n")


class Ill(Picky):
    """Fails for odd numbers until it is well."""

    well = False

    async def aforward(self, n: int) -> Any:
        if self.well:
            self.seen.append(n)
            return dspy.Prediction(double=2 * n)
        return await super().aforward(n)


async def test_failed_items_are_asked_again_when_that_is_wanted(tmp_path: Path) -> None:
    """A provider that was down for an hour left failures in the checkpoint for good."""
    path, program, inputs = tmp_path / "done.jsonl", Ill(), [{"n": n} for n in range(6)]
    first = await abatch(program, inputs, checkpoint=path)
    assert [isinstance(result, BatchError) for result in first] == [False, True] * 3
    program.well, program.seen = True, []
    kept = await abatch(program, inputs, checkpoint=path)
    assert [str(result) for result in kept] == [str(result) for result in first]
    assert program.seen == [], "without the wish a failure is an end"
    again = await abatch(program, inputs, checkpoint=path, retry_failed=True)
    assert sorted(program.seen) == [1, 3, 5]
    assert [result.double for result in again] == [0, 2, 4, 6, 8, 10]
    program.seen = []
    assert await abatch(program, inputs, checkpoint=path, retry_failed=True) == again
    assert program.seen == []
    with pytest.raises(ValueError, match="give checkpoint= too"):
        await abatch(program, inputs, retry_failed=True)


async def test_without_an_lm_a_batch_ends_at_once_and_records_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each item failed, and each failure was written down as the item's end."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    path, inputs = tmp_path / "done.jsonl", [{"question": "a"}] * 1000
    asked: list[int] = []

    async def misconfigured(question: str) -> Any:
        asked.append(1)
        raise ConfigurationError("there is no such index")

    for program, lm, expected, says in (
        (dspy.Predict(QA), None, ValueError, "No LM is loaded"),
        (dspy.Predict(QA), dspy_live.LM("openai/gpt-4o-mini"), dspy.LMNotConfiguredError, "set OPENAI_API_KEY"),
        (misconfigured, None, ConfigurationError, "there is no such index"),
    ):
        path.unlink(missing_ok=True)
        with dspy.context(lm=lm), pytest.raises(expected, match=says):
            await abatch(program, inputs, checkpoint=path, concurrency=4)
        assert path.read_bytes().count(b"\n") == 1, "its head only"
    assert len(asked) <= 4


async def test_two_batches_can_not_share_a_checkpoint(tmp_path: Path) -> None:
    path, inputs = tmp_path / "done.jsonl", [{"n": n} for n in range(4, 104)]
    items: Any = stream_batch(Picky(), inputs, checkpoint=path, concurrency=2)
    await anext(items)
    refused = Picky()
    with pytest.raises(ConfigurationError, match="is in use by another batch"):
        await abatch(refused, inputs, checkpoint=path)
    assert refused.seen == []
    rest = [item async for item in items]
    assert len(rest) == 99
    program = Picky()
    await abatch(program, inputs, checkpoint=path)
    assert program.seen == [], "all hundred records are there"


async def test_a_loop_that_was_just_left_lets_go_of_its_checkpoint(tmp_path: Path) -> None:
    path, inputs = tmp_path / "done.jsonl", [{"n": n} for n in range(4, 24)]
    async for _ in stream_batch(Picky(), inputs, checkpoint=path, concurrency=2):
        break
    assert len(await abatch(Picky(), inputs, checkpoint=path)) == 20


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"question": "a"}, "got one dict: write [{'question': …}, …]"),
        (dspy.Example(question="a"), "got one dspy.Example: write [{'question': …}, …]"),
        ("a", "got str 'a': write [{'question': …}, …]"),
        (None, "got NoneType None: write [{'question': …}, …]"),
    ],
)
def test_an_argument_that_is_no_list_of_inputs_is_refused(inputs: Any, says: str) -> None:
    with pytest.raises(TypeError) as refused:
        batch(dspy.Predict(QA), inputs)
    assert says in str(refused.value)


async def test_a_table_is_told_from_a_list_of_inputs() -> None:
    class Table(list[str]):
        columns = ("question",)

        def to_dict(self, orient: str) -> Any:
            return [{"question": "a"}]

    with pytest.raises(TypeError, match=r'got a table: write table\.to_dict\("records"\)'):
        await abatch(dspy.Predict(QA), Table(["question"]))


async def test_a_text_in_the_place_of_an_input() -> None:
    (error,) = await abatch(dspy.Predict(QA), ["What is love?"])
    assert error.kind == "InvalidInput"
    assert "got str 'What is love?': write {'question': 'What is love?'}" in error.message


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full outside Linux")
async def test_a_full_disk_ends_it_with_its_own_error() -> None:
    with pytest.raises(OSError, match="No space left"):
        await abatch(Picky(), [{"n": 2}], checkpoint="/dev/full")


@pytest.mark.timeout(150)
def test_kill_and_rerun_gives_each_row_once(tmp_path: Path) -> None:
    """After kill -9, at most as many rows are asked again as were at work."""
    source, output, checkpoint = tmp_path / "in.jsonl", tmp_path / "out.jsonl", tmp_path / "done.jsonl"
    source.write_text("".join(json.dumps({"question": f"What is {i}?", "gold": i}) + "\n" for i in range(60)))
    lm = HeldSimulator(allowed=20, seed=1)
    with lm.running() as url:
        command = [
            *(sys.executable, "-m", "dspy_live", "batch", str(source), "--program", QA, "-o", str(output)),
            *("--checkpoint", str(checkpoint), "--concurrency", "4", "--quiet"),
            *("--lm", "openai/gpt-4o-mini", "--api-base", url),
        ]
        environment = {**os.environ, "OPENAI_API_KEY": "sk-test", "DSPY_CACHEDIR": str(tmp_path / "cache")}
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        try:
            # A head, and a line for each row that was answered.
            until(lambda: checkpoint.exists() and checkpoint.read_bytes().count(b"\n") == 1 + 20, 60)
            until(lambda: len(lm.held) == 4)
        finally:
            process.kill()
            process.wait()
        assert checkpoint.read_bytes().count(b"\n") == 1 + 20
        lm.held.clear()
        lm.release()
        finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=50)
    assert finished.returncode == 0, finished.stderr
    assert "60 rows, 0 failed" in finished.stderr
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["index"] for row in rows] == list(range(60))
    assert all(row["input"]["gold"] == row["index"] and row["output"]["answer"] for row in rows)
    assert lm.arrived == 60 + 4


def test_bad_rows_fail_alone(sim: Sim, tmp_path: Path) -> None:
    source, output = tmp_path / "in.csv", tmp_path / "out.jsonl"
    source.write_text('question,gold\n"What, is it?",1\na,b,c\nlast,3\n')
    command = [sys.executable, "-m", "dspy_live", "batch", str(source), "--program", QA, "-o", str(output)]
    environment = {**os.environ, "DSPY_CACHEDIR": str(tmp_path / "cache")}
    finished = subprocess.run([*command, "--sim"], env=environment, capture_output=True, text=True, timeout=50)
    assert finished.returncode == 1
    assert "3 rows, 1 failed" in finished.stderr
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert rows[0]["input"] == {"question": "What, is it?", "gold": "1"}
    assert "more columns than the header" in rows[1]["error"]["message"]
    for wrong, says in (("missing.jsonl", "no such file"), (str(tmp_path), "it is a folder")):
        refused = subprocess.run(
            [*command[:4], wrong, *command[5:]], env=environment, capture_output=True, text=True, timeout=50
        )
        assert refused.returncode != 0
        assert says in refused.stderr
        assert "Traceback" not in refused.stderr
