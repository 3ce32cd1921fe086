"""Secrets are taken out wherever they stand, and nothing else is."""

from __future__ import annotations

import json
import signal
from types import FrameType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_live.observe.redact import HIDDEN, redact

SECRET = "S3CRETs3cretS3cret77"


@pytest.mark.parametrize(
    "line",
    [
        f"the key is sk-proj-{SECRET} and that is it",
        f"sk-ant-api03-{SECRET}-AA",
        f"AIzaSy{SECRET}",
        f"hf_{SECRET}",
        f"gsk_{SECRET}",
        f"Authorization: Bearer {SECRET}",
        f"authorization=Basic {SECRET}==",
        f"curl -H 'Authorization: Bearer {SECRET}'",
        f"bearer {SECRET}",
        f"api_key={SECRET}, model=x",
        f"OPENAI_API_KEY={SECRET}",
        f'{{"api_key": "{SECRET}", "x": 1}}',
        f"{{'api-key': '{SECRET}'}}",
        f"x-api-key: {SECRET}",
        f"LM(api_key='{SECRET}')",
        f"https://host/path?api_key={SECRET}&x=1",
        f"postgresql://me:{SECRET}@host/db",
        f"redis://:{SECRET}@host:6379",
        f'password: "a \\"{SECRET}\\" b"',
        f"client_secret = {SECRET}",
        f"Set-Cookie: {SECRET}",
        json.dumps(json.dumps({"api_key": SECRET, "headers": {"Authorization": f"Bearer {SECRET}"}})),
        f"Authorization: Token {SECRET}",
        f"authorization: ApiKey {SECRET}",
        f"{{b'authorization': b'Token {SECRET}', b'x-api-key': b'{SECRET}'}}",
        f"[('x-api-key', '{SECRET}'), (b'api-key', b'{SECRET}')]",
        f"Cookie: theme=dark; sid={SECRET}; lang=en",
        f"Ocp-Apim-Subscription-Key: {SECRET}",
        f"x-goog-api-key: {SECRET}",
        f"AWS_SECRET_ACCESS_KEY={SECRET} AWS_SESSION_TOKEN={SECRET}",
        f"https://s3.example.com/b?X-Amz-Security-Token={SECRET}&X-Amz-Signature={SECRET}",
        f"https://acc.blob.core.windows.net/c?sv=2022-11-02&sig={SECRET}%3D",
        f"AccountName=x;AccountKey={SECRET}==;EndpointSuffix=core.windows.net",
        f"Driver=ODBC;UID=me;PWD={SECRET};",
        f"https://host/v1/models?key={SECRET}",
        f"https://host/v1/models?x=1&token={SECRET}",
        f'{{"token": "{SECRET}"}}',
        f"postgresql://u:p@{SECRET}@host/db",
        f"https://{SECRET}@host/repository.git",
        f"api_key = SecretStr('{SECRET}')",
        f"def ask(api_key: str = '{SECRET}'):",
        f"api_key=b'{SECRET}'",
        f"api_keys=['x', '{SECRET}']",
        json.dumps({"api_key": {"value": SECRET}}),
        json.dumps(json.dumps({"api_keys": [SECRET, SECRET]})),
        f"Incorrect API key provided: {SECRET}",
        f"['serve', '--api-key', '{SECRET}']",
        f"mysql --password {SECRET}",
        f"ya29.{SECRET}",
        f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.{SECRET}",
        f"-----BEGIN RSA PRIVATE KEY-----\nMII{SECRET}\nAAAA\n-----END RSA PRIVATE KEY-----",
        json.dumps(f"-----BEGIN PRIVATE KEY-----\nMII{SECRET}\n"),
    ],
)
def test_a_secret_is_hidden(line: str) -> None:
    cleaned = redact(line)
    assert SECRET not in cleaned
    assert HIDDEN in cleaned


@pytest.mark.parametrize(
    "line",
    [
        "total_tokens=15 prompt_tokens: 10 max_tokens=5",
        "sk-learn and task-based-architectures-of-long-names",
        "the answer is 42, key=value; ski-resort",
        "run=0123456789abcdef0123456789abcdef program=Rag predictor=rag.answer",
        "http://127.0.0.1:8000/predict took 0.5 s",
        "bearer of bad news",
        "basic understanding of basic arithmetic",
        "skip_validation_step_2 of skills-matrix-2026-11 in pkg_resources_version_3",
        "asia-southeast1-docker.pkg.dev and rk3588-board-support-package",
        "api_key=None secret=true",
        '{"api_key": null, "api_keys": []}',
        "token='hello' next token: world",
        "",
    ],
)
def test_other_text_stays(line: str) -> None:
    assert redact(line) == line


@given(st.text(), st.text(alphabet=st.characters(blacklist_categories=["Cs"]), min_size=1))
def test_a_line_of_json_stays_one(before: str, secret: str) -> None:
    line = json.dumps({"text": before, "api_key": secret, "n": [1]})
    cleaned = json.loads(redact(line))
    assert cleaned["api_key"] == HIDDEN
    assert cleaned["n"] == [1]


def test_aws_and_basic_are_known_by_their_shape() -> None:
    assert redact("the key AKIAIOSFODNN7EXAMPLE is") == f"the key {HIDDEN} is"
    assert redact("sent Basic bWU6c2VjcmV0 to it") == f"sent Basic {HIDDEN} to it"


@given(
    st.sampled_from(["api_key", "password", "x-api-key", "Authorization", "client_secret"]),
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.lists(st.integers() | st.from_regex(r"[a-z0-9 ,:=]*", fullmatch=True))
    | st.dictionaries(st.from_regex(r"[a-z]+", fullmatch=True), st.integers()),
    st.integers(0, 2),
)  # fmt: skip
def test_a_line_of_json_stays_one_whatever_a_secret_is(name: str, secret: object, depth: int) -> None:
    line: object = {"a": [{name: secret, "b": 1}], "c": "d"}
    for _ in range(depth):
        line = json.dumps(line)
    text = redact(json.dumps(line))
    cleaned = json.loads(text)
    for _ in range(depth):
        cleaned = json.loads(cleaned)
    assert cleaned["c"] == "d"
    assert cleaned["a"][0]["b"] == 1
    assert cleaned["a"][0][name] in (HIDDEN, None, True, False, [], {})


@pytest.mark.parametrize(
    "nasty",
    [
        *("a-", "sk-", "a.", "x", "api_key", 'api_key="', "password=\\", "'", "http://a:b", "api_key: '", "://", "\\"),
        *("eyJ-", "eyJabcdefgh.", "://a1@", "authorization: a ", "cookie: a=b; ", "('api_key', '", "--key ", "token=1"),
        *("?key=", "-----BEGIN PRIVATE KEY-----", "-----BEGIN ", "api_key: [", "api_key: {", "bearer ", "basic "),
        *("api_key: a[", "--aaaa", ";pwd=", "sk-1", "Authorization: Basic "),
    ],
)
def test_long_lines_cost_linear_time(nasty: str) -> None:
    """A bound in CPU seconds that linear work stays far under and quadratic work, minutes of it, does not."""

    def too_long(_: int, __: FrameType | None) -> None:
        raise AssertionError(f"{nasty!r} repeated takes more than 5 s")

    before = signal.signal(signal.SIGVTALRM, too_long)
    signal.setitimer(signal.ITIMER_VIRTUAL, 5)
    try:
        redact(nasty * (200_000 // len(nasty)))
        redact(nasty * 5000 + "\\" * 50_000)
        redact(nasty + "\\" * 50_000)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
