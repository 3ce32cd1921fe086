"""The ledger: every run is there once, in SQLite and in PostgreSQL, after a kill too, and adds up."""

from __future__ import annotations

import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.support.databases import Server
from tests.support.until import BOUND, until

from dspy_live.core.call import Call
from dspy_live.core.errors import ConfigurationError, DeadlineExceeded
from dspy_live.core.observer import RunRecord
from dspy_live.core.usage import LMRecord, LMUsage
from dspy_live.observe import span_content as spans_module
from dspy_live.observe.ledger import Filter, Ledger, default_place, open_ledger, postgres, sqlite, writer
from dspy_live.observe.ledger import ledger as ledger_module
from dspy_live.observe.ledger.schema import STEPS
from dspy_live.observe.redact import MAX_SECRET, redact
from dspy_live.runtime.books.account import Account


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "new folder" / "ledger.db")
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def ledger(place: str) -> Iterator[Ledger]:
    ledger = open_ledger(place)
    yield ledger
    ledger.close()


def a_run(
    ledger: Ledger,
    call: Call | None = None,
    *,
    program: str = "Rag",
    error: BaseException | None = None,
    outputs: dict[str, Any] | None = None,
    calls: int = 1,
    **record: Any,
) -> Call:
    call = (call or Call({"question": "?"}, key="team-a")).but(program=program)
    ledger.run_started(call)
    fields: dict[str, Any] = {"model": "openai/x", "usage": LMUsage(10, 5, 15, 4, 0, 2), "cost": 0.25, "cache": "miss"}
    for number in range(calls):
        ledger.lm_call_ended(
            LMRecord(
                run=call.id,
                program=program,
                key=call.key,
                predictor="answer",
                lm_call=number + 1,
                **{**fields, **record},
            )
        )
    ledger.run_ended(RunRecord(call, outputs, error, 1.5, 0.5))
    return call


def test_a_run_and_its_lm_calls_are_written_down(ledger: Ledger) -> None:
    before = time.time()
    call = a_run(ledger, calls=2, latency=0.7, ttft=0.1)
    failed = a_run(ledger, error=DeadlineExceeded("late"), calls=0)
    assert ledger.flush()
    newest, oldest = ledger.runs()
    assert (newest["id"], newest["error"], newest["lm_calls"]) == (failed.id, "DeadlineExceeded", 0)
    assert oldest == {
        "id": call.id, "program": "Rag", "key": "team-a", "started": oldest["started"], "duration": 1.5, "ttft": 0.5,
        "error": None, "lm_calls": 2, "cache_hits": 0, "prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30,
        "cached_tokens": 8, "reasoning_tokens": 4, "estimated_tokens": 0, "cost": 0.5, "unpriced_calls": 0,
        "inputs": None, "outputs": None,
    }  # fmt: skip
    assert before <= oldest["started"] <= time.time()
    first = ledger.calls(Filter(run=call.id))[-1]
    assert (first["model"], first["predictor"], first["lm_call"], first["latency"]) == ("openai/x", "answer", 1, 0.7)
    assert (first["cost"], first["cache"], first["error"]) == (0.25, "miss", None)


def test_summaries_by_every_group_add_up(ledger: Ledger) -> None:
    a_run(ledger, program="Rag", calls=2)
    a_run(ledger, Call({}, key="team-b"), program="Qa", model="openai/y", cost=None)
    a_run(ledger, program="Qa", usage=LMUsage(), cost=0.0, cache="hit")
    a_run(ledger, program="Qa", usage=LMUsage(), cost=None, cache="off", error=DeadlineExceeded("x"))
    ledger.lm_call_ended(LMRecord(model="openai/y", usage=LMUsage(1, 1, 2, estimated=True), cost=0.125))
    ledger.flush()
    totals = ledger.totals()
    assert (totals["runs"], totals["failed_runs"], totals["api_calls"], totals["cache_hits"]) == (4, 1, 5, 1)
    assert (totals["total_tokens"], totals["estimated_tokens"], totals["unpriced_calls"]) == (47, 2, 1)
    assert (totals["total_cost"], totals["mean_duration"], totals["mean_ttft"]) == (0.625, 1.5, 0.5)
    for by in ("day", "hour", "program", "model", "predictor", "key", "error"):
        rows = ledger.summary(by)
        for name in ("api_calls", "cache_hits", "total_tokens", "total_cost", "unpriced_calls"):
            assert sum(row[name] for row in rows) == totals[name], (by, name)
        if by in ("model", "predictor"):
            assert all(row["runs"] is None for row in rows)
        else:
            assert sum(row["runs"] for row in rows) == 4, by
    assert [row["program"] for row in ledger.summary("program")] == ["", "Qa", "Rag"]
    assert ledger.summary("day")[0]["day"] == time.strftime("%Y-%m-%d", time.gmtime())


