"""Replies of the LM that were cut: what each door says of them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from tests.server.support import QA, USAGE, Tape, http, qa, serving, sse
from tests.support.until import BOUND
from websockets.sync.client import connect

from dspy_live.core.call import Call
from dspy_live.core.errors import LMBadReply
from dspy_live.core.events import Predicted, Started
from dspy_live.core.schema import Schema
from dspy_live.server import ServedProgram

CUT = msgspec.structs.replace(USAGE, truncated=True)
QUESTION = {"question": "why?"}


def giving(outputs: dict[str, Any], schema: Schema = QA, *, failing: bool = False) -> ServedProgram:
    async def script(call: Call, tape: Tape) -> None:
        await tape.push(Started(call.id))
        if call.stream and outputs.get("answer"):
            await tape.tokens(outputs["answer"])
        await tape.push(CUT, Predicted(outputs))
        if failing:
            raise LMBadReply("the LM's reply could not be read as the program's output")

    return qa(script, schema)


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "qa", "messages": [{"role": "user", "content": "why?"}], **more}


def test_a_part_of_an_answer_is_given_and_called_that() -> None:
    with serving(giving({"reasoning": "hm", "answer": "some"})) as live:
        plain = http.post(live.url + "/predict", json=QUESTION).json()
        whole = http.post(live.url + "/v1/chat/completions", json=chat()).json()
        streamed = http.post(live.url + "/v1/chat/completions", json=chat(stream=True)).text
    assert plain["run"]["truncated"] is True
    assert whole["choices"][0]["message"]["content"] == "some"
    assert whole["choices"][0]["finish_reason"] == "length"
    reasons = [json.loads(line[6:])["choices"][0]["finish_reason"] for line in streamed.split("\n") if "delta" in line]
    assert reasons[-1] == "length"
    assert set(reasons[:-1]) == {None}


@pytest.mark.parametrize("value", ["", None])
def test_an_output_that_is_empty_is_an_error_by_its_name(value: Any) -> None:
    with serving(giving({"reasoning": "hm", "answer": value})) as live:
        replies = [(http.post(live.url + "/predict", json=QUESTION), "type")]
        for stream in (False, True):
            replies.append((http.post(live.url + "/v1/chat/completions", json=chat(stream=stream)), "code"))
        events = sse(http.post(live.url + "/predict/stream", json=QUESTION).text)
        with connect(live.ws + "/ws") as socket:
            socket.send(json.dumps({"type": "start", "id": 1, "inputs": QUESTION, "credit": 0}))
            last = [json.loads(socket.recv(BOUND)) for _ in range(4)][-2]
    for reply, key in replies:
        assert (reply.status_code, reply.json()["error"][key]) == (502, "lm_truncated")
        assert reply.headers["x-should-retry"] == "false"
        assert "'answer' came out empty" in reply.json()["error"]["message"]
    assert events[-2][2]["error"]["type"] == last["data"]["error"]["type"] == "lm_truncated"


def test_an_output_that_may_be_empty_is_no_error() -> None:
    schema = replace(QA, outputs=(QA.outputs[0], replace(QA.outputs[1], required=False)))
    with serving(giving({"reasoning": "hm", "answer": None}, schema)) as live:
        reply = http.post(live.url + "/predict", json=QUESTION)
    assert reply.status_code == 200
    assert reply.json()["run"]["truncated"] is True


def test_a_reply_that_was_cut_so_that_it_could_not_be_read() -> None:
    with serving(giving({}, failing=True)) as live:
        reply = http.post(live.url + "/predict", json=QUESTION)
    assert reply.json()["error"]["type"] == "lm_truncated"
