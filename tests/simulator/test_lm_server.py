"""The real LM server of the tests does what the tests rely on."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import dspy
import pytest
from tests.support.lm_server import ENDLESS, LMServer, chat_grammar, tiny_model
from tests.support.until import BOUND, until

QUESTION = [{"role": "user", "content": "Why do volcanoes erupt?"}]


def _stream(server: LMServer, body: dict[str, Any]) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    connection = http.client.HTTPConnection(server.root.removeprefix("http://"), timeout=BOUND)
    connection.request("POST", "/v1/chat/completions", json.dumps({"messages": QUESTION, "stream": True, **body}))
    return connection, connection.getresponse()


def test_the_model_is_small_and_always_the_same(tmp_path: Path) -> None:
    again = tmp_path / "again.gguf"
    script = Path(__file__).parents[2] / "scripts" / "tiny_model.py"
    subprocess.run([sys.executable, str(script), str(again)], check=True)
    assert again.read_bytes() == tiny_model().read_bytes()
    assert again.stat().st_size < 600_000


def test_plain_words_are_no_random_bytes(lm_server: LMServer) -> None:
    for seed in range(5):
        made = lm_server.post({"messages": QUESTION, "max_tokens": 40, "seed": seed, "ignore_eos": True})
        assert made["usage"]["completion_tokens"] == 40
        assert len(made["choices"][0]["message"]["content"].split()) > 15


def test_it_streams_with_usage(lm_server: LMServer) -> None:
    body = {"max_tokens": 20, "ignore_eos": True, "stream_options": {"include_usage": True}}
    connection, reply = _stream(lm_server, body)
    lines = reply.read().decode().split("\n\n")
    connection.close()
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert len([e for e in events if e["choices"] and e["choices"][0]["delta"].get("content")]) > 15
    assert events[-1]["usage"]["completion_tokens"] == 20
    assert "data: [DONE]" in lines


def test_a_json_schema_is_kept(lm_server: LMServer) -> None:
    schema = {
        "type": "object",
        "properties": {"answer": {"type": "string", "maxLength": 60}, "sure": {"type": "boolean"}},
        "required": ["answer", "sure"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    made = lm_server.post({"messages": QUESTION, "max_tokens": 300, "response_format": wanted})
    value = json.loads(made["choices"][0]["message"]["content"])
    assert isinstance(value["answer"], str)
    assert isinstance(value["sure"], bool)


def test_a_grammar_forces_the_chat_adapters_format(lm_server: LMServer) -> None:
    grammar = chat_grammar({"reasoning": "", "sure": '"True" | "False"', "answer": '"日本 🙂 " [a-z ]{4,20}'})
    made = lm_server.post({"messages": QUESTION, "max_tokens": 400, "grammar": grammar})
    signature = dspy.Signature("question -> reasoning, sure: bool, answer")
    fields = dspy.ChatAdapter().parse(signature, made["choices"][0]["message"]["content"])
    assert fields["reasoning"].endswith(".")
    assert isinstance(fields["sure"], bool)
    assert fields["answer"].startswith("日本 🙂 ")


def test_characters_come_whole_though_their_bytes_are_tokens(lm_server: LMServer) -> None:
    connection, reply = _stream(lm_server, {"max_tokens": 50, "grammar": 'root ::= "日本 🙂"'})
    events = [json.loads(line[6:]) for line in reply.read().decode().split("\n\n") if line.startswith("data: {")]
    connection.close()
    texts = [e["choices"][0]["delta"].get("content") or "" for e in events]
    assert "".join(texts) == "日本 🙂"
    assert "日" in texts, "one character is one chunk"


def test_it_stops_when_a_streaming_client_leaves(lm_server: LMServer) -> None:
    before = lm_server.predicted()
    connection, reply = _stream(lm_server, {"max_tokens": ENDLESS, "ignore_eos": True})
    for _ in range(60):
        reply.readline()
    assert lm_server.busy() == 1
    reply.close()
    connection.close()
    lm_server.idle_after()
    assert lm_server.predicted() - before < ENDLESS


def test_it_ends_with_its_parent() -> None:
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from tests.support.lm_server import LMServer\n"
        "server = LMServer().start(); print(server._process.pid, flush=True); os._exit(9)"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code, root], capture_output=True, text=True, check=False)
    process = Path(f"/proc/{int(done.stdout)}")

    def ended() -> bool:
        try:
            return process.joinpath("stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            return True

    until(ended)


def test_a_model_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF and nothing")
    monkeypatch.setattr("tests.support.lm_server.tiny_model", lambda: broken)
    with pytest.raises(RuntimeError, match="did not start"):
        LMServer().start()