def test_a_filter_chooses_rows_by_name_and_time(ledger: Ledger) -> None:
    one = a_run(ledger, program="Rag")
    a_run(ledger, Call({}, key="team-b"), program="Qa", model="openai/y")
    ledger.flush()
    now = time.time()
    for chosen in (
        Filter(program="Rag"),
        Filter(key="team-a"),
        Filter(model="openai/x"),
        Filter(run=one.id),
        Filter(model="openai/x", program="Rag", since=now - 60, until=now + 60),
    ):
        assert [run["id"] for run in ledger.runs(chosen)] == [one.id], chosen
        assert ledger.totals(chosen)["runs"] == 1
        assert ledger.totals(chosen)["api_calls"] == 1
    for chosen in (Filter(since=now + 60), Filter(until=now - 60), Filter(program="'; DROP TABLE runs; --")):
        assert ledger.runs(chosen) == []
        assert ledger.totals(chosen)["api_calls"] == 0
    assert len(ledger.runs(limit=1)) == 1
    with pytest.raises(ConfigurationError, match="day, hour, model"):
        ledger.summary("week")  # type: ignore[arg-type]


def test_contents_only_by_choice_and_without_keys(place: str) -> None:
    call = Call({"question": "my key is sk-abcdef1234567890abcd", "n": {1, 2}})
    with_contents = open_ledger(place, contents=True)
    a_run(with_contents, call, outputs={"answer": "42"})
    with_contents.flush()
    (run,) = with_contents.runs()
    assert json.loads(run["inputs"])["question"] == "my key is [redacted]"
    assert json.loads(run["outputs"]) == {"answer": "42"}
    with_contents.close()


