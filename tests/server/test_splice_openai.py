"""OpenAI's protocol over a spliced stream: the same chunks of text, without a step in Python for each."""

from __future__ import annotations

import json
from random import Random

import dspy
from tests.server.splice_lm import ScriptedLM, compiled, splicer, steps_of
from tests.server.support import Live, http, serving
from tests.server.test_splice import pieces, reply, words

import dspy_live

SIGNATURE = dspy.Signature("question -> reason: str, count: int, answer: str, sources: list[str]")


def program_over(lm: ScriptedLM, signature: object) -> dspy.Predict:
    program = dspy.Predict(signature)
    program.set_lm(dspy_live.LM("openai/tiny", api_base=lm.url, api_key="x", cache=False, num_retries=0))
    return program


def chat(live: Live) -> tuple[str, list[object]]:
    """The content of a streamed chat completion, and all that its chunks say besides."""
    body = {
        "model": "main",
        "messages": [{"role": "user", "content": "why?"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    content, besides = "", []
    for line in http.post(live.url + "/v1/chat/completions", json=body).text.splitlines():
        if line.startswith("data: {"):
            chunk = json.loads(line[6:])
            for choice in chunk["choices"]:
                content += choice["delta"].pop("content", "")
            said = [choice for choice in chunk["choices"] if choice["delta"] or choice["finish_reason"]]
            besides.append((chunk["object"], said, chunk.get("usage")))
    return content, [one for one in besides if one[1] or one[2]]


def test_openais_clients_read_the_same_with_splicing_and_without() -> None:
    random = Random("splice openai")
    answers = ["So " + words(random, "chat").strip() + "." for _ in range(8)]
    scripts = [steps_of(pieces(random, f"[[ ## answer ## ]]\n{text}\n\n[[ ## completed ## ]]")) for text in answers]
    found: list[list[tuple[str, list[object]]]] = []
    for on in (True, False):
        with compiled(on), ScriptedLM() as lm:
            app = dspy_live.create_app({"main": program_over(lm, "question -> answer")})
            with serving(app) as live:
                lm.paced_by(live)
                found.append([])
                for lm.script in scripts:
                    found[-1].append(chat(live))
                if on:
                    ours = splicer(live)
                    assert ours is not None
                    assert (len(ours), ours.passed > 50) == (0, True)
    assert found[0] == found[1]


def test_only_the_field_that_is_the_answer_is_spliced_into_a_chat() -> None:
    said = reply("chat", "reason " * 60, "answer " * 10)
    with compiled(True), ScriptedLM(steps_of(pieces(Random(1), said))) as lm:
        app = dspy_live.create_app({"main": program_over(lm, SIGNATURE)})
        with serving(app) as live:
            lm.paced_by(live)
            content, _ = chat(live)
            ours = splicer(live)
            assert ours is not None
            assert ours.passed < len(pieces(Random(1), "answer " * 10)) + 5
    assert content == ("answer " * 10).strip()
