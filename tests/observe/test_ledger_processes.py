"""One ledger that many processes write, and some of them tidy, at the same time: its sums are its rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support.processes import Processes

from dspy_live.core.usage import LMRecord, LMUsage
from dspy_live.observe.ledger import open_ledger, writer

WRITER = """
import threading, time
from dspy_live.core.call import Call
from dspy_live.core.observer import RunRecord
from dspy_live.core.usage import LMRecord, LMUsage
from dspy_live.observe.ledger import open_ledger, writer

writer.INTERVAL = 0.005  # many small batches
number, runs = int(sys.argv[2]), 200
ledger = open_ledger(sys.argv[1])
tell("open")
wait_for_a_word()
tokens = 0
for n in range(runs):
    call = Call({}, key=f"key{number}-{n}").but(program=f"P{n % 2}")
    ledger.run_started(call)
    for lm_call in range(n % 4):
        used = 1 + (number + n + lm_call) % 7
        tokens += used
        ledger.lm_call_ended(
            LMRecord(
                model=f"m{n % 5}", run=call.id, program=call.program, key=call.key, predictor=f"p{lm_call}",
                usage=LMUsage(used, 0, used), cost=used / 8, cache="miss",
            )
        )
    ledger.run_ended(RunRecord(call, None, None, 1.0, 0.5))
    if n % 5 == 0:
        time.sleep(0.001)
assert ledger.flush(60)
assert not ledger.writer.lost
ledger.close()
tell([runs, tokens])
"""

TIDIER = """
from dspy_live.observe.ledger import open_ledger
ledger = open_ledger(sys.argv[1])
tell("open")
wait_for_a_word()
for _ in range(150):
    ledger.prune(11 * 3600)  # nothing is that old, and the sums of the day are made anew
ledger.close()
tell([0, 0])
"""


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_sums_are_right_to_the_token(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A writer's new row between the two statements that make a day's sums anew was counted twice in PostgreSQL."""
    place = str(tmp_path / "ledger.db") if kind == "sqlite" else request.getfixturevalue("postgres_url")
    open_ledger(place).close()
    with Processes(WRITER, [[place, n] for n in range(3)]) as writers, Processes(TIDIER, [[place]]) as tidier:
        for processes in (writers, tidier):
            processes.hear()
        for processes in (writers, tidier):
            processes.go()
        written = writers.hear()
        tidier.hear()
    ledger = open_ledger(place)
    totals = ledger.totals()
    assert (totals["runs"], totals["total_tokens"]) == (600, sum(tokens for _, tokens in written))
    assert totals["total_cost"] == pytest.approx(totals["total_tokens"] / 8)
    for by in ("day", "hour", "program", "key", "model", "predictor"):
        rows = ledger.summary(by)  # type: ignore[arg-type]
        assert sum(row["total_tokens"] for row in rows) == totals["total_tokens"], by
        assert sum(row["api_calls"] for row in rows) == totals["api_calls"], by
    ledger.close()


def test_a_batch_whose_commit_was_never_answered_is_kept_once(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its LM calls were written again: a run has a name by which it is kept once, an LM call has none."""
    monkeypatch.setattr(writer, "_RETRY", 0.05)
    ledger = open_ledger(postgres_url)
    write, lost = ledger.backend.write, [2]

    def write_and_lose_the_answer(runs: Any, calls: Any) -> None:
        write(runs, calls)
        if lost[0]:
            lost[0] -= 1
            ledger.lm_call_ended(LMRecord(model="m", usage=LMUsage(100, 0, 100)))  # more rows wait when it is retried
            raise OSError("the connection was lost")

    monkeypatch.setattr(ledger.backend, "write", write_and_lose_the_answer)
    for _ in range(5):
        ledger.lm_call_ended(LMRecord(model="m", usage=LMUsage(1, 0, 1)))
    assert ledger.flush(30)
    assert not lost[0]
    totals = ledger.totals()
    assert (totals["api_calls"], totals["total_tokens"]) == (7, 205)
    assert len(ledger.calls()) == 7
    ledger.close()
