"""A user's ``BaseLM`` that has only ``forward``: awaited, it runs in a thread, as it does under DSPy's ``asyncify``."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from types import SimpleNamespace
from typing import Any

import dspy
import pytest
from tests.support.until import async_until

from dspy_live import Runtime, asyncify, batch, streamify, track_usage
from dspy_live.layers.retry import Retry
from dspy_live.programs.run.program import ProgramService

pytestmark = pytest.mark.filterwarnings("ignore:.*BaseLM.forward.*:DeprecationWarning")

tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")
REPLY = "[[ ## answer ## ]]\n4\n\n[[ ## completed ## ]]"


def reply(text: str = REPLY) -> Any:
    """A provider's response, shaped as OpenAI's is."""
    return SimpleNamespace(
        choices=[SimpleNamespace(message=SimpleNamespace(content=text), finish_reason="stop")],
        usage={"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3},
        model="mine",
    )


class Mine(dspy.BaseLM):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__("mine", cache=False)
        self.threads: list[tuple[bool, str]] = []

    def forward(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> Any:
        self.threads.append((threading.current_thread() is threading.main_thread(), tenant.get()))
        return reply()


class OnInstance(dspy.BaseLM):  # type: ignore[misc]
    """Its ``forward`` is set on the object."""

    def __init__(self) -> None:
        super().__init__("mine", cache=False)
        self.threads: list[tuple[bool, str]] = []
        self.forward = lambda prompt=None, messages=None, **kwargs: Mine.forward(self, prompt, messages)


class Called(dspy.BaseLM):  # type: ignore[misc]
    """The old way: it replaces the call itself."""

    def __init__(self) -> None:
        super().__init__("mine", cache=False)
        self.threads: list[tuple[bool, str]] = []

    def __call__(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> Any:
        self.threads.append((threading.current_thread() is threading.main_thread(), tenant.get()))
        return [REPLY]


class Slotted(Mine):
    """Some of its state is not in its dictionary."""

    __slots__ = ("_secret",)

    def __init__(self) -> None:
        super().__init__()
        self._secret = REPLY

    def forward(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> Any:
        super().forward(prompt, messages, **kwargs)
        return reply(self._secret)


class Patched(dspy.LM):  # type: ignore[misc]
    """DSPy's own with another ``forward``: its inherited ``aforward`` would ask the provider."""

    def __init__(self) -> None:
        super().__init__("openai/nobody", api_key="k", api_base="http://127.0.0.1:9", cache=False, num_retries=0)
        self.threads: list[tuple[bool, str]] = []

    def forward(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> Any:
        return Mine.forward(self, prompt, messages)


EACH = pytest.mark.parametrize("make", [Mine, OnInstance, Called, Slotted, Patched])


@EACH
@pytest.mark.parametrize("execution", ["native", "thread", "inline"])
async def test_it_answers_in_every_execution(make: Any, execution: Any) -> None:
    lm = make()
    tenant.set("acme")
    with dspy.context(lm=lm):
        prediction = await asyncify(dspy.Predict("question -> answer"), execution=execution)(question="2+2?")
    assert prediction.answer == "4"
    assert lm.threads == [(execution == "inline", "acme")]


@EACH
async def test_streamify_gives_its_answer_as_one_piece(make: Any) -> None:
    with dspy.context(lm=make()):
        items: list[Any] = [i async for i in streamify(dspy.Predict("question -> answer"))(question="2+2?")]
    assert [str(i) for i in items[:-1] if isinstance(i, str) and i] == ["4"]
    assert items[-1].answer == "4"


def test_batch() -> None:
    program = dspy.Predict("question -> answer")
    with dspy.context(lm=Mine()):
        results = batch(program, [{"question": "2+2?"}, {"question": "3+1?"}], progress=False)
        assert [r.answer for r in results] == ["4", "4"]


async def test_many_are_asked_at_the_same_time() -> None:
    together = threading.Barrier(6)

    class Meets(Mine):
        def forward(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> Any:
            together.wait(20)
            return reply()

    ask = asyncify(dspy.Predict("question -> answer"))
    with dspy.context(lm=Meets()):
        assert [p.answer for p in await asyncio.gather(*[ask(question="?") for _ in range(6)])] == ["4"] * 6


async def test_history_usage_and_the_runs_own_options_are_as_ever() -> None:
    lm = Mine()
    with dspy.context(lm=lm), track_usage() as tracker:
        await asyncify(dspy.Predict("question -> answer"))(question="2+2?")
    assert [entry["outputs"] for entry in lm.history] == [[REPLY]]
    assert tracker.get_total_tokens()["mine"]["total_tokens"] == 3
    assert type(lm) is Mine
    assert "aforward" not in vars(lm)


async def test_its_error_is_the_callers() -> None:
    class Fails(Mine):
        def forward(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> Any:
            raise KeyError("mine")

    with dspy.context(lm=Fails()), pytest.raises(Exception, match="mine") as native:
        await asyncify(dspy.Predict("question -> answer"), execution="native")(question="?")
    with dspy.context(lm=Fails()), pytest.raises(Exception, match="mine") as thread:
        await asyncify(dspy.Predict("question -> answer"), execution="thread")(question="?")
    assert type(native.value) is type(thread.value)


async def test_a_run_that_is_cancelled_ends_with_its_thread() -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Waits(Mine):
        def forward(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> Any:
            begun.set()
            go_on.wait(20)
            return reply()

    with dspy.context(lm=Waits()):
        task = asyncio.ensure_future(asyncify(dspy.Predict("question -> answer"), layers=[])(question="?"))
    await async_until(begun.is_set)
    task.cancel()
    await asyncio.wait([task], timeout=0.05)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_it_reads_for_another_adapters_second_step() -> None:
    second = Mine()
    with dspy.context(lm=Mine(), adapter=dspy.TwoStepAdapter(second)):
        prediction = await asyncify(dspy.Predict("question -> answer"))(question="2+2?")
    assert prediction.answer == "4"
    assert second.threads == [(False, "nobody")]


async def test_one_that_can_be_awaited_is_asked_on_the_loop() -> None:
    class Both(Mine):
        async def aforward(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> Any:
            return Mine.forward(self, prompt, messages)

    lm = Both()
    with dspy.context(lm=lm):
        assert (await asyncify(dspy.Predict("question -> answer"))(question="2+2?")).answer == "4"
    assert lm.threads == [(True, "nobody")]


def test_a_server_is_told_that_a_run_may_hold_a_thread() -> None:
    service = ProgramService(dspy.Predict("question -> answer"))
    with dspy.context(lm=Mine()):
        assert service.may_block
    with dspy.context(lm=dspy.LM("openai/nobody", api_key="k")):
        assert not service.may_block
        assert not service.may_hold_up
        with dspy.context(adapter=dspy.TwoStepAdapter(Mine())):
            assert service.may_block
        service.program.lm = Mine()
        assert service.may_block


def test_of_a_users_own_module_nobody_knows_whether_it_holds_a_thread() -> None:
    class Own(dspy.Module):  # type: ignore[misc,unused-ignore]
        async def aforward(self) -> None: ...

    runtime = Runtime(lm_layers=[Retry(2)])
    for program, settings in ((Own(), {}), (dspy.Predict("question -> answer"), {"runtime": runtime})):
        service = ProgramService(program, **settings)
        assert (service.may_block, service.may_hold_up) == (False, True)
