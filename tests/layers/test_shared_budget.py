"""A budget that several processes share through a real server."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from tests.support.databases import Server, free_port

from dspy_live.core.errors import BudgetExceeded, ConfigurationError
from dspy_live.core.usage import Expected, LMRecord, LMUsage
from dspy_live.layers.budget import BudgetAlert
from dspy_live.layers.shared_budget import SharedBudget


def used(tokens: int = 10, cost: float | None = 0.25) -> LMRecord:
    return LMRecord(model="m", usage=LMUsage(tokens, 0, tokens), cost=cost)


class Purse:
    """Makes budgets of one server and closes them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.made: list[SharedBudget] = []

    def __call__(self, name: str = "team", **limits: Any) -> SharedBudget:
        self.made.append(SharedBudget(self.url, name, **limits))
        return self.made[-1]

    def by_hand(self, **limits: Any) -> SharedBudget:
        """A budget without its thread: it talks to the server only in ``sync()``."""
        budget = self(**limits)
        budget._stop.set()
        return budget


@pytest.fixture
def purse(redis_url: str) -> Iterator[Purse]:
    purse = Purse(redis_url)
    yield purse
    for budget in purse.made:
        budget.close()


def test_what_one_process_spends_the_other_can_not(purse: Purse) -> None:
    one, other = purse(max_cost=1.0, max_calls=100), purse(max_cost=1.0, max_calls=100)
    for _ in range(3):
        one.record(used())
    one.sync()
    other.record(used())
    other.sync()
    assert other.spent == {"cost": 1.0, "tokens": 40, "calls": 4}
    with pytest.raises(BudgetExceeded, match=r"team: \$1\.0000 of \$1\.0000"):
        other.check()
    one.sync()
    with pytest.raises(BudgetExceeded):
        one.check()
    assert purse("another team", max_cost=1.0).spent["cost"] == 0.0
    assert purse(max_cost=1.0).spent["cost"] == 1.0, "a process that starts later knows it at once"


def test_it_is_told_by_itself_within_a_moment(purse: Purse) -> None:
    one, other = purse(max_calls=1), purse(max_calls=1)
    one.record(used())
    until = time.monotonic() + 10
    refused = False
    while not refused and time.monotonic() < until:
        try:
            other.check()
            time.sleep(0.01)
        except BudgetExceeded:
            refused = True
    assert refused


def test_threads_and_processes_lose_nothing(purse: Purse) -> None:
    budgets = [purse(max_calls=10**6) for _ in range(2)]

    def work(budget: SharedBudget) -> None:
        for _ in range(500):
            budget.record(used(3, 0.5))

    threads = [threading.Thread(target=work, args=(budget,)) for budget in budgets for _ in range(2)]
    for thread in threads:
        thread.start()
    code = (
        "import sys; from dspy_live.layers.shared_budget import SharedBudget; "
        "from dspy_live.core.usage import Expected, LMRecord, LMUsage\n"
        "b = SharedBudget(sys.argv[1], 'team', max_calls=10**6)\n"
        "for _ in range(500): b.record(LMRecord(model='m', usage=LMUsage(3, 0, 3), cost=0.5))\n"
        "b.close()"
    )
    subprocess.run([sys.executable, "-c", code, purse.url], check=True)
    for thread in threads:
        thread.join()
    for budget in budgets:
        budget.sync()
    budgets[0].sync()
    assert budgets[0].spent == {"cost": 1250.0, "tokens": 7500, "calls": 2500}


