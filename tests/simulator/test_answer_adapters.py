"""The simulated LM's answers are parsed by DSPy's own adapters, for every type that a signature may have."""

from __future__ import annotations

import enum
import warnings
from datetime import date
from types import SimpleNamespace as Namespace
from typing import Any, Literal

import dspy
import pytest
from dspy.adapters.baml_adapter import BAMLAdapter
from dspy.primitives.local_interpreter import LocalInterpreter
from pydantic import BaseModel, Field

from dspy_live.simulator import answer, reply


class Mood(enum.Enum):
    calm = "calm"
    tense = "a bit tense"


class Address(BaseModel):
    street: str
    city: str


class Item(BaseModel):
    name: str
    qty: int = Field(ge=1)
    tags: list[str] = []
    address: Address | None = None


class Everything(dspy.Signature):
    """Fill in every field."""

    question: str = dspy.InputField()
    ok: bool = dspy.OutputField()
    count: int = dspy.OutputField(ge=3, le=5)
    share: float = dspy.OutputField(ge=0.0, le=1.0)
    kind: Literal["plain", "two words", 3] = dspy.OutputField()
    numbers: list[int] = dspy.OutputField()
    table: dict[str, float] = dspy.OutputField()
    by_number: dict[int, str] = dspy.OutputField()
    anything: dict[str, Any] = dspy.OutputField()
    items: list[Item] = dspy.OutputField()
    pair: tuple[int, str] = dspy.OutputField()
    maybe: str | None = dspy.OutputField()
    maybe_number: int | None = dspy.OutputField()
    when: date = dspy.OutputField()
    reasoning: str = dspy.OutputField(desc="think (first): then speak")
    answer: str = dspy.OutputField()


class WithEnum(dspy.Signature):
    """An enumeration is shown by its values in the chat and JSON prompts only."""

    question: str = dspy.InputField()
    mood: Mood = dspy.OutputField()
    answer: str = dspy.OutputField()


