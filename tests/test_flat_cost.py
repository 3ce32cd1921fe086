"""A token costs the same in a long reply as in a short one, and beside many streams as beside few.

Counted are Python's instructions, which no busy machine moves. ``bench/scaling.py`` measures CPU time, C code with it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MEASURE = """
import asyncio, json, logging, sys
sys.path.insert(0, "bench")
import dspy
from instructions import count, request
from dspy_live import LM, Runtime, create_app
from dspy_live.core.events import Completion, TextDelta
from dspy_live.runtime.books.account import Account

SHAPES = {
    "chat": (dspy.ChatAdapter, "[[ ## answer ## ]]\\n{}\\n\\n[[ ## completed ## ]]\\n"),
    "json": (dspy.JSONAdapter, '{{"answer": "{}"}}'),
    "xml": (dspy.XMLAdapter, "<answer>\\n{}\\n</answer>"),
}

def app(name, tokens):
    adapter, form = SHAPES[name]
    before, after = form.format("|").split("|")
    words = [f"word{number} " for number in range(tokens)]
    message = {"role": "assistant", "content": before + "".join(words) + after}
    usage = {"prompt_tokens": 9, "completion_tokens": tokens, "total_tokens": tokens + 9}

    async def reply(call, sink):
        for word in (before, *words, after):
            sink.push(TextDelta(word))
            await asyncio.sleep(0)  # all streams go on in turn
        return Completion({"choices": [{"index": 0, "finish_reason": "stop", "message": message}], "usage": usage})

    lm = LM("openai/gpt-4o-mini", api_key="x", endpoint=reply, cache=False)
    dspy.configure(lm=lm, adapter=adapter(), disable_history=True)
    return create_app(dspy.Predict("question -> answer"), runtime=Runtime(account=Account()))

async def cost(name, tokens, streams=1):
    served = app(name, tokens)
    async def work():
        await asyncio.gather(*(request(served, "/predict/stream") for _ in range(streams)))
    return await count(work, 1) / streams

async def measure():
    logging.disable(logging.WARNING)
    found = {}
    for name in SHAPES:
        few, some, many = [await cost(name, tokens) for tokens in (50, 150, 950)]
        found[f"{name}, a further token of a short reply and of a long one"] = (some - few) / 100, (many - some) / 800
    alone = await cost("chat", 20, 5)
    found["a stream of 20 tokens beside few and beside many"] = alone, await cost("chat", 20, 60)
    return found

print(json.dumps(asyncio.run(measure())))
"""


@pytest.mark.timeout(480)
def test_neither_length_nor_number_makes_a_token_dearer() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE], cwd=ROOT, capture_output=True, text=True, timeout=470, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == 4
    dearer = {name: pair for name, pair in found.items() if pair[1] > 1.1 * pair[0]}
    assert not dearer, f"instructions that grow: {dearer}"
