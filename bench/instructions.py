"""How many instructions of Python fixed work takes: a figure that does not depend on the machine or its load.

``python bench/instructions.py`` prints the counts beside those kept in ``bench/instructions.json``; ``--keep`` writes
that file anew. ``tests/test_instructions.py`` fails where a count is more than 5 % above the kept one: make it cheaper,
or keep the new count and say in the commit what it is spent on. C code, such as parsers of JSON and HTTP, is not
counted.
"""

from __future__ import annotations

import asyncio
import json
import logging
import platform
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType
from typing import Any

import dspy

from dspy_live import LM, Runtime, asyncify, create_app
from dspy_live.core.call import Call
from dspy_live.core.events import Completion, TextDelta
from dspy_live.core.sink import Sink
from dspy_live.runtime.books.account import Account

KEPT = Path(__file__).with_name("instructions.json")
VERSION = ".".join(platform.python_version_tuple()[:2])
TOKENS = 100
WORDS = [f"word{number} " for number in range(TOKENS)]
TEXT = f"[[ ## answer ## ]]\n{''.join(WORDS)}\n\n[[ ## completed ## ]]\n"
USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
QUESTION = {"question": "What is the capital of France?"}

Work = Callable[[], Awaitable[object]]


async def reply(call: Call, sink: Sink) -> Completion:
    """An LM's endpoint that answers at once: by word where it is asked to stream."""
    if call.stream:
        for piece in ("[[ ## answer ## ]]\n", *WORDS, "\n\n[[ ## completed ## ]]\n"):
            sink.push(TextDelta(piece))
    message = {"role": "assistant", "content": TEXT}
    return Completion({"choices": [{"index": 0, "finish_reason": "stop", "message": message}], "usage": USAGE})


def works() -> dict[str, Work]:
    """Return the pieces of work that are counted, by their names."""
    lm = LM("openai/gpt-4o-mini", api_key="x", endpoint=reply, cache=False)
    dspy.configure(lm=lm, disable_history=True)
    runtime = Runtime(account=Account())
    app = create_app(dspy.Predict("question -> answer"), runtime=runtime)
    call = asyncify(dspy.Predict("question -> answer"), runtime=runtime)

    return {
        "asyncify, a call": lambda: call(**QUESTION),
        "POST /predict, a request": lambda: request(app, "/predict"),
        f"POST /predict/stream, a request of {TOKENS} tokens": lambda: request(app, "/predict/stream"),
    }


async def request(app: Any, path: str) -> bytes:
    """Send one request to the ASGI application itself and return the reply's body."""
    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": headers,
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
    }  # fmt: skip
    body = json.dumps(QUESTION).encode()
    waiting = [{"type": "http.request", "body": body, "more_body": False}]
    parts: list[bytes] = []

    async def receive() -> Any:
        if waiting:
            return waiting.pop()
        return await asyncio.Event().wait()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            assert message["status"] == 200, message
        parts.append(message.get("body", b""))

    await app(scope, receive, send)
    return b"".join(parts)


async def count(work: Work, times: int = 5) -> int:
    """Return the instructions that one piece of work takes, once everything that is made once is made."""
    for _ in range(times):
        await work()
    counted = 0

    def instruction(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal counted
        counted += event == "opcode"
        return instruction

    def call(frame: FrameType, event: str, argument: object) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return instruction

    sys.settrace(call)
    try:
        for _ in range(times):
            await work()
            await asyncio.sleep(0)
    finally:
        sys.settrace(None)
    return counted // times


async def measure() -> dict[str, int]:
    """Return the instructions of each piece of work."""
    logging.disable(logging.WARNING)
    return {name: await count(work) for name, work in works().items()}


def kept() -> dict[str, int]:
    """Return the counts that were kept for this version of Python; empty where there are none."""
    counts: dict[str, int] = json.loads(KEPT.read_text()).get(VERSION, {}) if KEPT.exists() else {}
    return counts


def main() -> None:
    found, before = asyncio.run(measure()), kept()
    for name, number in found.items():
        change = f"{number / before[name] - 1:+.1%}" if name in before else "new"
        print(f"{name:50} {number:9,}  {change}")
    if "--keep" in sys.argv[1:]:
        whole = json.loads(KEPT.read_text()) if KEPT.exists() else {}
        KEPT.write_text(json.dumps({**whole, VERSION: found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