class SimulatedLM(dspy.BaseLM):  # type: ignore[misc]
    """The plainest LM object that asks the answering core."""

    def __init__(self, seed: int = 0, **kwargs: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            super().__init__(model="simulated", cache=False)
        self.seed = seed
        self.bodies: list[dict[str, Any]] = []

    def forward(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> Any:
        body = {"model": "simulated", "messages": messages, **{k: v for k, v in kwargs.items() if v is not None}}
        self.bodies.append(body)
        made = reply(body, seed=self.seed)
        calls = [
            Namespace(id=c.id, type="function", function=Namespace(name=c.name, arguments=c.arguments))
            for c in made.tool_calls
        ]
        message = Namespace(content="".join(made.tokens) or None, tool_calls=calls or None, reasoning_content=None)
        choice = Namespace(index=0, message=message, finish_reason=made.finish_reason)
        return Namespace(model="simulated", choices=[choice], usage={}, _hidden_params={})


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

ADAPTERS = {
    "chat": dspy.ChatAdapter(use_json_adapter_fallback=False),
    "json": dspy.JSONAdapter(),
    "xml": dspy.XMLAdapter(use_json_adapter_fallback=False),
    "baml": BAMLAdapter(),
}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", ADAPTERS)
def test_every_type_is_parsed(name: str, seed: int) -> None:
    lm = SimulatedLM(seed)
    with dspy.context(lm=lm, adapter=ADAPTERS[name]):
        prediction = dspy.Predict(Everything)(question="Why is the sky blue?")
    assert isinstance(prediction.ok, bool)
    assert 3 <= prediction.count <= 5
    assert 0 <= prediction.share <= 1
    assert prediction.kind in ("plain", "two words", 3)
    assert prediction.numbers
    assert all(isinstance(n, int) for n in prediction.numbers)
    assert all(isinstance(item, Item) for item in prediction["items"])
    assert isinstance(prediction.maybe_number, int)
    assert isinstance(prediction.when, date)
    assert "sky" in prediction.answer
    assert len(lm.bodies) == 1, "no second request was needed"


@pytest.mark.parametrize("name", ["chat", "json", "xml"])
def test_an_enum_is_parsed(name: str) -> None:
    with dspy.context(lm=SimulatedLM(), adapter=ADAPTERS[name]):
        assert dspy.Predict(WithEnum)(question="How is it?").mood in Mood


@pytest.mark.parametrize("name", ADAPTERS)
def test_react_calls_a_tool_and_finishes(name: str) -> None:
    called: list[dict[str, Any]] = []

    def search(query: str, limit: int = 3) -> str:
        """Search the library.

        It takes words.
        """
        called.append({"query": query, "limit": limit})
        return "found"

    def add(a: int, b: int) -> int:
        called.append({"a": a, "b": b})
        return a + b

    lm = SimulatedLM()
    with dspy.context(lm=lm, adapter=ADAPTERS[name]):
        prediction = dspy.ReAct("question -> answer", tools=[search, add])(question="How tall is the tower?")
    assert 1 <= len(called) <= 2
    tools = [v for k, v in prediction.trajectory.items() if k.startswith("tool_name")]
    assert tools[-1] == "finish"
    assert len(tools) == len(called) + 1
    assert "tower" in prediction.answer


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("name", ADAPTERS)
def test_the_newer_react_submits(name: str, native: bool) -> None:
    called: list[str] = []

    def search(query: str, limit: int = 3) -> str:
        """Search the library."""
        called.append(query)
        return "found"

    def add(a: int, b: int) -> int:
        called.append(f"{a} + {b}")
        return a + b

    adapter = type(ADAPTERS[name])(use_native_function_calling=native)
    with dspy.context(lm=SimulatedLM(), adapter=adapter):
        prediction = dspy.ReActV2("question -> answer, metres: int", tools=[search, add])(question="How tall is it?")
    assert 1 <= len(called) <= 2
    assert isinstance(prediction.metres, int)
    assert prediction.answer


@pytest.mark.parametrize("module", [dspy.ProgramOfThought, dspy.RLM])
def test_modules_that_run_code_get_code_that_runs(module: Any) -> None:
    with dspy.context(lm=SimulatedLM(), adapter=ADAPTERS["chat"]):
        program = module("question -> answer, total", interpreter_factory=LocalInterpreter)
        prediction = program(question="How many?")
    assert isinstance(prediction.answer, str)
    assert isinstance(prediction.total, str)


def test_two_step_adapter() -> None:
    lm = SimulatedLM()
    with dspy.context(lm=lm, adapter=dspy.TwoStepAdapter(lm)):
        prediction = dspy.Predict("question -> score: int, answer")(question="Why do cats sleep?")
    assert isinstance(prediction.score, int)
    assert prediction.answer


def test_history_and_demos_do_not_confuse_it() -> None:
    predict = dspy.Predict("question, history: dspy.History -> answer, sure: bool")
    predict.demos = [dspy.Example(question="Demo?", answer="Shown", sure=True)]
    history = dspy.History(messages=[{"question": "Before?", "answer": "Then", "sure": False}])
    with dspy.context(lm=SimulatedLM(), adapter=ADAPTERS["chat"]):
        prediction = predict(question="Who built the bridge?", history=history)
    assert "bridge" in prediction.answer
    assert isinstance(prediction.sure, bool)


def test_native_tools() -> None:
    def lookup(city: str, days: int) -> str:
        return "sun"

    class Ask(dspy.Signature):
        question: str = dspy.InputField()
        tools: list[dspy.Tool] = dspy.InputField()
        calls: dspy.ToolCalls = dspy.OutputField()

    for native in (True, False):
        adapter = dspy.ChatAdapter(use_native_function_calling=native, use_json_adapter_fallback=False)
        with dspy.context(lm=SimulatedLM(), adapter=adapter):
            prediction = dspy.Predict(Ask)(question="Weather?", tools=[dspy.Tool(lookup)])
        call = prediction.calls.tool_calls[0]
        assert call.name == "lookup"
        assert isinstance(call.args["city"], str)
        assert isinstance(call.args["days"], int)


def test_json_schema_without_an_adapter() -> None:
    body = {
        "messages": [{"role": "user", "content": "An item, please"}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "item", "schema": Item.model_json_schema()}},
    }
    Item.model_validate_json(answer(body))


def test_plain_text_mentions_the_question() -> None:
    text = answer({"messages": [{"role": "user", "content": "Why do volcanoes erupt?"}]})
    assert "volcanoes" in text
    assert text.endswith(".")
