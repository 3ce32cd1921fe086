"""The tracker as a view of the process and as a scope, and what it exports."""

from __future__ import annotations

import csv
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspy_live.core.errors import ConfigurationError
from dspy_live.core.usage import LMRecord, LMUsage
from dspy_live.observe.tracker import UsageTracker
from dspy_live.runtime.books import totals
from dspy_live.runtime.books.account import Account


def a_record(tokens: int = 10, **more: Any) -> LMRecord:
    fields: dict[str, Any] = {"model": "m", "usage": LMUsage(tokens, 0, tokens), "cost": 0.5, **more}
    return LMRecord(**fields)


def test_a_fresh_tracker_shows_the_process_and_reset_starts_it_from_zero() -> None:
    account = Account()
    account.record(a_record(7))
    one, other = UsageTracker(account), UsageTracker(account)
    assert one.get_stats()["total_tokens"] == 7
    one.reset()
    assert one.get_stats()["total_tokens"] == 0
    account.record(a_record(5))
    assert one.get_stats()["total_tokens"] == 5
    assert other.get_stats()["total_tokens"] == 12


def test_everything_the_specification_names_is_there() -> None:
    stats = UsageTracker(Account()).get_stats()
    for name in "total_tokens prompt_tokens completion_tokens total_cost api_calls cache_hits cache_misses".split():
        assert stats[name] == 0
    for name in "errors unpriced_calls by_model by_predictor".split():
        assert not stats[name]


def test_each_kind_of_exchange_is_counted_under_its_own_name() -> None:
    account = Account()
    account.record(a_record(10, cache="miss"))
    account.record(a_record(0, cache="hit", usage=LMUsage(), cost=0.0))
    account.record(a_record(0, usage=LMUsage(), cost=None, error="LMTimeoutError"))
    account.record(a_record(20, cost=None, model="other"))
    account.record(LMRecord(model="m", usage=LMUsage.estimate(40, 0), cost=0.25, error="CancelledError"))
    stats = UsageTracker(account).get_stats()
    assert (stats["api_calls"], stats["cache_hits"], stats["cache_misses"], stats["errors"]) == (4, 1, 1, 2)
    assert stats["total_tokens"] == 40
    assert stats["total_cost"] == 0.75
    assert (stats["unpriced_calls"], stats["unpriced_models"]) == (1, ["other"])
    assert (stats["estimated_calls"], stats["estimated_tokens"]) == (1, 10)
    assert stats["by_model"]["other"]["total_tokens"] == 20


def test_every_enclosing_module_has_its_share() -> None:
    """DSPy books on the outermost module only (#10191)."""
    account = Account()
    account.record(a_record(10, program="App", predictor="rag.answer", modules=("", "rag")))
    account.record(a_record(5, program="App", predictor="check", modules=("",)))
    account.record(a_record(1))
    stats = UsageTracker(account).get_stats()
    assert {k: v["total_tokens"] for k, v in stats["by_module"].items()} == {"self": 15, "rag": 10}
    assert {k: v["total_tokens"] for k, v in stats["by_predictor"].items()} == {
        "rag.answer": 10,
        "check": 5,
        "(direct)": 1,
    }
    assert stats["by_program"]["App"]["by_predictor"]["check"]["api_calls"] == 1
    assert stats["by_program"]["(direct)"]["total_tokens"] == 1


def test_a_module_that_is_entered_twice_counts_a_call_once() -> None:
    account = Account()
    account.record(a_record(10, predictor="a.b", modules=("a", "a")))
    assert UsageTracker(account).get_stats()["by_module"]["a"]["total_tokens"] == 10


def test_a_scope_counts_the_calls_inside_and_can_be_entered_again() -> None:
    account = Account()
    account.record(a_record(1))
    tracker = UsageTracker(account)
    with tracker:
        account.record(a_record(2))
    account.record(a_record(4))
    with tracker:
        account.record(a_record(8))
    assert tracker.get_stats()["total_tokens"] == 10
    tracker.reset()
    assert tracker.get_stats()["total_tokens"] == 0


def test_one_tracker_is_one_scope_at_a_time() -> None:
    tracker = UsageTracker(Account())
    with tracker, pytest.raises(RuntimeError, match="second one"):
        tracker.__enter__()
    with tracker:
        pass


def test_figures_that_the_caller_names_are_the_ones_that_are_booked() -> None:
    """The engine may book from another task than it was asked in: it hands over what ``admit`` returned."""
    account = Account()
    with UsageTracker(account) as scope:
        meters = account.admit()
    account.record(a_record(3), meters)
    assert scope.get_stats()["total_tokens"] == 3


