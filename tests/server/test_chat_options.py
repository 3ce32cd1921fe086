"""What a client of OpenAI's may ask for besides an answer in prose, and the refusal of what a program can't do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from tests.server.support import QA, USAGE, Live, Tape, http, qa, serving

from dspy_live.core.call import Call
from dspy_live.core.errors import LMFailed
from dspy_live.core.events import Predicted, Started
from dspy_live.core.schema import Field, Schema

OUTPUTS = (*QA.outputs, Field("score", type="int", json_schema={"type": "integer"}))
GIVEN = {"reasoning": "hm", "answer": "yes", "score": 7}
MESSAGES: Any = [{"role": "user", "content": "why?"}]


async def script(call: Call, tape: Tape) -> None:
    await tape.push(Started(call.id))
    if call.stream:
        await tape.tokens("yes")
    await tape.push(USAGE, Predicted(GIVEN | {"score": call.config.get("rollout_id", 7)}))


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with serving(qa(script, Schema("N", QA.inputs, OUTPUTS))) as server:
        yield server


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=live.url + "/v1", api_key="none", max_retries=0) as made:
        yield made


def ask(live: Live, **more: Any) -> Any:
    return http.post(live.url + "/v1/chat/completions", json={"model": "qa", "messages": MESSAGES, **more})


def schema_of(**properties: Any) -> dict[str, Any]:
    asked = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": "Answer", "strict": True, "schema": asked}}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("functions", [{"name": "f"}]),
        ("tool_choice", "required"),
        ("tool_choice", {"type": "function", "function": {"name": "f"}}),
        ("logprobs", True),
        ("top_logprobs", 3),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "a"}),
        ("web_search_options", {}),
        ("store", True),
        ("nonsense", 1),
        ("n", 0),
        ("n", True),
        ("n", 17),
        ("stream", "yes"),
        ("response_format", {"type": "xml"}),
        ("response_format", "json"),
        ("response_format", schema_of(title={"type": "string"})),
        ("response_format", schema_of(score={"type": "string"})),
    ],
)
def test_a_parameter_that_a_program_can_not_do_is_refused_by_its_name(
    live: Live, client: openai.OpenAI, name: str, value: Any
) -> None:
    """It was ignored, and the answer was prose."""
    runs = len(live.service.calls)
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="qa", messages=MESSAGES, extra_body={name: value})
    assert refused.value.param == name
    assert refused.value.type == "invalid_request_error"
    assert refused.value.code in ("unsupported_parameter", "bad_request")
    assert len(live.service.calls) == runs


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True},
        {"tools": [{"type": "function"}], "tool_choice": "none"},
        {"logprobs": False, "top_logprobs": None, "store": False, "n": 1, "response_format": {"type": "text"}},
        {"user": "u", "metadata": {"a": "b"}, "service_tier": "auto", "modalities": ["text"]},
    ],
)
def test_a_parameter_that_asks_for_nothing_is_no_hindrance(live: Live, more: dict[str, Any]) -> None:
    assert ask(live, **more).json()["choices"][0]["message"]["content"] == "yes"


def test_sampling_options_reach_the_lm_and_wrong_ones_are_named(live: Live) -> None:
    wanted = {"temperature": 0.5, "stop": ["\n"], "top_p": 0.9, "logit_bias": {"5": 1}, "reasoning_effort": "low"}
    assert ask(live, **wanted).status_code == 200
    assert live.service.calls[-1].config == wanted
    error = ask(live, stop=5).json()["error"]
    assert (error["param"], error["code"]) == ("stop", "invalid_input")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("wanted", "content"),
    [
        ({"type": "json_object"}, GIVEN),
        (schema_of(answer={"type": "string"}, score={"type": "number"}), {"answer": "yes", "score": 7}),
        (schema_of(score={"type": ["integer", "null"]}), {"score": 7}),
    ],
)
def test_json_is_made_of_the_programs_outputs(live: Live, stream: bool, wanted: Any, content: Any) -> None:
    reply = ask(live, response_format=wanted, stream=stream)
    if stream:
        lines = [line[6:] for line in reply.text.split("\n") if "delta" in line]
        text = "".join(json.loads(line)["choices"][0]["delta"].get("content", "") for line in lines)
    else:
        text = reply.json()["choices"][0]["message"]["content"]
    assert json.loads(text) == content


def test_each_choice_is_a_run_of_its_own(live: Live) -> None:
    reply = ask(live, n=3, response_format={"type": "json_object"}).json()
    scores = [json.loads(choice["message"]["content"])["score"] for choice in reply["choices"]]
    assert scores == [7, 1, 2]  # the rollout ids, which keep the cache from giving one answer three times
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2]
    assert reply["usage"]["total_tokens"] == 3 * USAGE.total_tokens
    assert len({call.id for call in live.service.calls[-3:]}) == 3
    assert ask(live, n=2, stream=True).json()["error"]["param"] == "n"


def test_a_choice_that_fails_ends_the_others() -> None:
    async def failing(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        if "rollout_id" in call.config:
            raise LMFailed("the LM is down")

        await asyncio.Event().wait()

    with serving(qa(failing)) as live:
        reply = ask(live, n=2)
        assert (reply.status_code, reply.json()["error"]["code"]) == (502, "lm_failed")
        assert sorted(live.service.ended.values()) == ["CancelledError", "LMFailed"]


def test_a_history_of_tool_calls_is_read(live: Live) -> None:
    """``content: null`` of an assistant that had called a tool was refused."""
    history = Field("history", type="dspy.History", json_schema={"type": "object"}, required=False)
    turns: list[dict[str, Any]] = [
        {"role": "system", "content": " "},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function"}]},
        {"role": "tool", "tool_call_id": "c", "content": "1"},
        {"role": "assistant", "content": "1"},
    ]
    with serving(qa(schema=Schema("Chat", (Field("question"), history), QA.outputs))) as chat:
        assert ask(chat, messages=[*turns, *MESSAGES]).status_code == 200
        assert chat.service.calls[-1].inputs["history"] == {"messages": [{"question": "one", "answer": "1"}]}
        assert ask(chat, messages=turns[:4]).status_code == 422


def test_a_message_of_an_unknown_role_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="qa", messages=[{"role": "nobody", "content": "rhyme"}, *MESSAGES])
    assert refused.value.param == "messages[0].role"


def test_other_errors_have_openais_shape_too(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="gpt", messages=MESSAGES)
    assert (unknown.value.param, unknown.value.code) == ("model", "not_found")
