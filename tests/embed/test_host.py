"""The loop of an embedding, driven as the crate drives it: commands by a queue and a byte, replies in batches."""

from __future__ import annotations

import copy
import gc
import importlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dspy
import pytest
from tests.support.until import BOUND, until

from dspy_live.embed import main

PROGRAMS = """
import asyncio, dspy, dspy_live

class Talking(dspy.Module):
    async def aforward(self, question):
        for n in range(int(question)):
            dspy_live.emit("n", n)
        return dspy.Prediction(answer="done")

class Failing(dspy.Module):
    async def aforward(self, question):
        raise ValueError(f"no answer to {question!r}")

class Waiting(dspy.Module):
    async def aforward(self, question):
        await asyncio.sleep(60)

class Odd(dspy.Module):
    async def aforward(self, question):
        cycle = []
        cycle.append(cycle)
        dspy_live.emit("odd", {"text": "a\\ud800", "cycle": cycle, "set": {1}, (1, 2): float("inf"), "what": object()})
        return dspy.Prediction(answer="a\\ud800")

class Leaving(dspy.Module):
    async def aforward(self, question):  # from a task, asyncio throws it out of the whole loop
        await asyncio.create_task(self.leave())

    async def leave(self):
        raise SystemExit(3)

talking, failing, waiting, odd, leaving = Talking(), Failing(), Waiting(), Odd(), Leaving()
"""


class Driver:
    """The crate's side of it."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self._queue: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._changed = threading.Condition()
        self._wake, woken = socket.socketpair()
        settings = json.dumps({"lm": {"simulate": True}}).encode()
        self.thread = threading.Thread(target=main, args=(self._take, self._deliver, woken.detach(), settings))
        self.thread.start()
        self._ids = iter(range(1, 1000))

    def _take(self) -> bytes:
        with self._lock:
            commands, self._queue = self._queue, []
        return json.dumps(commands).encode()

    def _deliver(self, batch: bytes) -> None:
        with self._changed:
            self.batches.append(json.loads(batch))
            self._changed.notify_all()

    def send(self, *commands: dict[str, Any]) -> None:
        with self._lock:
            self._queue.extend(commands)
        self._wake.send(b"\x01")

    def events(self, run: int) -> list[dict[str, Any]]:
        return [event for batch in self.batches for ident, events, _ in batch if ident == run for event in events]

    def ends(self, run: int) -> list[Any]:
        return [end for batch in self.batches for ident, _, end in batch if ident == run and end is not None]

    def until(self, ok: Callable[[], object]) -> None:
        with self._changed:
            assert self._changed.wait_for(ok, timeout=BOUND), self.batches

    def end(self, run: int) -> Any:
        self.until(lambda: self.ends(run))
        return self.ends(run)[0]

    def load(self, target: str) -> int:
        ident = next(self._ids)
        self.send({"type": "load", "id": ident, "target": target})
        assert self.end(ident) is True
        return ident

    def run(self, program: int, question: str, **options: Any) -> dict[str, Any]:
        inputs = {"question": question}
        return {"type": "run", "id": next(self._ids), "program": program, "inputs": inputs, **options}

    def close(self) -> None:
        self.send({"type": "shutdown", "patience": BOUND})
        self.thread.join(BOUND)
        self._wake.close()
        assert not self.thread.is_alive()


@pytest.fixture(autouse=True)
def dspy_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """DSPy takes settings from one thread only, and each test here has a thread of its own for Python."""
    module = importlib.import_module("dspy.dsp.utils.settings")
    monkeypatch.setattr(module, "config_owner_thread_id", None)
    monkeypatch.setattr(module, "config_owner_async_task", None)
    monkeypatch.setattr(module, "main_thread_config", copy.copy(module.main_thread_config))


@pytest.fixture
def driver() -> Iterator[Driver]:
    driver = Driver()
    yield driver
    driver.close()


@pytest.fixture
def target(tmp_path: Path) -> str:
    file = tmp_path / f"embedded_{tmp_path.name}.py"
    file.write_text(PROGRAMS)
    return str(file)


def test_a_program_tells_its_fields(driver: Driver) -> None:
    program = driver.load("question -> answer, score: float")
    (loaded,) = driver.events(program)
    assert loaded["type"] == "loaded"
    assert [field["name"] for field in loaded["outputs"]] == ["answer", "score"]
    assert (loaded["text"], loaded["inputs"][0]["required"]) == ("answer", True)


def test_a_call_without_a_stream_gets_usage_and_the_result(driver: Driver) -> None:
    run = driver.run(driver.load("question -> answer"), "Why?")
    driver.send(run)
    assert driver.end(run["id"]) is True
    assert [event["type"] for event in driver.events(run["id"])] == ["usage", "prediction"]
    assert driver.events(run["id"])[-1].keys() == {"type", "outputs"}


def test_python_keeps_no_prediction_of_a_run_that_is_over(driver: Driver) -> None:
    """DSPy's trace would keep the last 10,000, with their inputs."""

    def kept() -> int:
        gc.collect()
        return sum(isinstance(thing, dspy.Prediction) for thing in gc.get_objects())

    program = driver.load("question -> answer")
    before = kept()
    for question in ("Why?", "Where?"):
        run = driver.run(program, question, stream=True)
        driver.send(run)
        assert driver.end(run["id"]) is True
    until(lambda: kept() <= before)