def test_concurrent_threads_lose_no_record() -> None:
    account = Account()

    def work() -> None:
        for n in range(2000):
            account.record(a_record(1, predictor=f"p{n % 7}"))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = UsageTracker(account).get_stats()
    assert stats["api_calls"] == stats["total_tokens"] == 16_000
    assert sum(p["api_calls"] for p in stats["by_predictor"].values()) == 16_000


def test_kinds_without_end_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(totals, "MAX_ROWS", 5)
    account = Account()
    for n in range(50):
        account.record(a_record(1, predictor=f"p{n}"))
    stats = UsageTracker(account).get_stats()
    assert stats["total_tokens"] == 50
    assert len(stats["by_predictor"]) == 6
    assert stats["by_predictor"]["(other)"]["total_tokens"] == 45


_RECORDS = st.builds(
    lambda m, p, mods, t, cost, cache, err: LMRecord(
        model=m, predictor=p, modules=tuple(mods), usage=LMUsage(t, t, 2 * t), cost=cost, cache=cache, error=err
    ),
    st.sampled_from(["a", "b"]),
    st.sampled_from(["", "x", "y.z"]),
    st.lists(st.sampled_from(["", "y"]), max_size=2),
    st.integers(0, 1000),
    st.one_of(st.none(), st.integers(0, 10).map(float)),
    st.sampled_from(["hit", "miss", "off"]),
    st.one_of(st.none(), st.just("Error")),
)


@given(st.lists(_RECORDS), st.lists(_RECORDS))
def test_every_grouping_adds_up_to_the_whole_after_any_reset(before: list[LMRecord], after: list[LMRecord]) -> None:
    account = Account()
    tracker = UsageTracker(account)
    for record in before:
        account.record(record)
    tracker.reset()
    for record in after:
        account.record(record)
    stats = tracker.get_stats()
    asked = [r for r in after if r.cache != "hit"]
    assert stats["api_calls"] == len(asked)
    assert stats["total_tokens"] == sum(r.usage.total_tokens for r in asked)
    for name in ("api_calls", "total_tokens", "total_cost", "cache_hits", "errors", "unpriced_calls"):
        for group in ("by_model", "by_predictor", "by_program"):
            assert sum(part[name] for part in stats[group].values()) == pytest.approx(stats[name])


def test_export_in_each_format(tmp_path: Path) -> None:
    account = Account()
    account.record(a_record(10, program="App", predictor="p", key="k1"))
    account.record(a_record(20, program="App", predictor="=p", key="k1", model="ünicode"))
    tracker = UsageTracker(account)

    whole = json.loads(tracker.export(tmp_path / "u.json").read_text())
    assert whole == json.loads(json.dumps(tracker.get_stats()))

    lines = [json.loads(line) for line in tracker.export(str(tmp_path / "u.jsonl")).read_text().splitlines()]
    assert [(row["model"], row["total_tokens"]) for row in lines] == [("m", 10), ("ünicode", 20)]

    with tracker.export(tmp_path / "u.CSV").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["predictor"] for row in rows] == ["p", "'=p"]
    assert rows[1]["total_tokens"] == "20"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["u.CSV", "u.json", "u.jsonl"]


def test_an_exported_file_has_the_permissions_of_any_other(tmp_path: Path) -> None:
    """It was readable by its owner alone, and a link was replaced by a file."""
    ordinary, kept, link = tmp_path / "ordinary", tmp_path / "kept.csv", tmp_path / "link.csv"
    ordinary.touch()
    tracker = UsageTracker(Account())
    assert tracker.export(tmp_path / "new.csv").stat().st_mode == ordinary.stat().st_mode
    kept.touch(mode=0o640)
    kept.chmod(0o640)
    link.symlink_to(kept)
    tracker.export(link)
    assert link.is_symlink()
    assert kept.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"])
def test_a_name_in_a_csv_is_no_formula(begin: str, tmp_path: Path) -> None:
    account = Account()
    account.record(a_record(10, model=f"{begin}cmd|'/C calc'!A0"))
    with UsageTracker(account).export(tmp_path / "u.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["model"] == f"'{begin}cmd|'/C calc'!A0"


@pytest.mark.parametrize("name", ["usage.xml", "usage", "missing/usage.json"])
def test_a_place_that_cannot_be_written_is_told(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"\.csv|no folder"):
        UsageTracker(Account()).export(tmp_path / name)
    assert not list(tmp_path.iterdir())
