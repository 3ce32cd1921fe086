"""``dspy-live usage``: the ledger as tables, files and pictures."""

from __future__ import annotations

import csv
import importlib
import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Commands

from dspy_live.core.call import Call
from dspy_live.core.observer import RunRecord
from dspy_live.core.usage import LMRecord, LMUsage
from dspy_live.observe.ledger import open_ledger

command = importlib.import_module("dspy_live.cli.commands.usage")


@pytest.fixture
def place(live: Commands) -> str:
    """A ledger with six runs: two programs, two models, two keys, one failure, one unknown price."""
    path = live.folder / "ledger.db"
    ledger = open_ledger(path)
    for n in range(6):
        program, model = ("Rag", "openai/x") if n < 3 else ("Qa", "acme/y")
        call = Call({}, program=program, key="red" if n < 4 else "blue")
        ledger.run_started(call)
        ledger.lm_call_ended(
            LMRecord(
                run=call.id, program=program, model=model, predictor="answer", key=call.key,
                usage=LMUsage(1000, 500, 1500), cost=0.25 if n < 5 else None, latency=0.5, ttft=0.1, cache="miss",
            )
        )  # fmt: skip
        ledger.run_ended(RunRecord(call, None, ValueError("no") if n == 2 else None, 1.5, 0.2))
    ledger.flush()
    ledger.close()
    return str(path)


def test_sums_by_program_with_a_last_line_for_all(live: Commands, place: str) -> None:
    printed = live.main("usage", "--ledger", place, "--by", "program")
    assert printed.returncode == 0, printed.stderr
    header, qa, rag, every = (line.split() for line in printed.stdout.splitlines()[:4])
    assert header[0] == "program"
    assert qa == ["Qa", "3", "0", "1.50", "0.20", "3", "0", "0", "3,000", "1,500", "$0.5000"]
    assert rag == ["Rag", "3", "1", "1.50", "0.20", "3", "0", "0", "3,000", "1,500", "$0.7500"]
    assert every == ["all", "6", "1", "1.50", "0.20", "6", "0", "0", "6,000", "3,000", "$1.2500"]
    assert "1 LM calls have no known price" in printed.stdout


@pytest.mark.parametrize("by", ["day", "hour", "model", "predictor", "key", "error"])
def test_every_grouping_can_be_shown(by: str, live: Commands, place: str) -> None:
    printed = live.main("usage", "--ledger", place, "--by", by)
    assert printed.returncode == 0, printed.stderr
    assert "$1.2500" in printed.stdout
    if by == "day":
        assert time.strftime("%Y-%m-%d", time.gmtime()) in printed.stdout


def test_filters_and_json(live: Commands, place: str) -> None:
    printed = live.main("usage", "--ledger", place, "--key", "blue", "--model", "acme/y", "--since", "1h", "--json")
    answer = json.loads(printed.stdout)
    assert (answer["totals"]["runs"], answer["totals"]["api_calls"], answer["totals"]["total_cost"]) == (2, 2, 0.25)
    assert [row["runs"] for row in answer["rows"]] == [2]
    none = live.main("usage", "--ledger", place, "--until", "yesterday")
    assert (none.returncode, "nothing is written down" in none.stdout) == (0, True)


def test_single_runs_and_calls(live: Commands, place: str) -> None:
    runs = live.main("usage", "--ledger", place, "--runs", "2").stdout.splitlines()
    assert len(runs) == 3
    assert runs[1].split()[-1] == "?", "an unknown price is not shown as nothing"
    identifier = runs[2].split()[2]
    calls = live.main("usage", "--ledger", place, "--calls", "10", "--run", identifier).stdout.splitlines()
    assert len(calls) == 2
    assert "acme/y" in calls[1]


def test_a_long_table_looks_like_a_short_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"program": f"Größe{n}", **_row(n)} for n in (1, 1_000)]
    rows.append({"program": "", **_row(0)})
    short, long = io.StringIO(), io.StringIO()
    command.show_summary(rows, "program", rows[1], short)
    monkeypatch.setattr(command, "_LONG", 2)
    command.show_summary(rows, "program", rows[1], long)
    assert long.getvalue() == "\n".join(line.rstrip() for line in short.getvalue().splitlines()) + "\n"
    assert "Größe1000" in long.getvalue()


def _row(n: int) -> dict[str, Any]:
    names = "runs failed_runs api_calls cache_hits errors prompt_tokens completion_tokens total_cost unpriced_calls"
    return {**dict.fromkeys(names.split(), n), "mean_duration": n / 7, "mean_ttft": None}


def test_old_runs_are_removed_on_request(live: Commands, place: str) -> None:
    kept = live.main("usage", "--ledger", place, "--prune", "90d")
    assert (kept.returncode, kept.stdout) == (0, f"removed 0 runs older than 90d from {place}\n"), kept.stderr
    gone = live.main("usage", "--ledger", place, "--prune", "0.0001s")
    assert gone.stdout.startswith("removed 6 runs"), gone.stderr
    assert "nothing is written down" in live.main("usage", "--ledger", place).stdout
    wrong = live.main("usage", "--ledger", place, "--prune", "old")
    assert wrong.returncode != 0
    assert "--prune takes the age of what goes, such as 90d or 12h" in wrong.stderr


