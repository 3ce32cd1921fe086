"""Modules in a run are called the shorter way and see what they see under DSPy's own; predictions are DSPy's own."""

from __future__ import annotations

import asyncio
import copy
import logging
from typing import Any

import dspy
import pytest
from dspy.utils.callback import BaseCallback

from dspy_live import Runtime, asyncify
from dspy_live.programs.stock import modules
from dspy_live.programs.stock.prediction import prediction_of
from dspy_live.runtime.books.account import Account


def run(program: Any, execution: Any, **inputs: Any) -> Any:
    return asyncio.run(asyncify(program, runtime=Runtime(account=Account()), execution=execution)(**inputs))


class Inner(dspy.Module):  # type: ignore[misc,unused-ignore]
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def forward(self, said: str) -> dspy.Prediction:
        self.seen.append(dspy.settings.caller_modules)
        return dspy.Prediction(said=said)

    async def aforward(self, said: str) -> dspy.Prediction:
        return self.forward_now(said)

    def forward_now(self, said: str) -> dspy.Prediction:
        self.seen.append(dspy.settings.caller_modules)
        return dspy.Prediction(said=said)


class Outer(dspy.Module):  # type: ignore[misc,unused-ignore]
    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()
        self.after: Any = None

    def forward(self, said: str) -> dspy.Prediction:
        self.inner(said)
        with dspy.context(temperature_of_mine=3):
            made = self.inner(said=said)
        self.after = (dspy.settings.caller_modules, "temperature_of_mine" in dspy.settings)
        return made

    async def aforward(self, said: str) -> dspy.Prediction:
        await self.inner.acall(said)
        with dspy.context(temperature_of_mine=3):
            made = await self.inner.acall(said=said)
        self.after = (dspy.settings.caller_modules, "temperature_of_mine" in dspy.settings)
        return made


@pytest.fixture
def entered(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each call of a module: whether it was called the shorter way."""
    found: list[bool] = []
    own = modules.is_quiet

    def noted(called: Any, here: Any) -> bool:
        found.append(own(called, here))
        return found[-1]

    monkeypatch.setattr(modules, "is_quiet", noted)
    return found


WAYS = pytest.mark.parametrize("execution", ["native", "thread", "inline"])


@WAYS
def test_modules_know_who_calls_them(execution: Any, entered: list[bool], caplog: pytest.LogCaptureFixture) -> None:
    outer = Outer()
    with caplog.at_level(logging.WARNING, logger="dspy"):
        assert run(outer, execution, said="yes").said == "yes"
    first, second = outer.inner.seen
    assert list(first) == list(second) == [outer, outer.inner]
    assert first is not second, "the list is one invocation"
    assert outer.after == ([outer], False)
    assert entered == [True] * 3
    assert "directly is discouraged" not in caplog.text


class Heard(BaseCallback):  # type: ignore[misc,unused-ignore]
    def __init__(self) -> None:
        self.modules: list[str] = []

    def on_module_start(self, call_id: str, instance: Any, inputs: Any) -> None:
        self.modules.append(type(instance).__name__)


@WAYS
def test_callbacks_of_modules_and_of_the_settings_are_called(execution: Any, entered: list[bool]) -> None:
    outer, heard = Outer(), Heard()
    outer.inner.callbacks.append(heard)
    run(outer, execution, said="yes")
    assert heard.modules == ["Inner", "Inner"]
    with dspy.context(callbacks=[heard]):
        run(Outer(), execution, said="yes")
    assert heard.modules == ["Inner"] * 2 + ["Outer", "Inner", "Inner"]
    assert entered[0]
    assert not any(entered[1:])


def test_a_wrapper_around_the_call_of_modules_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    run(Outer(), "native", said="yes")
    own, calls = dspy.Module.acall, []

    async def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(type(self).__name__)
        return await own(self, *args, **kwargs)

    monkeypatch.setattr(dspy.Module, "acall", wrapper)
    run(Outer(), "native", said="yes")
    modules.install()
    run(Outer(), "native", said="yes")
    assert calls == ["Outer", "Inner", "Inner"] * 2
    assert dspy.Module.acall is wrapper


class Brief(dspy.Predict):  # type: ignore[misc,unused-ignore]
    async def acall(self, **inputs: Any) -> Any:
        return dspy.Prediction(
            answer=f"{inputs['question']} said by {[type(m) for m in dspy.settings.caller_modules or ()]}"
        )


def test_methods_of_a_programs_own_are_called_first(entered: list[bool]) -> None:
    """The program of a run is awaited past ``acall``, unless it has one of its own."""
    assert run(Brief("question -> answer"), "native", question="?").answer == "? said by []"
    inner = Inner()
    object.__setattr__(inner, "acall", Outer().inner.acall)
    assert run(inner, "native", said="yes").said == "yes"
    assert inner.seen == []
    assert entered == [True]


def test_positional_arguments_are_refused_in_dspys_own_words() -> None:
    program = asyncify(dspy.Predict("question -> answer"), runtime=Runtime(account=Account()), execution="native")
    with pytest.raises(ValueError, match="Positional arguments are not allowed"):
        asyncio.run(program("Paris?"))


def test_outside_of_a_run_dspys_own_way_is_taken(entered: list[bool]) -> None:
    run(Inner(), "native", said="yes")
    heard = Heard()
    with dspy.context(callbacks=[heard]):
        Outer()(said="yes")
    assert entered == [True, False, False, False]
    assert heard.modules == ["Outer", "Inner", "Inner"]


@pytest.mark.parametrize(
    "values", [[{"answer": "Paris", "score": 3}], [{"answer": None}], [{"answer": "a"}, {"answer": "b"}]]
)
def test_a_prediction_is_what_dspy_makes_of_the_same_values(values: list[dict[str, Any]]) -> None:
    signature = dspy.Signature("question -> answer")
    ours, theirs = prediction_of(values, signature), dspy.Prediction.from_completions(values, signature=signature)
    assert type(ours) is type(theirs)
    assert vars(ours).keys() == vars(theirs).keys()
    assert (ours.toDict(), repr(ours), ours.get_lm_usage()) == (theirs.toDict(), repr(theirs), theirs.get_lm_usage())
    assert vars(ours.completions) == vars(theirs.completions)
    assert copy.deepcopy(ours) == theirs
    ours.answer = "changed"
    assert (ours.answer, values[0]["answer"] == "changed") == ("changed", False)


def test_a_prediction_class_that_was_changed_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    own = dspy.Prediction.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        made.append(self)
        own(self, *args, **kwargs)

    monkeypatch.setattr(dspy.Prediction, "__init__", init)
    assert prediction_of([{"answer": "Paris"}], None) in made
