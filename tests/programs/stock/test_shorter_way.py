"""A stock predictor in a run: the same request, prediction, history and trace by the shorter way as by DSPy's own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import dspy
import pytest
from dspy.utils.callback import BaseCallback
from dspy.utils.exceptions import AdapterParseError
from tests.programs.conftest import MODEL, Sim

from dspy_live import LM, Runtime, asyncify, streamify
from dspy_live.core.call import Call
from dspy_live.core.events import Completion, TextDelta
from dspy_live.programs.stock import predict as stock
from dspy_live.runtime.books.account import Account

CHAT = "[[ ## answer ## ]]\nParis\n\n[[ ## completed ## ]]\n"


class Replies:
    """An endpoint that answers with texts, one after the other, and keeps the requests."""

    def __init__(self, *texts: str, **message: Any) -> None:
        self.texts = list(texts)
        self.message = message
        self.requests: list[dict[str, Any]] = []

    async def __call__(self, call: Call, sink: Any) -> Completion:
        self.requests.append(dict(call.inputs))
        text = self.texts.pop(0) if len(self.texts) > 1 else self.texts[0]
        if call.stream:
            sink.push(TextDelta(text))
        message = {"role": "assistant", "content": text, **self.message}
        usage = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
        return Completion({"choices": [{"index": 0, "finish_reason": "stop", "message": message}], "usage": usage})

    def lm(self, **options: Any) -> LM:
        return LM(MODEL, api_key="x", endpoint=self, **{"cache": False, **options})


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """For each call of a predictor: whether it took the shorter way."""
    found: list[bool] = []
    call_of = stock._call_of

    def noted(*args: Any) -> Any:
        call = call_of(*args)
        found.append(call is not None)
        return call

    monkeypatch.setattr(stock, "_call_of", noted)
    return found


def run(program: Any, execution: Any = None, **inputs: Any) -> Any:
    program = asyncify(program, runtime=Runtime(account=Account()), execution=execution)
    return asyncio.run(program(**inputs))


def with_demos() -> dspy.Predict:
    program = dspy.Predict(dspy.Signature("question -> answer", "Be brief."))
    program.demos = [dspy.Example(question="1 + 1?", answer="2"), {"question": "Left out?"}]
    return program


def plain(options: dict[str, Any]) -> dict[str, Any]:
    """What an LM is asked for, with the schema in place of the class that is made of it."""
    given = {name: value for name, value in options.items() if value is not None}
    return {name: v.model_json_schema() if isinstance(v, type) else v for name, v in given.items()}


REPLIES = {
    dspy.ChatAdapter: CHAT,
    dspy.JSONAdapter: '{"answer": "Paris"}',
    dspy.XMLAdapter: "<answer>\nParis\n</answer>",
}


@pytest.mark.parametrize("execution", ["native", "thread", "inline"])
@pytest.mark.parametrize("make", [lambda: dspy.Predict("question -> answer"), with_demos], ids=["bare", "demos"])
@pytest.mark.parametrize("adapter", REPLIES)
def test_same_request_prediction_history_and_trace(execution: Any, make: Any, adapter: Any, ways: list[bool]) -> None:
    seen = []
    for options in ({}, {"max_tokens": 77}):  # DSPy's own way is taken where a predictor has a config
        program, replies, trace = make(), Replies(REPLIES[adapter]), []
        program.config = options
        lm = replies.lm(temperature=0.5, max_tokens=77)
        with dspy.context(lm=lm, adapter=adapter(), trace=trace):
            prediction = run(program, execution, question="Capital of France?")
        entry = {k: v for k, v in lm.history[0].items() if k not in ("timestamp", "uuid", "kwargs")}
        form = plain(lm.history[0]["kwargs"]).get("response_format")
        requests = [plain(request) for request in replies.requests]
        traced = [(inputs, made.toDict()) for _, inputs, made in trace]
        seen.append((prediction.toDict(), requests, entry, traced, form))
        assert isinstance(prediction.completions, dspy.primitives.prediction.Completions)
    assert ways == [True, False]
    assert seen[0] == seen[1]


@pytest.mark.parametrize("can", [[], ["response_schema"]], ids=["any object", "a schema"])
def test_form_of_a_json_reply_is_the_same_on_the_wire_and_in_the_cache(
    can: list[str], ways: list[bool], sim: Sim
) -> None:
    class Town(dspy.Signature):
        """Name a town."""

        country: str = dspy.InputField()
        town: str = dspy.OutputField()
        inhabitants: int = dspy.OutputField()
        rivers: list[str] = dspy.OutputField()

    sim.server.keep_requests = True
    cached = []
    for config in ({}, {"temperature": 0.5}):
        with dspy.context(lm=sim.lm(capabilities=can, temperature=0.5, cache=True), adapter=dspy.JSONAdapter()):
            program = dspy.Predict(Town, **config)
            cached.append(run(program, country=f"Utopia {can} {sim.url}").toDict())
    assert ways == [True, False]
    assert cached[0] == cached[1]
    (sent,) = sim.server.requests  # the second call found the first one's reply: it has the same key in the cache
    assert sent["response_format"]["type"] == ("json_schema" if can else "json_object")


async def test_streamed_fields_of_a_nested_predictor(ways: list[bool]) -> None:
    text = "[[ ## reasoning ## ]]\nIt is known.\n\n" + CHAT
    with dspy.context(lm=Replies(text).lm()):
        program = dspy.ChainOfThought("question -> answer")
        items = [item async for item in streamify(program, runtime=Runtime(account=Account()))(question="?")]
    tokens = "".join(item.chunk for item in items[:-1] if getattr(item, "signature_field_name", "") == "reasoning")
    assert (tokens, items[-1].answer, ways) == ("It is known.", "Paris", [True])


def test_reply_that_can_not_be_read_is_asked_for_as_json(ways: list[bool]) -> None:
    replies = Replies("no fields at all", '{"answer": "Paris"}')
    with dspy.context(lm=replies.lm()):
        assert run(dspy.Predict("question -> answer"), question="?").answer == "Paris"
    assert (len(replies.requests), ways) == (2, [True])


def test_json_reply_that_is_to_be_repaired(ways: list[bool]) -> None:
    replies = Replies("Here it is: {'answer': 'Paris',}", '{"answer": "Rome"}')
    with dspy.context(lm=replies.lm(), adapter=dspy.JSONAdapter()):
        assert run(dspy.Predict("question -> answer"), question="?").answer == "Paris"
    assert (len(replies.requests), ways) == (1, [True])


def test_json_reply_that_can_not_be_read_is_an_error(ways: list[bool]) -> None:
    replies = Replies("no fields at all")
    with dspy.context(lm=replies.lm(), adapter=dspy.JSONAdapter()), pytest.raises(AdapterParseError, match="JSON"):
        run(dspy.Predict("question -> answer"), question="?")
    assert (len(replies.requests), ways) == (1, [True])


@pytest.mark.parametrize(
    ("signature", "inputs"),
    [
        ("context, question -> answer", {"context": ["a", "b"], "question": "?"}),
        ("context: list[str], question -> answer", {"context": ["a", "b"], "question": "?"}),
        ("question: str, score: float, tries: int, last: bool -> answer",
         {"question": "?", "score": 0.5, "tries": 3, "last": True}),
    ],
    ids=["a list for text", "a list", "numbers"],
)  # fmt: skip
def test_inputs_of_plain_types(signature: str, inputs: dict[str, Any], ways: list[bool]) -> None:
    replies = Replies(CHAT)
    with dspy.context(lm=replies.lm()):
        for config in ({}, {"max_tokens": None}):
            run(dspy.Predict(signature, **config), **inputs)
    assert ways == [True, False]
    assert replies.requests[0]["messages"] == replies.requests[1]["messages"]


def test_demos_that_were_changed_in_place_are_sent_as_they_are(ways: list[bool]) -> None:
    program, replies = with_demos(), Replies(CHAT)
    with dspy.context(lm=replies.lm()):
        run(program, question="?")
        replies.requests[0]["messages"][1]["content"] = "spoilt"
        program.demos[0].answer = "three"
        run(program, question="?")
        program.demos.pop(0)
        run(program, question="?")
    first, second, third = (" ".join(m["content"] for m in request["messages"]) for request in replies.requests)
    assert ("three" in first, "three" in second, "spoilt" in second) == (False, True, False)
    assert ("1 + 1?" in second, "1 + 1?" in third) == (True, False)
    assert ways == [True] * 3


def test_reply_that_can_not_be_read_fails_without_a_fallback(ways: list[bool]) -> None:
    adapter = dspy.ChatAdapter(use_json_adapter_fallback=False)
    with dspy.context(lm=Replies("no fields at all").lm(), adapter=adapter), pytest.raises(AdapterParseError):
        run(dspy.Predict("question -> answer"), question="?")
    assert ways == [True]


def test_reply_with_more_than_text(ways: list[bool]) -> None:
    replies = Replies(CHAT, reasoning_content="Let me think.")
    lm = replies.lm()
    with dspy.context(lm=lm):
        assert run(dspy.Predict("question -> answer"), question="?").answer == "Paris"
    assert (ways, lm.history[0]["outputs"][0]["reasoning_content"]) == ([True], "Let me think.")


class Sub(dspy.Predict):
    def _forward_preprocess(self, **kwargs: Any) -> Any:
        kwargs["question"] = kwargs["question"].upper()
        return super()._forward_preprocess(**kwargs)


class Shouting(dspy.ChatAdapter):
    def format_task_description(self, signature: Any) -> str:
        return "SHOUT."


class Heard(BaseCallback):
    def __init__(self) -> None:
        self.formats = 0

    def on_adapter_format_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        self.formats += 1


def test_subclass_of_predict_takes_dspys_way(ways: list[bool]) -> None:
    replies = Replies(CHAT)
    with dspy.context(lm=replies.lm()):
        run(Sub("question -> answer"), question="capital?")
    assert ways == [False]
    assert "CAPITAL?" in replies.requests[0]["messages"][-1]["content"]


def test_subclass_of_the_adapter_takes_dspys_way(ways: list[bool]) -> None:
    replies = Replies(CHAT)
    with dspy.context(lm=replies.lm(), adapter=Shouting()):
        run(dspy.Predict("question -> answer"), question="?")
    assert ways == [False]
    assert "SHOUT." in replies.requests[0]["messages"][0]["content"]


@pytest.mark.parametrize("where", ["settings", "adapter", "lm"])
def test_callbacks_are_called(where: str, ways: list[bool]) -> None:
    heard = Heard()
    options: dict[str, Any] = {"lm": Replies(CHAT).lm(), "adapter": dspy.ChatAdapter()}
    if where == "settings":
        options["callbacks"] = [heard]
    elif where == "adapter":
        options["adapter"] = dspy.ChatAdapter(callbacks=[heard])
    else:
        options["lm"].callbacks = [heard]
    with dspy.context(**options):
        run(dspy.Predict("question -> answer"), question="?")
    assert (ways, heard.formats) == ([False], 0 if where == "lm" else 1)


@pytest.mark.parametrize("name", ["format", "parse", "format_user_message_content", "_call_postprocess"])
def test_method_of_the_adapter_object_is_called(name: str, ways: list[bool]) -> None:
    adapter, calls = dspy.ChatAdapter(), []
    own = getattr(adapter, name)

    def exchanged(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        return own(*args, **kwargs)

    setattr(adapter, name, exchanged)
    with dspy.context(lm=Replies(CHAT).lm(), adapter=adapter):
        assert run(dspy.Predict("question -> answer"), question="?").answer == "Paris"
    assert (ways, calls) == ([False], [name])


@pytest.mark.parametrize("where", ["object", "class"])
def test_exchanged_acall_of_the_lm_is_called(where: str, ways: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    lm = Replies("no fields at all").lm()

    async def exchanged(*args: Any, **kwargs: Any) -> list[str]:
        return [CHAT]

    monkeypatch.setattr(lm if where == "object" else LM, "acall", exchanged)
    with dspy.context(lm=lm):
        assert run(dspy.Predict("question -> answer"), "native", question="?").answer == "Paris"
    assert ways == [False]


@pytest.mark.parametrize(
    "name", ["format_task_description", "format_field_structure", "user_message_output_requirements"]
)
@pytest.mark.parametrize("config", [{}, {"max_tokens": 77}], ids=["shorter way", "DSPy's way"])
def test_text_of_an_exchanged_method_is_sent_while_it_is_exchanged(
    name: str, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    replies, program = Replies(CHAT), dspy.Predict("question -> answer", **config)
    own = getattr(dspy.ChatAdapter, name)
    with dspy.context(lm=replies.lm()):
        run(program, question="?")
        with monkeypatch.context() as patch:
            patch.setattr(dspy.ChatAdapter, name, lambda self, signature: f"SHOUT. {own(self, signature)}")
            run(program, question="?")
        run(program, question="?")
    assert ["SHOUT." in str(request["messages"]) for request in replies.requests] == [False, True, False]


@pytest.mark.parametrize("config", [{}, {"max_tokens": 77}], ids=["shorter way", "DSPy's way"])
def test_field_that_is_changed_in_place(config: dict[str, Any]) -> None:
    replies = Replies("[[ ## answer ## ]]\n5\n\n[[ ## completed ## ]]\n")
    program = dspy.Predict("question -> answer", **config)
    with dspy.context(lm=replies.lm()):
        assert run(program, question="?").answer == "5"
        field = program.signature.model_fields["answer"]
        field.json_schema_extra["desc"] = "in dozens"
        field.annotation = int
        assert run(program, question="?").answer == 5
    system, user = (message["content"] for message in replies.requests[1]["messages"])
    assert "in dozens" in system
    assert "must be formatted as a valid Python int" in user


@pytest.mark.parametrize("name", ["format", "parse", "format_user_message_content"])
def test_method_that_a_library_has_wrapped_is_called(
    name: str, ways: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, calls = getattr(dspy.ChatAdapter, name), []

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        return own(*args, **kwargs)

    monkeypatch.setattr(dspy.ChatAdapter, name, wrapper)
    with dspy.context(lm=Replies(CHAT).lm()):
        run(dspy.Predict("question -> answer"), question="?")
    assert ways == [False]


@pytest.mark.parametrize(
    ("inputs", "signature"),
    [
        ({"question": "5"}, "question: int -> answer"),
        ({"question": True}, "question: int -> answer"),
        ({"question": {"a": 1}}, "question: dict[str, int] -> answer"),
        ({"question": "?", "more": "x"}, "question -> answer"),
        ({}, "question -> answer"),
    ],
    ids=["text for a number", "no number", "a mapping", "a field too many", "a field too few"],
)
def test_inputs_that_dspy_looks_into(inputs: dict[str, Any], signature: str, ways: list[bool]) -> None:
    with dspy.context(lm=Replies(CHAT).lm()):
        assert run(dspy.Predict(signature), **inputs).answer == "Paris"
    assert ways == [False]


@pytest.mark.parametrize("options", [{"n": 2}, {"rollout_id": 3, "temperature": 1.0}], ids=str)
def test_options_that_dspy_prepares_a_call_for(options: dict[str, Any], ways: list[bool]) -> None:
    with dspy.context(lm=Replies(CHAT).lm(**options)):
        assert run(dspy.Predict("question -> answer"), question="?").answer == "Paris"
    assert ways == [False]


def test_text_that_no_provider_can_receive_is_refused(ways: list[bool]) -> None:
    with dspy.context(lm=Replies(CHAT).lm()), pytest.raises(ValueError, match="lone surrogate U\\+DC80"):
        run(dspy.Predict("question -> answer"), question="\udc80")


def test_outside_of_a_run_nothing_changes(ways: list[bool]) -> None:
    with dspy.context(lm=Replies(CHAT).lm()):
        run(dspy.Predict("question -> answer"), question="?")
        assert dspy.Predict("question -> answer")(question="?").answer == "Paris"
    assert ways == [True, False]
