"""What wraps ``dspy.LM.__call__`` and ``acall`` sees every call of our LM; while nothing does, they cost nothing."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import dspy
import pytest
from dspy.clients import execution
from dspy.utils.callback import BaseCallback
from tests.programs.conftest import Sim

from dspy_live import LM, asyncify, streamify
from dspy_live.programs.lm.seam.wrapped_calls import is_wrapped
from dspy_live.simulator import Faults

QA = "question -> answer"
Wrap = Callable[[list[Any]], None]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The LMs that are called, as a tool sees them that has put wrappers of its own on ``dspy.LM``."""
    calls: list[Any] = []
    call, acall = dspy.LM.__call__, dspy.LM.acall

    @functools.wraps(call)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(self)
        return call(self, *args, **kwargs)

    @functools.wraps(acall)
    async def awrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(self)
        return await acall(self, *args, **kwargs)

    monkeypatch.setattr(dspy.LM, "__call__", wrapped, raising=False)
    monkeypatch.setattr(dspy.LM, "acall", awrapped, raising=False)
    return calls


@pytest.mark.parametrize("how", ["native", "thread", "inline"])
@pytest.mark.parametrize("kind", ["lm", "plain"])
async def test_every_execution_passes_through_them(sim: Sim, seen: list[Any], how: Any, kind: str) -> None:
    lm = getattr(sim, kind)()
    with dspy.context(lm=lm):
        prediction = await asyncify(dspy.Predict(QA), execution=how)(question="What is Rust?")
    assert prediction.answer
    assert [type(one) for one in seen] == [LM]
    assert [entry["outputs"] for entry in lm.history] == [[text_of(sim, lm)]]


def text_of(sim: Sim, lm: Any) -> Any:
    return lm.history[-1]["response"]["choices"][0]["message"]["content"]


async def test_it_streams_retries_and_caches_as_without(sim: Sim, seen: list[Any]) -> None:
    sim.server.set_faults(Faults(schedule=("500",)))
    sim.server.keep_requests = True
    with dspy.context(lm=sim.lm(cache=True, num_retries=1)):
        runs = [[item async for item in streamify(dspy.Predict(QA))(question="wrapped")] for _ in range(2)]
    assert runs[0][-1].answer == runs[1][-1].answer
    assert ["stream" in request for request in sim.server.requests] == [True, True], "one failed, and none was repeated"
    assert len(seen) == 2


def test_our_lm_without_a_run_passes_through_them(sim: Sim, seen: list[Any]) -> None:
    lm = sim.lm()
    assert lm("hello") == asyncio.run(lm.acall("hello"))
    assert seen == [lm, lm]


def test_client_settings_of_one_call_are_carried_out(sim: Sim, seen: list[Any]) -> None:
    lm = LM("openai/gpt-4o-mini", api_base="http://127.0.0.1:9/v1", api_key="sk-wrong", cache=False, num_retries=0)
    assert lm("hello", api_base=sim.url, api_key="sk-test")[0]
    assert asyncio.run(lm.acall("hello", api_base=sim.url, api_key="sk-test"))[0]


def test_callbacks_are_called_once(sim: Sim, seen: list[Any]) -> None:
    heard: list[str] = []

    class Listening(BaseCallback):  # type: ignore[misc]
        def on_lm_start(self, call_id: str, instance: Any, inputs: Any) -> None:
            heard.append(inputs["prompt"])

    with dspy.context(callbacks=[Listening()]):
        sim.lm()("hello")
    assert heard == ["hello"]


def test_forward_is_dspys_own_while_they_are_wrapped(sim: Sim, seen: list[Any]) -> None:
    lm = sim.lm()
    lm("hello")
    assert lm.forward(prompt="hello")["choices"]
    assert len(seen) == 1


@pytest.mark.parametrize("name", ["__call__", "acall"])
def test_dspys_own_methods_are_known(name: str) -> None:
    assert not is_wrapped(name), f"dspy.LM.{name} is not what BaseLM has; calls would take DSPy's longer way"


def test_a_wrapper_is_seen_on_the_base_class_too(monkeypatch: pytest.MonkeyPatch) -> None:
    own = dspy.BaseLM.__call__
    monkeypatch.setattr(dspy.BaseLM, "__call__", lambda self, *args, **kwargs: own(self, *args, **kwargs))
    assert is_wrapped("__call__")
    assert not is_wrapped("acall")


def test_unwrapped_calls_stay_out_of_dspys_thread(sim: Sim, monkeypatch: pytest.MonkeyPatch) -> None:
    """DSPy prepares each asynchronous call in a thread, which is a good part of what our whole call costs."""
    taken: list[str] = []
    for name in ("prepare", "execute", "aexecute"):
        monkeypatch.setattr(execution, name, lambda *_, name=name, **__: taken.append(name))
    with dspy.context(lm=sim.lm()):
        assert dspy.Predict(QA)(question="q").answer
        assert asyncio.run(asyncify(dspy.Predict(QA))(question="q")).answer
    assert taken == []
