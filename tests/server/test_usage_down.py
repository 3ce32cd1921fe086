"""A ledger whose database can't be reached is no failure of a program, and its place is told to nobody."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.server.support import http, qa, serving


def test_usage_answers_503_while_the_ledger_cannot_be_read() -> None:
    def usage(query: Mapping[str, str]) -> Any:
        raise OSError("the ledger postgresql://db.internal/live: connection timed out")

    with serving(qa(), usage=usage) as live:
        reply = http.get(f"{live.url}/usage")
    assert reply.status_code == 503
    assert reply.headers["retry-after"] == "1"
    assert reply.json()["error"]["type"] == "ledger_down"
    assert "db.internal" not in reply.text
