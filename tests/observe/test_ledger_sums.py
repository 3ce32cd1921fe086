"""The sums that the database keeps tell the same as the rows, whatever is asked and whatever was removed."""

from __future__ import annotations

import itertools
import math
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_live.core.errors import ConfigurationError
from dspy_live.observe.ledger import GROUPS, Filter, Ledger, open_ledger, postgres, query, sqlite
from dspy_live.observe.ledger.schema import CALL_COLUMNS, RUN_COLUMNS, STEPS
from dspy_live.observe.ledger.sums import DAY, HOUR, parts, pruning
from dspy_live.observe.ledger.uses import uses_of

NOW = 20_000 * DAY + 7 * HOUR + 1234.5


@pytest.fixture(params=["sqlite", "postgres"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    place = tmp_path / "ledger.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    ledger = open_ledger(place)
    yield ledger
    ledger.close()


def fill(ledger: Ledger, count: int = 300) -> None:
    """Write runs over some eight days, every other with two LM calls."""
    for n in range(count):
        error, program, key = "LMError" if n % 7 == 0 else None, f"program{n % 3}", f"key{n % 5}"
        at = NOW - n * 2311.7
        uses = uses_of(frozenset((f"model{n % 4}", f"predictor{call}") for call in range(1 + n % 2)))
        ledger.writer.run(
            (f"run{n}", program, key, at, 1.5, 0.5 if n % 2 else None, error, 1, 0, *[n] * 6, 0.25, 0, None, None, uses)
        )
        for call in range(1 + n % 2):
            ledger.writer.call(
                (f"run{n}", program, key, f"model{n % 4}", f"predictor{call}", call, at + 1, 1.0, None, error,
                 "hit" if n % 11 == 0 else "miss", *[n] * 6, None if n % 13 == 0 else 0.25, 1 if n % 13 == 0 else 0)
            )  # fmt: skip
    assert ledger.flush()


def everything(ledger: Ledger) -> dict[Any, Any]:
    ranges = [(None, None), (NOW - 3.3 * DAY, None), (None, NOW - 2.2 * DAY), (NOW - 5.1 * DAY, NOW - HOUR * 1.5)]
    ranges += [(NOW - 900, NOW), (NOW - DAY, NOW - DAY + 9000), (20_000 * DAY - DAY, 20_000 * DAY), (NOW, NOW - 1)]
    names: list[dict[str, str]] = [{}, {"program": "program1"}, {"key": "key2", "model": "model3"}]
    names += [
        {"predictor": "predictor1"},
        {"model": "model1", "predictor": "predictor0"},
        {"run": "run8"},
        {"key": "nobody"},
    ]
    told = {}
    for by, (since, until), name in itertools.product([None, *GROUPS], ranges, names):
        told[by, since, until, *name.items()] = ledger.summary(by, Filter(since=since, until=until, **name))
    return told


def from_the_rows(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> dict[Any, Any]:
    with monkeypatch.context() as patched:
        patched.setattr(query, "_kept", lambda *_: {})
        return everything(ledger)


def same(one: dict[Any, Any], other: dict[Any, Any]) -> None:
    assert one.keys() == other.keys()
    for asked, rows in one.items():
        expected = other[asked]
        assert [row.keys() for row in rows] == [row.keys() for row in expected], asked
        for row, wanted in zip(rows, expected, strict=True):
            for name, value in row.items():
                close = isinstance(value, float) and math.isclose(value, wanted[name])
                assert value == wanted[name] or close, (asked, name, value, wanted[name])


def test_sums_tell_the_same_as_the_rows(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(ledger)
    told = everything(ledger)
    assert sum(row["runs"] for row in told["hour", None, None]) == 300
    same(told, from_the_rows(ledger, monkeypatch))


def test_sums_tell_the_same_after_old_rows_were_removed(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(ledger)
    assert ledger.prune(time.time() - (NOW - 3.3 * DAY)) == 300 - math.ceil(3.3 * DAY / 2311.7)
    told = everything(ledger)
    same(told, from_the_rows(ledger, monkeypatch))
    assert told[None, None, None][0]["runs"] == math.ceil(3.3 * DAY / 2311.7)


def test_rows_of_an_older_version_that_still_runs_are_summed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server of the version before goes on writing into the file that a newer one has migrated meanwhile."""
    with monkeypatch.context() as before:
        before.setattr(sqlite, "STEPS", STEPS[:6])
        older = open_ledger(tmp_path / "ledger.db")
    ledger = open_ledger(tmp_path / "ledger.db")
    fill(ledger, 20)
    unmarked: list[tuple[str, list[str], tuple[Any, ...]]] = [
        ("runs", RUN_COLUMNS, ("older", "Old", "", NOW, 1.5, None, None, 1, 0, *[1] * 6, 0.25, 0, None, None, "")),
        ("lm_calls", CALL_COLUMNS, ("older", "Old", "", "m", "p", 1, NOW, 1.0, None, None, "off", *[1] * 6, 0.25, 0)),
    ]
    for table, columns, row in unmarked:
        marks = ", ".join("?" * len(columns))
        older.backend.change(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", row)
    ledger.writer.run(("newer", "Old", "", NOW, 1.5, None, None, 1, 0, *[1] * 6, 0.25, 0, None, None, ""))
    assert ledger.flush()
    (old,) = [found for found in ledger.summary("program") if found["program"] == "Old"]
    assert (old["runs"], old["api_calls"], old["total_tokens"]) == (2, 1, 1)
    same(everything(ledger), from_the_rows(ledger, monkeypatch))
    older.close()
    ledger.close()


def test_batch_that_fails_leaves_the_sums_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = open_ledger(tmp_path / "ledger.db")
    fill(ledger, 20)
    before = everything(ledger)
    row: tuple[Any, ...] = ("run99", "program1", "key1", NOW, 1.5, None, None, 1, 0, *[1] * 6, 0.25, 0, None, None, "")
    call: tuple[Any, ...] = ("run99", "program1", "key1", "m", "p", 1, NOW, 1.0, None, None, "off", *[1] * 6, 0.25, 0)
    with pytest.raises(OverflowError):
        ledger.backend.write([row], [call, (*call[:-1], 2**70)])
    assert everything(ledger) == before
    ledger.backend.write([row, row], [call])
    ledger.backend.write([row], [])
    assert ledger.totals()["runs"] == 21, "a row that is there already is not counted again"
    same(everything(ledger), from_the_rows(ledger, monkeypatch))
    ledger.close()


def test_a_row_that_comes_while_a_days_sums_are_made_anew_counts_once(postgres_url: str) -> None:
    """A row of a new kind, committed between the two statements that make them anew, was counted twice."""
    import psycopg

    ledger = open_ledger(postgres_url)
    fill(ledger, 20)
    limit = time.time() + DAY  # every day is made anew
    statements = pruning("lm_calls", limit, "postgres")
    with psycopg.connect(postgres_url) as tidying:
        emptied = next(n for n, text in enumerate(statements) if text.startswith("DELETE FROM lm_calls_by_day "))
        for statement in statements[: emptied + 1]:
            tidying.execute(statement.encode())
        names, at = ("", "new", "new", "new", "new", 1), NOW + 6 * HOUR
        ledger.writer.call((*names, at, 1.0, None, None, "miss", 1, 1, 2, 0, 0, 0, 0.25, 0))
        # Without the lock it is written now; with it, when the sums are done.
        ledger.flush(2.0)
        for statement in statements[emptied + 1 :]:
            tidying.execute(statement.encode())
        tidying.commit()
    assert ledger.flush()
    (row,) = [row for row in ledger.summary("program") if row["program"] == "new"]
    assert (row["api_calls"], row["total_tokens"]) == (1, 2)
    ledger.close()


def test_rows_older_than_the_setting_are_removed_while_new_ones_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_ledger(tmp_path / "ledger.db")
    fill(first, 20)
    first.close()
    monkeypatch.setenv("DSPY_LIVE_LEDGER_KEEP", "90d")
    kept = open_ledger(tmp_path / "ledger.db")
    kept.writer.run(("new", "Rag", "", time.time(), 1.0, None, None, 0, 0, 0, 0, 0, 0, 0, 0, 0.0, 0, None, None, ""))
    assert kept.flush()
    assert [run["id"] for run in kept.runs()] == ["new"]
    assert kept.totals()["runs"] == 1
    kept.close()


def test_a_setting_that_is_no_length_of_time_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="positive number of seconds"):
        open_ledger(tmp_path / "ledger.db", keep=-1)
    monkeypatch.setenv("DSPY_LIVE_LEDGER_KEEP", "ninety")
    with pytest.raises(ConfigurationError, match=r"DSPY_LIVE_LEDGER_KEEP .*90d.*'ninety'"):
        open_ledger(tmp_path / "ledger.db")


class Starting:
    """A PostgreSQL server that refuses every connection while it is starting up, as the real one does."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.refused = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                if connection.recv(8).endswith(b"\x04\xd2\x16\x2f"):  # the question for TLS
                    connection.sendall(b"N")
                connection.recv(4096)
                text = b"SFATAL\0C57P03\0Mthe database system is starting up\0\0"
                self.refused += 1
                connection.sendall(b"E" + (len(text) + 4).to_bytes(4, "big") + text)


def test_a_database_that_is_starting_up_is_waited_for_a_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(postgres, "time", SimpleNamespace(monotonic=lambda: sum(slept), sleep=slept.append))
    monkeypatch.setattr(postgres, "STARTING", 1.0)
    server = Starting()
    with server.listener, pytest.raises(ConfigurationError, match="the database system is starting up"):
        open_ledger(f"postgresql://me@127.0.0.1:{server.listener.getsockname()[1]}/x?gssencmode=disable")
    assert slept == [0.25] * 5
    assert server.refused == 6


def test_a_database_that_has_started_up_meanwhile_is_opened(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import psycopg

    connect, answers = psycopg.connect, [psycopg.OperationalError("FATAL:  the database system is starting up")] * 3

    def connect_later(*args: Any, **kwargs: Any) -> Any:
        if answers:
            raise answers.pop()
        return connect(*args, **kwargs)

    monkeypatch.setattr(psycopg, "connect", connect_later)
    monkeypatch.setattr(postgres, "_AGAIN", 0.0)
    ledger = open_ledger(postgres_url)
    assert (ledger.runs(), answers) == ([], [])
    ledger.close()


@given(
    st.none() | st.floats(-9e5, 9e5, allow_subnormal=False),
    st.none() | st.floats(-9e5, 9e5, allow_subnormal=False),
    st.sampled_from([(), (HOUR,), (DAY, HOUR)]),
)
def test_the_parts_of_a_time_range_are_the_range_without_a_gap(
    since: float | None, until: float | None, sizes: tuple[int, ...]
) -> None:
    found = parts(since, until, sizes)
    if since is not None and until is not None and since >= until:
        assert found == []
        return
    assert (found[0].since, found[-1].until) == (since, until)
    for before, after in itertools.pairwise(found):
        assert before.until == after.since is not None
    for part in found:
        assert part.size == 0 or all(end is None or end % part.size == 0 for end in part[1:])
        assert None in part[1:] or part.since < part.until  # type: ignore[operator]
