"""Every example runs, as its own text says, against the simulated LM."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.ports import lasting_port
from tests.support.until import until

from dspy_live.simulator import Simulator

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"

ALONE = {
    "batch_reviews.py": ["40 done, 1 failed", "ValueError: there is nothing", "40 LM calls", "\n0 LM calls"],
    "many_at_once.py": ["20 answers in"],
    "stream_fields.py": ["[Research starting]", "the same as the prediction: True", "keywords: "],
    "what_it_cost.py": ["6 LM calls, ", "research.predict: ", "alert: ", "stopped: budget: 3 calls", "BudgetExceeded"],
    "stop_early.py": ["left after 5 tokens", "stopped: "],
}
CLIENTS = {
    "http_client.py": ["answer: ", "left run ", "confidence: 0."],
    "websocket_client.py": ["5 answers over one socket"],
}
SERVERS = {"fastapi_app.py", "demo.py"}


@pytest.fixture(scope="module")
def environ() -> Iterator[dict[str, str]]:
    """The environment of an example: its LM's address is the simulated one's."""
    with Simulator(tokens_per_second=400.0).running() as url:
        yield {**os.environ, "OPENAI_API_BASE": url, "OPENAI_API_KEY": "none", "DSPY_LIVE_SIM": "ttft=0 tps=none"}


@contextmanager
def served(words: list[str], environ: dict[str, str]) -> Iterator[int]:
    """Run a server on a free port; ``{port}`` in the words becomes it."""
    port = lasting_port()
    process = subprocess.Popen([sys.executable, *(w.format(port=port) for w in words)], env=environ)
    try:
        until(lambda: process.poll() is not None or listens(port))
        assert process.poll() is None, "the server ended"
        yield port
    finally:
        process.terminate()
        process.wait(40)


def listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def run(example: str, environ: dict[str, str], *words: str) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / example), *words], env=environ, capture_output=True, text=True, timeout=170
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("example", ALONE)
def test_an_example_that_needs_no_server(example: str, environ: dict[str, str]) -> None:
    out = run(example, environ)
    for expected in ALONE[example]:
        assert expected in out


def test_the_clients_against_the_demo(environ: dict[str, str]) -> None:
    words = ["-m", "dspy_live", "serve", str(EXAMPLES / "demo.py"), "--port", "{port}"]
    with served(words, environ) as port:
        for example, expected in CLIENTS.items():
            out = run(example, environ, f"http://127.0.0.1:{port}")
            for text in expected:
                assert text in out


def test_the_fastapi_application(environ: dict[str, str]) -> None:
    with served([str(EXAMPLES / "fastapi_app.py"), "{port}"], environ) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=40)
        connection.request("POST", "/qa/predict", json.dumps({"question": "Why?"}))
        reply = json.loads(connection.getresponse().read())
        assert {"reasoning", "answer", "run"} <= reply.keys()
        connection.request("GET", "/short?question=Why")
        assert json.loads(connection.getresponse().read())["answer"]
        connection.close()


def test_no_example_is_left_out() -> None:
    here = {path.name for path in EXAMPLES.glob("*.py")}
    assert here == ALONE.keys() | CLIENTS.keys() | SERVERS
