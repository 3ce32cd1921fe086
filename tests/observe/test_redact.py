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
    ],
)
def test_a_secret_is_gone(line: str) -> None:
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
        "",
    ],
)
def test_what_is_no_secret_stays(line: str) -> None:
    assert redact(line) == line


@given(st.text(), st.text(alphabet=st.characters(blacklist_categories=["Cs"]), min_size=1))
def test_a_line_of_json_stays_one(before: str, secret: str) -> None:
    line = json.dumps({"text": before, "api_key": secret, "n": [1]})
    cleaned = json.loads(redact(line))
    assert cleaned["api_key"] == HIDDEN
    assert cleaned["n"] == [1]


@pytest.mark.parametrize(
    "nasty",
    ["a-", "sk-", "a.", "x", "api_key", 'api_key="', "password=\\", "'", "http://a:b", "api_key: '", "://", "\\"],
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
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
