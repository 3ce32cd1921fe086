"""A chat-completions request: what is sent, what stays with the client, and where it goes."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from pydantic import BaseModel

from dspy_live.sansio.openai import chat_body, chat_headers, chat_url


def body(legacy: dict[str, Any], *, stream: bool = False, **kw: Any) -> dict[str, Any]:
    parsed = orjson.loads(chat_body(legacy, stream=stream, **kw))
    assert isinstance(parsed, dict)
    return parsed


MESSAGES = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": None, "tool_calls": []}]


def test_everything_but_the_clients_own_keys_is_sent_as_it_is() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    legacy = {
        "model": "m", "messages": MESSAGES, "temperature": 0.0, "n": 2, "tools": tools, "grammar": "root ::= x",
        "response_format": {"type": "json_object"}, "stop": ["x"], "max_tokens": None, "logprobs": False,
        "api_key": "sk-secret", "api_base": "http://x", "num_retries": 3, "rollout_id": 4, "cache": True,
        "headers": {"a": "b"}, "extra_headers": {}, "timeout": 3, "custom_llm_provider": "openai",
    }  # fmt: skip
    assert body(legacy) == {
        "model": "m", "messages": MESSAGES, "temperature": 0.0, "n": 2, "tools": tools, "grammar": "root ::= x",
        "response_format": {"type": "json_object"}, "stop": ["x"], "logprobs": False,
    }  # fmt: skip


def test_extra_body_is_merged_at_the_top_and_wins() -> None:
    sent = body({"model": "m", "top_k": 1, "extra_body": {"top_k": 2, "guided_json": {"a": 1}, "stream": True}})
    assert sent == {"model": "m", "top_k": 2, "guided_json": {"a": 1}}


def test_a_stream_asks_for_its_usage_and_keeps_the_users_options() -> None:
    legacy = {"model": "m", "stream_options": {"include_obfuscation": False}}
    sent = body(legacy, stream=True)
    assert sent["stream"] is True
    assert sent["stream_options"] == {"include_obfuscation": False, "include_usage": True}
    assert "stream_options" not in body(legacy, stream=True, usage=False)
    assert body(legacy) == {"model": "m"}
    assert legacy == {"model": "m", "stream_options": {"include_obfuscation": False}}


def test_the_model_may_be_sent_under_another_name() -> None:
    assert body({"model": "openai/m"}, model="m") == {"model": "m"}


def test_pydantic_values_and_odd_keys_become_json() -> None:
    class Point(BaseModel):
        x: int
        y: int | None = None

    assert body({"metadata": {1: Point(x=1)}, "stop": {"b", "a"}}) == {"metadata": {"1": {"x": 1}}, "stop": ["a", "b"]}


def test_a_value_that_is_no_json_is_named() -> None:
    with pytest.raises(TypeError, match=r"'response_format' \(Point\)"):
        body({"model": "m", "response_format": type("Point", (BaseModel,), {})})
    with pytest.raises(TypeError, match="'tools'"):
        body({"model": "m", "tools": [object()]})


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("http://h/v1", "http://h/v1/chat/completions"),
        (" http://h/v1/ ", "http://h/v1/chat/completions"),
        ("http://h", "http://h/chat/completions"),
        ("http://h/v1/chat/completions", "http://h/v1/chat/completions"),
        (
            "https://h/openai/deployments/d?api-version=1",
            "https://h/openai/deployments/d/chat/completions?api-version=1",
        ),
    ],
)
def test_urls(base: str, url: str) -> None:
    assert chat_url(base) == url


def test_a_query_is_added_to_the_urls_own() -> None:
    assert chat_url("http://h/v1?a=1", {"b": "x y"}) == "http://h/v1/chat/completions?a=1&b=x+y"


def test_headers() -> None:
    headers = chat_headers("k", stream=True, organization="o", project="p")
    assert headers == {
        "Content-Type": "application/json",
        "Accept": "text/event-stream",
        "Authorization": "Bearer k",
        "OpenAI-Organization": "o",
        "OpenAI-Project": "p",
    }
    assert "Authorization" not in chat_headers(None)


def test_the_users_headers_win_whatever_their_case_and_none_removes_one() -> None:
    headers = chat_headers("k", extra={"authorization": "Token t", "ACCEPT": None, "X-N": 3})
    assert headers == {"Content-Type": "application/json", "authorization": "Token t", "X-N": "3"}