def test_export(live: Commands, place: str) -> None:
    done = live.main("usage", "--ledger", place, "--by", "model", "--export", "u.csv")
    assert (done.returncode, done.stderr) == (0, "wrote 2 rows to u.csv\n")
    with (live.folder / "u.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["model"], row["total_tokens"]) for row in rows] == [("acme/y", "4500"), ("openai/x", "4500")]
    wrong = live.main("usage", "--ledger", place, "--export", "u.xlsx")
    assert (wrong.returncode, ".csv" in wrong.stderr) == (2, True)


def test_pictures(live: Commands, place: str) -> None:
    printed = live.main("usage", "--ledger", place, "--plot", "--by", "program", "--figure", "cost").stdout.splitlines()
    assert printed[0] == "cost in US dollars by program"
    assert [line.split()[0] for line in printed[1:]] == ["Rag", "Qa"], "the largest first"
    assert printed[1].count("█") > printed[2].count("█") > 0
    done = live.main("usage", "--ledger", place, "--png", "u.png", "--by", "model", "--figure", "tokens")
    assert done.returncode == 0, done.stderr
    assert (live.folder / "u.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    wrong = live.main("usage", "--ledger", place, "--plot", "--by", "model", "--figure", "runs")
    assert (wrong.returncode, "by model" in wrong.stderr) == (2, True)
    assert live.main("usage", "--ledger", place, "--png", "u.jpg").returncode == 2


def test_names_of_any_kind_are_shown_as_they_are(live: Commands) -> None:
    """Brackets were markup and ended in a traceback, "$" was a formula, a line's end broke the picture."""
    names = ["a[/b]", "[bold]c", "$\\frac{$", "$\\frac{$2", "two\nlines", "\u65e5\u672c\u8a9e", "x" * 300]
    place = str(live.folder / "odd.db")
    book = open_ledger(place)
    for name in names:
        book.lm_call_ended(LMRecord(model=name, usage=LMUsage(10, 5, 15), cost=0.5, run="r"))
    book.close()
    printed = [live.main("usage", "--ledger", place, *words) for words in (("--by", "model"), ("--calls", "9"))]
    printed.append(live.main("usage", "--ledger", place, "--by", "model", "--plot"))
    for done in printed:
        assert done.returncode == 0, done.stderr
        assert "a[/b]" in done.stdout
        assert "[bold]c" in done.stdout
        assert "two\ufffdlines" in done.stdout
    done = live.main("usage", "--ledger", place, "--by", "model", "--png", "odd.png")
    assert (done.returncode, done.stderr) == (0, "drew odd.png\n")


def test_nothing_is_not_drawn(live: Commands, place: str) -> None:
    done = live.main("usage", "--ledger", place, "--program", "nobody", "--png", "none.png")
    assert "nothing is written down" in done.stdout
    assert not (live.folder / "none.png").exists()


def test_an_address_that_is_no_ledgers_is_refused_and_makes_no_file(live: Commands) -> None:
    for place in ("redis://127.0.0.1/0", "sqlite:///ledger.db"):
        wrong = live.main("usage", "--ledger", place)
        assert (wrong.returncode, len(wrong.stderr.splitlines())) == (2, 1)
        assert "postgresql://" in wrong.stderr
    assert not list(live.folder.glob("*:"))


@pytest.mark.parametrize(
    "words",
    [
        *(("--since", "soon"), ("--by", "week"), ("--ledger", "missing.db"), ("--runs", "x")),
        *(("--runs", "-1"), ("--calls", "0"), ("--ledger", "postgresql://127.0.0.1:1/x")),
    ],
)
def test_wrong_words_are_told_in_one_line(words: tuple[str, str], live: Commands, place: str) -> None:
    wrong = live.main("usage", *words)
    assert wrong.returncode == 2
    assert len(wrong.stderr.splitlines()) == 1
    assert not (live.folder / "missing.db").exists()


def test_a_run_of_the_command_line_is_written_down(live: Commands) -> None:
    place = str(live.folder / "new" / "ledger.db")
    for command in ("run", "stream"):
        done = live.main(command, "qa.py:plain", "hello", "--sim", DSPY_LIVE_LEDGER=place)
        assert done.returncode == 0, done.stderr
    (program, every) = live.main("usage", "--by", "program", "--ledger", place).stdout.splitlines()[1:3]
    assert program.split()[:3] == ["plain", "2", "0"]
    assert every.split()[1] == "2"


def test_a_failed_run_is_written_down_as_that(live: Commands) -> None:
    place = str(live.folder / "ledger.db")
    live.main("run", "qa.py:failing", "hello", "--sim", DSPY_LIVE_LEDGER=place)
    assert "ValueError" in live.main("usage", "--runs", "1", "--ledger", place).stdout


def test_a_ledger_by_choice_or_none(live: Commands, tmp_path: Path) -> None:
    assert (
        live.main(
            "run", "qa.py:plain", "hi", "--sim", DSPY_LIVE_LEDGER="none", DSPY_LIVE_HOME=str(tmp_path / "h")
        ).returncode
        == 0
    )
    assert not (tmp_path / "h").exists()
    (tmp_path / "file").write_text("")
    usual = live.main("run", "qa.py:plain", "hi", "--sim", DSPY_LIVE_HOME=str(tmp_path / "file"))
    assert (usual.returncode, "not written down" in usual.stderr) == (0, True)
    named = live.main("run", "qa.py:plain", "hi", "--sim", DSPY_LIVE_LEDGER=str(tmp_path / "file" / "x.db"))
    assert (named.returncode, "can't be opened" in named.stderr) == (2, True)


def test_a_ledger_that_dotenv_names(live: Commands, tmp_path: Path) -> None:
    place = tmp_path / "named.db"
    (live.folder / ".env").write_text(f"DSPY_LIVE_LEDGER={place}\n")
    assert live.run("run", "qa.py:plain", "hi", "--sim").returncode == 0
    assert place.is_file()
    assert "plain" in live.run("usage", "--runs", "1").stdout
