"""A scope follows the program wherever DSPy takes it, and nowhere else."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import dspy

from dspy_live.core.usage import LMRecord, LMUsage
from dspy_live.observe.tracker import UsageTracker
from dspy_live.programs.lm import accounting
from dspy_live.runtime.books.account import Account


class Uses(dspy.Module):
    """A program that books, as an LM of ours would."""

    def __init__(self, account: Account) -> None:
        super().__init__()
        self.account = account

    def forward(self, tokens: int) -> Any:
        meters = self.account.admit()
        self.account.record(LMRecord(model="m", usage=LMUsage(tokens, 0, tokens), cost=0.0), meters)
        return dspy.Prediction(tokens=tokens)


def an_account() -> Account:
    account = Account()
    accounting.install(account)
    accounting.install(account)
    return account


def test_usage_in_the_threads_of_parallel_is_counted_once() -> None:
    """DSPy's own tracker shows 0 here (#9201, #9360)."""
    account = an_account()
    uses = Uses(account)
    with UsageTracker(account) as outer, UsageTracker(account) as inner:
        dspy.Parallel(num_threads=4, disable_progress_bar=True)([(uses, {"tokens": n}) for n in range(1, 9)])
    assert outer.get_stats()["total_tokens"] == inner.get_stats()["total_tokens"] == 36
    assert inner.get_stats()["api_calls"] == 8


def test_a_thread_of_the_users_own_is_outside_of_the_scope_but_in_the_account() -> None:
    account = an_account()
    uses = Uses(account)
    with UsageTracker(account) as scope:
        thread = threading.Thread(target=uses, kwargs={"tokens": 5})
        thread.start()
        thread.join()
    assert scope.get_stats()["total_tokens"] == 0
    assert UsageTracker(account).get_stats()["total_tokens"] == 5


async def test_scopes_side_by_side_do_not_mix() -> None:
    account = an_account()
    uses = Uses(account)

    async def one(tokens: int) -> int:
        with UsageTracker(account) as scope:
            await asyncio.sleep(0)
            uses(tokens=tokens)
            await asyncio.gather(asyncio.to_thread(uses, tokens=tokens), asyncio.to_thread(uses, tokens=tokens))
        return int(scope.get_stats()["total_tokens"])

    assert await asyncio.gather(*(one(n) for n in range(20))) == [3 * n for n in range(20)]


def test_a_scope_opened_before_dspy_was_there_goes_on() -> None:
    account = Account()
    with UsageTracker(account) as scope:
        accounting.install(account)
        Uses(account)(tokens=3)
    assert scope.get_stats()["total_tokens"] == 3


def test_the_scope_ends_where_it_ends() -> None:
    account = an_account()
    with UsageTracker(account) as scope:
        pass
    Uses(account)(tokens=3)
    assert scope.get_stats()["total_tokens"] == 0
