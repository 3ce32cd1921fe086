"""Records of numbers and short texts are rendered by a shorter way, into the same line."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from dspy_live.observe.logs import OURS, PLAIN, reset_logging, setup_logging

log = logging.getLogger("dspy_live.access")
FIELDS: dict[str, Any] = {
    "method": "POST",
    "path": "/predict",
    "status": 200,
    "duration_ms": 1.25,
    "client": "::1",
    "key": "",
    "program": "qa",
    "bytes": 153,
}


@pytest.fixture(autouse=True)
def clean_logging() -> Iterator[None]:
    yield
    reset_logging()


def lines_of(fields: dict[str, Any], as_json: bool) -> list[str]:
    """The line by the shorter way and the usual one, each without its time."""
    stream = io.StringIO()
    setup_logging("INFO", json=as_json, stream=stream)
    for plain in (True, False):
        log.info("%s", "message", extra={OURS: ("request", fields), PLAIN: plain})
    lines = stream.getvalue().splitlines()
    if as_json:
        return [json.dumps({k: v for k, v in json.loads(line).items() if k != "timestamp"}) for line in lines]
    return [line.split(" ", 1)[1] for line in lines]


@pytest.mark.parametrize("as_json", [True, False])
def test_plain_line_is_the_usual_one(as_json: bool) -> None:
    quick, usual = lines_of(FIELDS, as_json)
    assert quick == usual
    assert "/predict" in quick


@pytest.mark.parametrize("as_json", [True, False])
def test_secret_in_a_plain_line_is_redacted(as_json: bool) -> None:
    path = "/predict/sk-proj-S3CRETs3cretS3cret77"
    for line in lines_of({**FIELDS, "path": path}, as_json):
        assert "S3CRET" not in line
        assert "[redacted]" in line


@pytest.mark.parametrize("as_json", [True, False])
def test_path_with_a_line_break_stays_one_line(as_json: bool) -> None:
    path = "/a\n2026-01-01T00:00:00Z [info     ] request [dspy_live.access] status=200"
    assert len(lines_of({**FIELDS, "path": path}, as_json)) == 2


def test_time_of_a_plain_line_is_the_usual_ones() -> None:
    stream = io.StringIO()
    setup_logging("INFO", json=True, stream=stream)
    log.info("%s", "message", extra={OURS: ("request", FIELDS), PLAIN: True})
    log.info("%s", "message", extra={OURS: ("request", FIELDS), PLAIN: False})
    first, second = (json.loads(line)["timestamp"] for line in stream.getvalue().splitlines())
    assert len(first) == len(second) == len("2026-01-01T00:00:00.000000Z")
    assert first <= second
    assert first.endswith("Z")
