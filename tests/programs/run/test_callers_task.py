"""A run of DSPy's stock modules needs no task of its own: what its caller sees is the same."""

from __future__ import annotations

import asyncio
from typing import Any

import dspy
import pytest
from dspy.utils.callback import BaseCallback

from dspy_live import LM, Runtime, asyncify
from dspy_live.core.call import Call
from dspy_live.core.errors import BudgetExceeded, DeadlineExceeded
from dspy_live.core.events import Completion
from dspy_live.core.service import Service
from dspy_live.core.usage import LMRecord
from dspy_live.layers.detached import Detached
from dspy_live.programs.run.program import ProgramService
from dspy_live.runtime.books.account import Account
from dspy_live.testing import virtual_time

TEXT = "[[ ## reasoning ## ]]\nIt is.\n\n[[ ## answer ## ]]\nParis\n\n[[ ## completed ## ]]\n"


def completion() -> Completion:
    message = {"role": "assistant", "content": TEXT}
    return Completion({"choices": [{"index": 0, "finish_reason": "stop", "message": message}], "usage": None})


def lm_of(endpoint: Service) -> LM:
    return LM("openai/m", api_key="x", endpoint=endpoint, cache=False, num_retries=0)


class Heard(BaseCallback):  # type: ignore[misc,unused-ignore]
    """A callback that does nothing."""


class OfAUser(dspy.Predict):  # type: ignore[misc,unused-ignore]
    """A predictor of a user's own."""


class Endless:
    """An endpoint that never answers; it tells in which task it was asked, and how it was left."""

    def __init__(self) -> None:
        self.task: asyncio.Task[Any] | None = None
        self.asked = asyncio.Event()
        self.left = False

    async def __call__(self, call: Call, sink: Any) -> Completion:
        self.task = asyncio.current_task()
        self.asked.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.left = True
        return completion()


@pytest.mark.parametrize(
    ("program", "options", "callbacks", "same"),
    [
        (dspy.Predict("question -> answer"), {}, [], True),
        (dspy.ChainOfThought("question -> answer"), {}, [], True),
        (OfAUser("question -> answer"), {}, [], False),
        (dspy.Predict("question -> answer"), {}, [Heard()], False),
        (dspy.Predict("question -> answer"), {"lm_layers": [Detached()]}, [], False),
        (dspy.ReAct("question -> answer", tools=[]), {}, [], False),
    ],
    ids=["predict", "chain of thought", "a subclass", "a callback", "a layer of the user's", "tools"],
)
async def test_the_task_is_the_callers_where_no_code_of_a_users_is_asked(
    program: Any, options: dict[str, Any], callbacks: list[Any], same: bool
) -> None:
    endless = Endless()
    service = ProgramService(program, execution="native", runtime=Runtime(account=Account(), **options))
    with dspy.context(lm=lm_of(endless), callbacks=callbacks):
        caller: asyncio.Task[Any] = asyncio.ensure_future(service(Call({"question": "?"}), _Nobody()))
        await endless.asked.wait()
    assert (endless.task is caller) == same
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert endless.left


class _Nobody:
    def push(self, event: Any) -> bool:
        return True

    async def room(self) -> None:
        return None


async def test_settings_of_the_caller_are_as_before() -> None:
    async def reply(call: Call, sink: Any) -> Completion:
        assert dspy.settings.caller_modules
        return completion()

    async def failing(call: Call, sink: Any) -> Completion:
        raise RuntimeError("out of order")

    lm = lm_of(reply)
    with dspy.context(lm=lm):
        before = dict(dspy.settings.config)
        assert (await asyncify(dspy.Predict("question -> answer"))(question="?")).answer == "Paris"
        assert dict(dspy.settings.config) == before
    with dspy.context(lm=lm_of(failing)):
        before = dict(dspy.settings.config)
        with pytest.raises(RuntimeError, match="out of order"):
            await asyncify(dspy.Predict("question -> answer"))(question="?")
        assert dict(dspy.settings.config) == before


async def test_a_cancellation_that_an_endpoint_swallows_is_the_callers_all_the_same() -> None:
    asked = asyncio.Event()

    async def stubborn(call: Call, sink: Any) -> Completion:
        asked.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            pass
        return completion()

    with dspy.context(lm=lm_of(stubborn)):
        caller = asyncio.ensure_future(asyncify(dspy.Predict("question -> answer"))(question="?"))
        await asked.wait()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
    assert caller.cancelled()


@virtual_time
async def test_a_deadline_ends_it_and_cancels_nothing_else() -> None:
    endless = Endless()
    with dspy.context(lm=lm_of(endless)):
        with pytest.raises(DeadlineExceeded):
            await asyncify(dspy.Predict("question -> answer"), timeout=2.0)(question="?")
    assert endless.left
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


class _Spent:
    """A meter that refuses each LM call."""

    def check(self) -> None:
        raise BudgetExceeded("nothing is left", budget="b")

    def record(self, record: LMRecord) -> None: ...


async def test_a_budget_that_is_spent_stops_it_for_that_reason() -> None:
    async def never(call: Call, sink: Any) -> Completion:
        raise AssertionError("nobody was to ask")

    service = ProgramService(dspy.Predict("question -> answer"), execution="native", runtime=Runtime(account=Account()))
    with dspy.context(lm=lm_of(never)), pytest.raises(BudgetExceeded, match="nothing is left"):
        await service(Call({"question": "?"}, meters=(_Spent(),)), _Nobody())
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)
    await asyncio.sleep(0)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
async def test_what_would_end_the_process_ends_the_run_alone(error: type[BaseException]) -> None:
    async def raising(call: Call, sink: Any) -> Completion:
        raise error

    with dspy.context(lm=lm_of(raising)), pytest.raises(Exception, match=f"the program raised {error.__name__}"):
        await asyncify(dspy.Predict("question -> answer"))(question="?")