@pytest.mark.parametrize("module", [ledger_module, spans_module])
def test_a_large_input_is_not_searched_to_its_end_and_a_key_at_the_cut_is_found(
    module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image of five megabytes held up the event loop for seconds before all but its beginning was thrown away."""
    searched: list[int] = []

    def searching(text: str) -> str:
        searched.append(len(text))
        return redact(text)

    monkeypatch.setattr(module, "redact", searching)
    content: Any = module.content
    beginning = " " * (module.MAX_CONTENT - 20)
    kept = content({"question": f"{beginning} sk-S3CRETs3cretS3cret77 {'A' * 3_000_000}"})
    assert len(kept) == module.MAX_CONTENT
    assert "S3CRET" not in kept
    assert searched == [module.MAX_CONTENT + MAX_SECRET]


def test_odd_texts_come_back_and_a_row_that_can_not_be_written_holds_no_other_back(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    for program in ("Ünï \U0001f389", "'\"%s ?", "null\x00byte", "lone \ud800", "good"):
        a_run(ledger, program=program)
    ledger.flush()
    programs = {run["program"] for run in ledger.runs()}
    assert {"Ünï \U0001f389", "'\"%s ?", "good"} <= programs
    assert len(programs) == 4
    assert ledger.writer.lost == 2, "the run and its LM call of the half surrogate pair"
    assert "is left out" in caplog.text


@pytest.mark.parametrize("count", [1, 7, 8, 63, 64, 65, 200])
def test_batches_of_any_size_are_whole(count: int, ledger: Ledger) -> None:
    calls = [Call({}) for _ in range(count)]
    for call in calls:
        a_run(ledger, call)
    ledger.flush()
    assert {run["id"] for run in ledger.runs(limit=1000)} == {call.id for call in calls}
    assert {lm["run"] for lm in ledger.calls(limit=1000)} == {call.id for call in calls}


def test_a_run_is_kept_once(ledger: Ledger) -> None:
    call = a_run(ledger)
    a_run(ledger, call)
    ledger.flush()
    assert len(ledger.runs()) == 1


def test_two_processes_may_start_and_write_at_once(place: str) -> None:
    ledgers: list[Ledger] = []

    def work() -> None:
        ledger = open_ledger(place)
        ledgers.append(ledger)
        for _ in range(100):
            a_run(ledger)
        ledger.flush()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledgers[0].totals()["runs"] == 400
    for ledger in ledgers:
        ledger.close()


def test_a_file_that_another_process_is_just_making_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = threading.Event()
    monkeypatch.setattr(sqlite.time, "sleep", lambda _: waits.set())
    other = sqlite3.connect(tmp_path / "l.db", isolation_level=None)
    other.execute("CREATE TABLE anything (at_all)")
    other.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(1) as pool:
        opened = pool.submit(open_ledger, tmp_path / "l.db")
        assert waits.wait(BOUND)
        assert not opened.done()
        other.execute("COMMIT")
        ledger = opened.result(BOUND)
    other.close()
    a_run(ledger)
    assert ledger.flush()
    ledger.close()


def test_pruning_removes_rows_by_age(ledger: Ledger) -> None:
    a_run(ledger)
    ledger.flush()
    assert ledger.prune(3600) == 0
    assert ledger.prune(-1) == 1
    assert ledger.calls() == []


def test_an_older_ledger_is_brought_up_to_date_and_keeps_its_rows(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (sqlite, postgres):
        monkeypatch.setattr(module, "STEPS", STEPS[:1])
    old = open_ledger(place)
    old.backend.change(
        "INSERT INTO runs (id, program, key, started, duration, lm_calls, cache_hits, prompt_tokens, "
        "completion_tokens, total_tokens, cached_tokens, reasoning_tokens, estimated_tokens, cost, unpriced_calls) "
        "VALUES ('old', 'Rag', '', 1.0, 1.0, 0, 0, 0, 0, 0, 0, 0, 0, 0.0, 0)"
    )
    for predictor in ("ask", "answer", "answer"):
        old.backend.change(
            "INSERT INTO lm_calls (run, program, key, model, predictor, lm_call, ended, latency, cache, prompt_tokens, "
            "completion_tokens, total_tokens, cached_tokens, reasoning_tokens, estimated_tokens, cost, unpriced_calls) "
            "VALUES ('old', 'Rag', '', 'openai/x', ?, 1, 1.5, 1.0, 'miss', 1, 1, 2, 0, 0, 0, 0.25, 0)",
            [predictor],
        )
    old.close()
    monkeypatch.undo()
    new = open_ledger(place)
    assert [(run["id"], run["inputs"]) for run in new.runs()] == [("old", None)]
    assert new.backend.read("SELECT version FROM ledger_version ORDER BY 1") == [(n + 1,) for n in range(len(STEPS))]
    for chosen in ({"model": "openai/x"}, {"predictor": "ask"}, {"model": "openai/x", "predictor": "answer"}):
        (day,) = new.summary("day", Filter(**chosen))
        assert (day["runs"], day["mean_duration"]) == (1, 1.0)
        assert [run["id"] for run in new.runs(Filter(**chosen))] == ["old"]
    assert new.runs(Filter(model="openai/x", predictor="other")) == new.runs(Filter(predictor="answe")) == []
    new.close()


def test_a_ledger_of_a_newer_version_is_refused(place: str) -> None:
    ledger = open_ledger(place)
    ledger.backend.change("INSERT INTO ledger_version VALUES (99, 0)")
    ledger.close()
    with pytest.raises(ConfigurationError, match="version 99"):
        open_ledger(place)


def test_attached_to_an_account_it_hears_of_lm_calls_until_it_is_closed(place: str) -> None:
    account = Account()
    ledger = open_ledger(place).attach(account)
    account.record(LMRecord(model="m", usage=LMUsage(1, 1, 2), cost=0.0))
    ledger.flush()
    assert len(ledger.calls()) == 1
    ledger.close()
    account.record(LMRecord(model="m"))
    assert ledger.writer.waiting == 0
    assert account.observers == ()


_WORKER = """
import sys
from dspy_live.core.call import Call
from dspy_live.core.observer import RunRecord
from dspy_live.core.usage import LMRecord, LMUsage
from dspy_live.observe.ledger import open_ledger
ledger = open_ledger(sys.argv[1])
while True:
    calls = [Call({}, program="P") for _ in range(50)]
    for call in calls:
        ledger.run_started(call)
        ledger.lm_call_ended(LMRecord(run=call.id, program="P", model="m", usage=LMUsage(1, 1, 2), cost=0.5))
        ledger.run_ended(RunRecord(call, {}, None, 0.1, None))
    ledger.flush()
    print(*(call.id for call in calls), flush=True)
"""


def test_flushed_rows_survive_kill_nine(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    worker = subprocess.Popen([sys.executable, "-c", _WORKER, str(path)], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    written = [identifier for _ in range(20) for identifier in worker.stdout.readline().split()]
    os.kill(worker.pid, signal.SIGKILL)
    worker.stdout.close()
    worker.wait()
    ledger = open_ledger(path)
    assert ledger.backend.read("PRAGMA integrity_check") == [("ok",)]
    assert ledger.backend.read("PRAGMA journal_mode") == [("wal",)]
    kept = {run["id"] for run in ledger.runs(limit=100_000)}
    assert len(written) == 1000
    assert set(written) <= kept
    orphans = "SELECT COUNT(*) FROM runs WHERE id NOT IN (SELECT run FROM lm_calls)"
    assert ledger.backend.read(orphans) == [(0,)], "a run and its calls are kept together"
    ledger.close()


def test_rows_that_wait_are_written_when_the_process_ends(tmp_path: Path) -> None:
    code = _WORKER.replace("while True:", "if True:").replace("    ledger.flush()\n", "")
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "l.db")], check=True, capture_output=True)
    ledger = open_ledger(tmp_path / "l.db")
    assert ledger.totals()["runs"] == 50
    ledger.close()


_FORKS = """
import os, sys
from dspy_live.core.call import Call
from dspy_live.core.observer import RunRecord
from dspy_live.core.usage import LMRecord
from dspy_live.observe.ledger import open_ledger
ledger = open_ledger(sys.argv[1])

def run():
    call = Call({}, program="P")
    ledger.run_started(call)
    ledger.lm_call_ended(LMRecord(model="m", run=call.id))
    ledger.run_ended(RunRecord(call, {}, None, 0.1, None))

run()
ledger.flush()
run()
child = os.fork()
run()
if not ledger.flush(30):
    os._exit(3)
if child == 0:
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_process_writes_its_own_runs_and_only_those(place: str) -> None:
    # Later Pythons warn of every fork beside a thread.
    command = [sys.executable, "-W", "ignore", "-c", _FORKS, place]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    ledger = open_ledger(place)
    assert (ledger.totals()["runs"], ledger.totals()["api_calls"]) == (4, 4)
    ledger.close()


_FORKS_AMID_WRITES = """
import os, sys, threading, time
from dspy_live.core.usage import LMRecord
from dspy_live.observe.ledger import open_ledger

ledger = open_ledger(sys.argv[1])
stop = threading.Event()

def write():
    while not stop.is_set():
        ledger.backend.write([], [tuple([""] * 6 + [0.0, 0.0, None, None, ""] + [0] * 8)] * 200)
        time.sleep(0.002)

def ask():
    while not stop.is_set():
        ledger.runs(limit=10)
        time.sleep(0.002)

threads = [threading.Thread(target=write), threading.Thread(target=ask)]
for thread in threads:
    thread.start()
failed = 0
for _ in range(40):
    child = os.fork()
    if child == 0:
        ledger.lm_call_ended(LMRecord(model="child"))
        os._exit(0 if ledger.flush(30) else 3)
    failed += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0
stop.set()
for thread in threads:
    thread.join()
print(failed)
"""


def test_a_fork_amid_writes_leaves_a_child_that_writes(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", _FORKS_AMID_WRITES, str(tmp_path / "l.db")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.stdout, done.stderr) == ("0\n", "")
    ledger = open_ledger(tmp_path / "l.db")
    assert [row["api_calls"] for row in ledger.summary("model") if row["model"] == "child"] == [40]
    ledger.close()


def test_a_ledger_that_is_locked_waits_and_loses_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ledger = open_ledger(tmp_path / "l.db")
    backend: Any = ledger.backend
    backend._connection.execute("PRAGMA busy_timeout = 20")
    other = sqlite3.connect(tmp_path / "l.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    a_run(ledger)
    until(lambda: "waits" in caplog.text)
    assert not ledger.flush(0.01)
    other.execute("COMMIT")
    other.close()
    assert ledger.flush()
    assert ledger.totals()["runs"] == 1
    assert "written again" in caplog.text
    ledger.close()


def test_a_full_disk_is_named_and_nothing_is_lost_when_there_is_room_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = open_ledger(tmp_path / "ledger.db", contents=True)
    backend: Any = ledger.backend
    (pages,) = backend._connection.execute("PRAGMA page_count").fetchone()
    backend._connection.execute(f"PRAGMA max_page_count = {pages + 5}")
    backend._connection.execute("PRAGMA cache_size = 2")  # so that it is full before the end of a transaction
    for _ in range(50):
        call = Call({"question": "x" * 10_000})
        ledger.run_started(call)
        ledger.run_ended(RunRecord(call, None, None, 0.5, None))
    until(lambda: "full" in caplog.text)
    assert not ledger.flush(0.01)
    backend._connection.execute("PRAGMA max_page_count = 100000")
    assert ledger.flush(BOUND)
    assert len(ledger.runs()) == 50
    assert "0 rows are lost" in caplog.text
    ledger.close()


def test_a_long_question_does_not_hold_up_the_writer(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "l.db")
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n"
    backend: Any = ledger.backend

    def ask() -> None:
        with pytest.raises(OSError, match="interrupted"):
            backend.read(endless)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        a_run(ledger)
        assert ledger.flush(BOUND)
    finally:
        while asking.is_alive():
            backend._reader.interrupt()
            asking.join(0.02)
    assert ledger.totals()["runs"] == 1
    ledger.close()


def test_rows_that_wait_are_bounded_and_the_newest_are_dropped(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(writer, "MAX_WAITING", 20)

    class Down:
        dialect = "sqlite"
        name = "nowhere"

        def write(self, runs: Any, calls: Any) -> None:
            raise OSError("down")

        def pause(self) -> None: ...

        def resume(self) -> None: ...

    it = writer.Writer(Down())  # type: ignore[arg-type]
    for n in range(100):
        it.run((n,))
    until(lambda: not it.flush(0.01) and (it.waiting, it.lost) == (10, 90))
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    it.close(0.1)


def test_a_database_that_goes_away_and_comes_back(
    postgres_server: Server, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg

    monkeypatch.setattr(writer, "_RETRY", 0.01)
    ledger = open_ledger(postgres_url)
    a_run(ledger)
    ledger.flush()
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
                      "AND pid <> pg_backend_pid()")  # fmt: skip
    a_run(ledger)
    assert ledger.flush()
    assert ledger.totals()["runs"] == 2
    ledger.close()


@pytest.mark.parametrize("wrong", ["rubbish", "folder", "postgresql://postgres@127.0.0.1:1/x"])
def test_a_file_or_an_address_that_is_no_ledger_is_refused(wrong: str, tmp_path: Path) -> None:
    (tmp_path / "rubbish").write_bytes(b"not a database, but long enough to be looked at" * 100)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigurationError, match=r"ledger"):
        open_ledger(wrong if "://" in wrong else tmp_path / wrong)


def test_the_address_of_a_database_is_named_without_its_password(postgres_url: str) -> None:
    ledger = open_ledger(postgres_url.replace("postgres@", "postgres:secret@"))
    assert "secret" not in ledger.backend.name
    ledger.close()


def test_the_ledger_lies_in_the_home_folder_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSPY_LIVE_HOME", "/home/me/live")
    assert default_place() == "/home/me/live/ledger.db"
    monkeypatch.setenv("DSPY_LIVE_LEDGER", "postgresql://db/x")
    assert default_place() == "postgresql://db/x"
    monkeypatch.delenv("DSPY_LIVE_HOME")
    monkeypatch.delenv("DSPY_LIVE_LEDGER")
    assert default_place() == str(Path.home() / ".dspy_live" / "ledger.db")


class SmallDisk(sqlite.SQLiteBackend):
    """A ledger on a disk with room for so many pages; SQLite fails there as it does on a full disk."""

    pages = 4

    def _connect(self) -> sqlite3.Connection:
        connection = super()._connect()
        connection.execute(f"PRAGMA max_page_count = {self.pages}")
        return connection


def test_a_full_disk_is_told_as_one_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"can't be written: database or disk is full"):
        SmallDisk(tmp_path / "ledger.db")


def test_a_disk_that_is_full_for_a_while_is_told_and_written_to_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SmallDisk, "pages", 1000)
    backend = SmallDisk(tmp_path / "ledger.db")
    (used,) = backend._connection.execute("PRAGMA page_count").fetchone()
    backend._connection.execute(f"PRAGMA max_page_count = {used}")
    step = "INSERT INTO ledger_version VALUES (?, ?)"
    with pytest.raises(OSError, match="database or disk is full"):
        backend.change_all([f"INSERT INTO ledger_version VALUES ({-number}, 0)" for number in range(1, 10_000)])
    backend._connection.execute("PRAGMA max_page_count = 1000")
    assert backend.change(step, (-1, 0.0)) == 1
    assert backend.read("SELECT count(*) FROM ledger_version WHERE version < 0") == [(1,)]
    backend.close()


def test_the_totals_of_an_empty_ledger_are_zeros(ledger: Ledger) -> None:
    totals = ledger.totals()
    assert (totals["runs"], totals["failed_runs"], totals["total_tokens"]) == (0, 0, 0)
    assert totals["mean_duration"] is None, "of no runs there is no mean"