def test_a_program_that_exits_in_a_task_ends_its_own_run_alone(driver: Driver, target: str) -> None:
    other = driver.run(driver.load(f"{target}:waiting"), "?", stream=True)
    driver.send(other)
    run = driver.run(driver.load(f"{target}:leaving"), "?")
    driver.send(run)
    assert "SystemExit" in driver.end(run["id"])["message"]
    assert driver.load(f"{target}:talking"), "the loop goes on"
    assert not driver.ends(other["id"])


def test_no_more_is_sent_than_there_are_credits(driver: Driver, target: str) -> None:
    run = driver.run(driver.load(f"{target}:talking"), "50", stream=True, credits=3)
    driver.send(run)
    driver.until(lambda: len(driver.events(run["id"])) == 3)
    driver.load("question -> answer")  # the loop has gone on meanwhile
    assert len(driver.events(run["id"])) == 3
    driver.send({"type": "credit", "id": run["id"], "n": 4})
    driver.until(lambda: len(driver.events(run["id"])) == 7)
    driver.send({"type": "credit", "id": run["id"], "n": 1000})
    assert driver.end(run["id"]) is True
    assert [event["data"] for event in driver.events(run["id"]) if event["type"] == "custom"] == list(range(50))


def test_ready_events_cross_at_once(driver: Driver, target: str) -> None:
    program = driver.load(f"{target}:talking")
    runs = [driver.run(program, "100", stream=True) for _ in range(5)]
    before = len(driver.batches)
    driver.send(*runs)
    for run in runs:
        assert driver.end(run["id"]) is True
    assert sum(len(driver.events(run["id"])) for run in runs) == 5 * 102
    assert len(driver.batches) - before < 50


@pytest.mark.parametrize("at_once", [True, False])
def test_a_cancelled_run_reports_its_end_once(driver: Driver, target: str, at_once: bool) -> None:
    run = driver.run(driver.load(f"{target}:waiting"), "?", stream=True)
    cancel = {"type": "cancel", "id": run["id"]}
    if at_once:  # before its first step
        driver.send(run, cancel)
    else:
        driver.send(run)
        driver.until(lambda: driver.events(run["id"]))
        driver.send(cancel, cancel)
    assert driver.end(run["id"])["code"] == "cancelled"
    driver.send(cancel)
    driver.load("question -> answer")
    assert len(driver.ends(run["id"])) == 1


def test_a_failure_has_kind_message_code_and_traceback(driver: Driver, target: str) -> None:
    run = driver.run(driver.load(f"{target}:failing"), "x")
    driver.send(run)
    end = driver.end(run["id"])
    assert (end["kind"], end["message"], end["code"]) == ("ValueError", "no answer to 'x'", "program_failed")
    assert "aforward" in end["traceback"]


def test_mistakes_of_the_host_are_failures_of_that_command(driver: Driver) -> None:
    program = driver.load("question -> answer")
    wrong = {"type": "run", "id": 900, "program": program, "inputs": {"wrong": 1}}
    unknown = {"type": "run", "id": 901, "program": 12345, "inputs": {}}
    driver.send(wrong, unknown, {"type": "load", "id": 902, "target": "no_such_module_here:x"})
    codes = [driver.end(ident)["code"] for ident in (900, 901, 902)]
    assert codes == ["invalid_input", "not_found", "configuration"]
    driver.send({"type": "unload", "id": program})
    gone = driver.run(program, "?")
    driver.send(gone)
    assert driver.end(gone["id"])["code"] == "not_found"


def test_a_value_without_a_form_in_json_becomes_the_nearest_one(driver: Driver, target: str) -> None:
    run = driver.run(driver.load(f"{target}:odd"), "?", stream=True)
    driver.send(run)
    assert driver.end(run["id"]) is True
    started, odd, predicted = driver.events(run["id"])
    assert started["type"] == "started"
    assert odd["data"]["text"] == "a?"
    assert odd["data"]["set"] == [1]
    assert odd["data"]["(1, 2)"] is None
    assert odd["data"]["what"].startswith("<object")
    assert predicted["outputs"] == {"answer": "a?"}


def test_a_shutdown_cancels_running_calls_and_takes_no_new_ones(target: str) -> None:
    driver = Driver()
    run = driver.run(driver.load(f"{target}:waiting"), "?", stream=True)
    driver.send(run)
    driver.until(lambda: driver.events(run["id"]))
    late = driver.run(run["program"], "?")
    driver.send({"type": "shutdown", "patience": BOUND}, late)
    driver.thread.join(BOUND)
    driver._wake.close()
    assert not driver.thread.is_alive()
    assert driver.end(run["id"])["code"] == "cancelled"
    assert driver.end(late["id"])["code"] == "cancelled"


def test_a_host_that_is_gone_ends_the_loop() -> None:
    driver = Driver()
    driver._wake.close()
    driver.thread.join(BOUND)
    assert not driver.thread.is_alive()