def test_what_is_spent_while_figures_are_exchanged_counts_at_once(
    purse: Purse, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = purse.by_hand(max_calls=10)
    exchange = budget._exchange

    def slow(*told: Any) -> Any:
        totals = exchange(*told)
        budget.record(used())
        return totals

    monkeypatch.setattr(budget, "_exchange", slow)
    budget.record(used())
    budget.sync()
    assert budget.spent["calls"] == 2


def test_a_day_begins_anew(purse: Purse, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    heard: list[BudgetAlert] = []
    budget = purse(max_calls=1, period="day", on_alert=heard.append)
    budget.record(used())
    budget.sync()
    with pytest.raises(BudgetExceeded):
        budget.check()
    real = time.gmtime
    monkeypatch.setattr(time, "gmtime", lambda: real(now + 86_400))
    budget.sync()
    budget.check()
    assert budget.spent["calls"] == 0
    budget.record(used())
    assert len(heard) == 2, "each day has its alert"
    with redis.Redis.from_url(purse.url) as raw:
        keys = raw.keys("dspy-live:budget:team:*")
        assert len(keys) == 2
        assert all(0 < raw.ttl(key) <= 2 * 86_400 for key in keys)


def test_the_first_call_of_a_new_day_is_not_refused(purse: Purse, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was: yesterday's figures stood until the server had been asked again, which no call waits for."""
    now = time.time()
    budget = purse(max_cost=0.1, period="day", unpriced="refuse")
    budget.record(used())
    budget.record(used(cost=None))
    budget.sync()
    real = time.gmtime
    monkeypatch.setattr(time, "gmtime", lambda: real(now + 86_400))
    monkeypatch.setattr(budget, "_ask", lambda: None)
    budget._synced -= 60
    budget.check()
    assert budget.spent == {"cost": 0, "tokens": 0, "calls": 0}


def test_everybody_is_alerted_once(purse: Purse) -> None:
    heard: list[BudgetAlert] = []
    one = purse(max_calls=10)
    other = purse(max_calls=10, on_alert=heard.append)
    for _ in range(8):
        one.record(used())
    one.sync()
    other.sync()
    other.sync()
    assert [(a.unit, a.spent) for a in heard] == [("calls", 8)]


def test_reset_is_for_all(purse: Purse) -> None:
    one, other = purse(max_calls=1), purse(max_calls=1)
    one.record(used())
    one.sync()
    other.reset()
    one.sync()
    one.check()
    other.check()


def test_while_the_server_is_down_each_counts_alone_and_tells_later(
    redis_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    budget = SharedBudget(f"redis://127.0.0.1:{redis_server.port}", "team", max_calls=3)
    redis_server.stop()
    for _ in range(3):
        budget.check()
        budget.record(used())
        assert not budget.sync()
    with pytest.raises(BudgetExceeded):
        budget.check()
    assert caplog.text.count("counts alone") == 1
    redis_server.start()
    assert budget.sync()
    assert SharedBudget(f"redis://127.0.0.1:{redis_server.port}", "team", max_calls=3).spent["calls"] == 3
    assert "shared again" in caplog.text
    budget.close()


def test_a_server_that_was_never_there_refuses_nobody(caplog: pytest.LogCaptureFixture) -> None:
    budget = SharedBudget(f"redis://127.0.0.1:{free_port()}", "team", max_calls=1)
    budget.check()
    assert "counts alone" in caplog.text
    with pytest.raises(OSError, match="does not answer"):
        budget.reset()
    budget.close()


def test_one_that_nobody_uses_goes_and_takes_its_thread_along(redis_url: str) -> None:
    import gc
    import weakref

    budget = SharedBudget(redis_url, "team", max_calls=10)
    budget.record(used())
    thread = budget._thread
    assert thread is not None
    gone = weakref.ref(budget)
    until = time.monotonic() + 10
    while any(budget._pending.values()) and time.monotonic() < until:
        time.sleep(0.01)
    budget._server.close()
    del budget
    while gone() is not None and time.monotonic() < until:
        gc.collect()
    thread.join(10)
    assert gone() is None
    assert not thread.is_alive()


def test_a_server_that_comes_back_empty_gives_nothing_back(purse: Purse) -> None:
    """Each process took the empty server's totals for the truth, and the whole limit could be spent once more."""
    one, other = purse.by_hand(max_calls=10), purse.by_hand(max_calls=10)
    for _ in range(4):
        one.record(used())
    one.sync()
    other.record(used())
    other.sync()
    one._server.flushall()
    one.record(used())
    one.sync()  # it knows of 4, and has spent one more
    assert one.spent["calls"] == 5
    other.sync()
    assert other.spent == {"cost": 1.25, "tokens": 50, "calls": 5}
    assert purse(max_calls=10).spent["calls"] == 5, "a process that starts later knows it too"
    other.record(used())
    other.sync()
    one.sync()
    assert one.spent["calls"] == other.spent["calls"] == 6


def test_a_reset_holds_for_processes_that_know_of_more(purse: Purse) -> None:
    one, other = purse.by_hand(max_calls=10), purse.by_hand(max_calls=10)
    for _ in range(9):
        one.record(used())
    one.sync()
    other.sync()
    one.reset()
    other.sync()
    one.sync()
    assert one.spent["calls"] == other.spent["calls"] == 0
    one._server.flushall()
    other.record(used())
    other.sync()
    assert other.spent["calls"] == 1


def test_calls_that_run_are_reserved_in_their_own_process(purse: Purse) -> None:
    budget = purse(max_calls=3)
    running = [budget.reserve(Expected()) for _ in range(3)]
    budget.sync()
    with pytest.raises(BudgetExceeded, match="3 calls are reserved for calls that run"):
        budget.reserve(Expected())
    for reservation in running:
        reservation.record(used())
    budget.sync()
    assert purse(max_calls=3).spent["calls"] == 3


@pytest.mark.parametrize(
    "wrong", [{"period": "week", "max_calls": 1}, {}, {"max_calls": 0}, {"url": "http://x", "max_calls": 1}]
)
def test_what_can_not_work_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        SharedBudget(wrong.pop("url", "redis://127.0.0.1:1"), "team", **wrong)
