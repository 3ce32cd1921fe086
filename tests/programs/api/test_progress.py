"""A batch's progress bar."""

from __future__ import annotations

import sys
import threading

import pytest
import tqdm

from dspy_live.core.usage import LMRecord
from dspy_live.programs.api.progress import Bar, progress_for
from dspy_live.runtime.books.account import Account


def drawn(capsys: pytest.CaptureFixture[str]) -> str:
    """The bar as it was drawn last."""
    return capsys.readouterr().err.rstrip().rpartition("\r")[2]


def test_the_bar_shows_items_failures_and_the_cost_of_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    account = Account()
    account.record(LMRecord(model="m", cost=7.0))
    with progress_for(True, ["a", "b", "c"], account) as bar:
        account.record(LMRecord(model="m", cost=0.25))
        bar.done()
        account.record(LMRecord(model="m", cost=None))
        bar.done(failed=True)
    line = drawn(capsys)
    assert line.startswith("batch (1 failed):")
    assert " 2/3 " in line
    assert "$0.2500+" in line
    assert account.observers == ()


def test_inputs_without_a_length_have_no_total(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_for(True, iter("abc"), Account()) as bar:
        bar.done()
    assert drawn(capsys).startswith("batch: 1item ")


def test_resumed_items_are_no_part_of_the_rate() -> None:
    with Bar(10, Account()) as bar:
        for _ in range(9):
            bar.done(resumed=True)
        bar.done()
        assert (bar._bar.n, bar._bar.initial) == (10, 9)


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_bar_is_drawn_by_default_only_on_a_terminal(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    with progress_for(None, ["a"], Account()) as bar:
        bar.done()
    assert bool(capsys.readouterr().err) is is_terminal


def test_the_bar_outlives_a_parallel_that_empties_the_set_of_bars(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_for(True, ["a"], Account()) as bar:
        clearing = threading.Thread(target=tqdm.tqdm._instances.clear)
        clearing.start()
        clearing.join()
        bar.done()
    assert " 1/1 " in drawn(capsys)
