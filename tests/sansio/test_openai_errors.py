"""Plain replies and failures, in the forms that real endpoints give them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_live.sansio.openai import (
    MalformedReply,
    PlainParser,
    ProviderFailed,
    ReplyError,
    error_from_reply,
    parse_reply,
    refuses_n,
    refuses_stream_options,
    reply_deltas,
    retry_after,
)

NOW = 1_800_000_000.0
REPLY: dict[str, Any] = {
    "id": "c",
    "choices": [
        {"index": 0, "finish_reason": "stop",
         "message": {"role": "assistant", "content": "hi", "reasoning_content": "hm"}},
        {"index": 1, "finish_reason": "tool_calls", "message": {"role": "assistant", "content": None, "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}},
    ],
    "usage": {"total_tokens": 1},
}  # fmt: skip


def test_a_plain_reply_is_kept_as_it_is() -> None:
    assert parse_reply(orjson.dumps(REPLY)) == REPLY
    assert parse_reply(b"\xef\xbb\xbf" + orjson.dumps(REPLY)) == REPLY


def test_a_plain_reply_has_deltas_too() -> None:
    got = [(d.kind, d.text, d.index) for d in reply_deltas(REPLY)]
    assert got == [("text", "hi", 0), ("reasoning", "hm", 0), ("tool", "{}", 1)]


def test_the_plain_parser_has_the_streams_shape() -> None:
    parser = PlainParser()
    data = orjson.dumps(REPLY)
    with pytest.raises(MalformedReply, match="not ended"):
        parser.reply()
    assert parser.feed(data[:20]) == parser.feed(data[20:]) == []
    assert len(parser.finish()) == 3
    assert parser.reply() == REPLY


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (b"", "status 200 and something other than JSON: an empty body"),
        (b"<!DOCTYPE html><title>Sign in &amp; go</title><p>x", "an HTML page: Sign in & go"),
        (b"not json " * 100, "not json"),
        (b"[]", "has no choices"),
        (b'{"choices":[]}', "has no choices"),
        (b'{"object":"list"}', "has no choices"),
        (b'{"choices":[{"text":"x"}]}', "has no message"),
        (b'{"choices":["x"]}', "has no message"),
        (b'{"choices":true}', "has no choices"),
    ],
)
def test_a_body_that_is_no_reply_is_quoted_from_its_beginning(body: bytes, match: str) -> None:
    with pytest.raises(MalformedReply, match=match) as caught:
        parse_reply(body)
    assert len(str(caught.value)) < 320


def test_an_error_object_with_status_200() -> None:
    with pytest.raises(ProviderFailed, match="upstream died") as caught:
        parse_reply(b'{"error":{"message":"upstream died","code":502},"choices":[]}')
    assert caught.value.status == 502
    with pytest.raises(ProviderFailed, match="late"):
        parse_reply(b'{"choices":[{"finish_reason":"error","error":{"message":"late"},"message":{"content":""}}]}')


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        (b'{"error":{"message":"no such model","type":"invalid_request_error","code":"model_not_found"}}',
         "no such model", "model_not_found"),
        (b'{"error":{"message":"bad","type":"invalid_request_error","code":null}}', "bad", "invalid_request_error"),
        (b'{"error":"just text"}', "just text", None),
        (b'{"error":{"code":400,"message":"g","status":"INVALID_ARGUMENT"}}', "g", "INVALID_ARGUMENT"),
        (b'[{"error":{"code":429,"message":"quota","status":"RESOURCE_EXHAUSTED"}}]', "quota", "RESOURCE_EXHAUSTED"),
        (b'{"object":"error","message":"vllm","type":"BadRequestError","code":400}', "vllm", "BadRequestError"),
        (b'{"detail":[{"loc":["body","stream_options"],"msg":"Extra inputs are not permitted"}]}',
         "body.stream_options: Extra inputs are not permitted", None),
        (b'{"detail":"Not Found"}', "Not Found", None),
        (b'{"message":"top"}', "top", None),
        (b"Bad Gateway\n\n  from nginx", "Bad Gateway from nginx", None),
        (b"<html><body><style>p{}</style><h1>503</h1> busy</body>", "an HTML page: 503 busy", None),
        (b"", "the endpoint answered with status 418 and no text", None),
        (b"{}", "{}", None),
        (b"\xff\xfe", "\ufffd\ufffd", None),
    ],
)  # fmt: skip
def test_error_bodies(body: bytes, message: str, code: str | None) -> None:
    error = error_from_reply(418, {"x-request-id": "r1"}, body, now=NOW)
    assert (error.message, error.code) == (message, code)
    assert (error.status, error.request_id, error.retry_after) == (418, "r1", None)


def test_a_key_that_the_endpoint_echoes_is_masked() -> None:
    body = b'{"error":{"message":"Incorrect API key: sk-proj-abcdefgh12345678, header Bearer abcdefgh12345"}}'
    message = error_from_reply(401, {}, body, now=NOW).message
    assert "abcdefgh" not in message
    assert message == "Incorrect API key: sk-***, header Bearer-***"


def test_a_long_message_is_cut() -> None:
    assert len(error_from_reply(500, {}, b"x" * 100_000, now=NOW).message) == 500


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "Fri, 15 Jan 2027 08:00:30 GMT"}, 30.0),
        ({"retry-after": "Thu, 14 Jan 2027 08:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"x-ms-retry-after-ms": "1500"}, 1.5),
        ({"x-ratelimit-reset-requests": "6m0s", "x-ratelimit-remaining-requests": "0"}, 360.0),
        ({"x-ratelimit-reset-requests": "1h2m3.5s"}, 3723.5),
        ({"x-ratelimit-reset-tokens": "120ms"}, 0.12),
        ({"x-ratelimit-reset-requests": "9s", "x-ratelimit-remaining-requests": "0",
          "x-ratelimit-reset-tokens": "1s", "x-ratelimit-remaining-tokens": "50"}, 9.0),
        ({"x-ratelimit-reset-requests": "9s", "x-ratelimit-reset-tokens": "1s"}, 1.0),
        ({"x-ratelimit-reset": "1800000004000"}, 4.0),
        ({"x-ratelimit-reset": "1800000004"}, 4.0),
        ({"x-ratelimit-reset-tokens": ""}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_how_long_to_wait(headers: dict[str, str], wait: float | None) -> None:
    assert retry_after(429, headers, now=NOW) == (None if wait is None else pytest.approx(wait))


def test_reset_times_count_only_where_a_limit_was_hit() -> None:
    assert retry_after(400, {"x-ratelimit-reset-requests": "9s"}, now=NOW) is None
    assert retry_after(400, {"retry-after": "9"}, now=NOW) == 9


def test_a_hint_in_the_body_counts_where_the_headers_have_none() -> None:
    body = b'{"error":{"message":"m","details":[{"@type":"x"},{"retryDelay":"34s"}]}}'
    assert error_from_reply(429, {}, body, now=NOW).retry_after == 34
    assert error_from_reply(429, {"retry-after": "2"}, body, now=NOW).retry_after == 2
    assert error_from_reply(429, {}, b'{"error":{"retry_after":3}}', now=NOW).retry_after == 3


@given(st.integers(100, 599), st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms", "x-ratelimit-reset"]),
                                              st.text(max_size=30)), st.binary(max_size=60))  # fmt: skip
def test_any_error_reply_is_read_without_an_exception(status: int, headers: dict[str, str], body: bytes) -> None:
    error = error_from_reply(status, headers, body, now=NOW)
    assert error.message
    assert error.retry_after is None or error.retry_after >= 0


nested = st.recursive(
    st.none() | st.booleans() | st.integers(0, 600) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                ["error", "message", "code", "detail", "type", "choices", "details", "loc", "msg", "retryDelay"]
            ),
            inner,
            max_size=3,
        )
    ),
)


@given(nested)
def test_any_json_is_read_without_an_exception_of_another_kind(value: Any) -> None:
    body = orjson.dumps(value)
    assert error_from_reply(500, {}, body, now=NOW).message
    try:
        reply_deltas(parse_reply(body))
    except ReplyError:
        pass


def test_replies_that_refuse_stream_options() -> None:
    assert refuses_stream_options(400, b'{"error":{"message":"Unknown parameter: stream_options"}}')
    assert refuses_stream_options(422, b'{"detail":[{"loc":["body","stream_options","include_usage"]}]}')
    assert not refuses_stream_options(500, b"stream_options")
    assert not refuses_stream_options(400, b"unknown model")


def test_replies_that_refuse_n() -> None:
    assert refuses_n(400, b'{"error":{"message":"\'n\' : number must be at most 1"}}')
    assert refuses_n(400, b'{"error":{"message":"Only one completion choice is allowed"}}')
    assert refuses_n(422, b'{"detail":[{"loc":["body","n"],"msg":"must be 1"}]}')
    assert not refuses_n(500, b'"n"')
    assert not refuses_n(400, b'{"error":{"message":"This model\'s maximum context length is 8192 tokens."}}')
