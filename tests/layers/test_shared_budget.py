"""A budget that several processes share through a real server: exact, and never backwards."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import redis
from tests.layers.shared_server import PATIENCE, row, settle
from tests.support.databases import Server
from tests.support.ports import refusing_port
from tests.support.processes import Processes
from tests.support.until import async_until, until

from dspy_live.core.call import Call
from dspy_live.core.errors import BudgetExceeded, ConfigurationError
from dspy_live.core.usage import Expected, LMRecord, LMUsage
from dspy_live.layers.budget import BudgetAlert, per_key
from dspy_live.layers.shared_budget import BudgetUnreachable, SharedBudget
from dspy_live.runtime.books.account import Account
from dspy_live.runtime.stores import line


def used(tokens: int = 10, cost: float | None = 0.25) -> LMRecord:
    return LMRecord(model="m", usage=LMUsage(tokens, 0, tokens), cost=cost)


def expected(tokens: int = 10, cost: float = 0.25) -> Expected:
    return Expected("m", LMUsage(tokens, 0, tokens), cost)


class Purse:
    """Makes budgets of one server, each with a line of its own as if it were another process's."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.made: list[SharedBudget] = []

    def __call__(self, name: str = "team", **options: Any) -> SharedBudget:
        line._lines.clear()
        self.made.append(SharedBudget(self.url, name, **{"timeout": PATIENCE, **options}))
        return self.made[-1]

    def raw(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)


@pytest.fixture
def purse(redis_url: str) -> Iterator[Purse]:
    purse = Purse(redis_url)
    yield purse
    for budget in purse.made:
        budget.close()


KEY = "dspy-live:budget:team"


def refusal(budget: SharedBudget) -> str:
    """Wait until ``check()`` refuses, and return why: it does so by figures that are half a second old at most."""
    said: list[str] = []

    def refused() -> bool:
        try:
            budget.check()
        except BudgetExceeded as exc:
            said.append(str(exc))
        return bool(said)

    until(refused)
    return said[0]


@pytest.fixture
def midnight(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Stop the clock that tells the day; calling it lets the next day begin."""
    real, at = time.gmtime, [time.time()]
    monkeypatch.setattr(time, "gmtime", lambda: real(at[0]))

    def next_day() -> None:
        at[0] += 86_400

    return next_day


def silence(budget: SharedBudget) -> None:
    """From here on the server hears nothing of this one, as if its process had died."""
    budget._line.soon = lambda *_: None  # type: ignore[method-assign]
    budget._line._due.clear()


WORKER = """
import asyncio
from dspy_live.core.errors import BudgetExceeded
from dspy_live.core.usage import Expected, LMRecord, LMUsage
from dspy_live.layers.shared_budget import SharedBudget
from dspy_live.runtime.books.account import Account

url, limit, estimate, real, calls = sys.argv[1], json.loads(sys.argv[2]), *map(int, sys.argv[3:6])
account, sent = Account(), 0

async def one(budget, number):
    global sent
    expected = Expected("m", LMUsage(estimate, 0, estimate), estimate / 1000)
    try:
        meters = await account.admit_async((budget,), lambda: expected)
    except BudgetExceeded:
        return
    sent += 1
    await asyncio.sleep(number % 5 / 100)
    account.record(LMRecord(model="m", usage=LMUsage(real, 0, real), cost=real / 1000), meters)

async def main():
    budget = SharedBudget(url, "team", timeout=30, **limit)
    tell("ready")
    wait_for_a_word()
    await asyncio.gather(*(one(budget, number) for number in range(calls)))
    budget.sync()
    tell(sent)
    budget.close()

asyncio.run(main())
"""


def run_workers(url: str, limit: str, estimate: int, real: int, processes: int = 4, calls: int = 50) -> int:
    with Processes(WORKER, [[url, limit, estimate, real, calls]] * processes) as workers:
        workers.hear()
        workers.go()
        return sum(workers.hear())


def test_200_calls_at_once_over_four_processes_make_as_many_requests_as_the_limit_says(purse: Purse) -> None:
    """Read the total, compare, send: with that order, as in LiteLLM, all 200 see that nothing is spent yet."""
    assert run_workers(purse.url, '{"max_calls": 37}', 10, 10) == 37
    budget = purse(max_calls=37)
    assert budget.spent == {"cost": pytest.approx(0.37), "tokens": 370, "calls": 37}
    assert run_workers(purse.url, '{"max_calls": 37}', 10, 10, processes=2) == 0


@pytest.mark.parametrize(("estimate", "real", "sent"), [(100, 100, 10), (100, 110, 10), (100, 60, None)])
def test_tokens_and_cost_pass_the_limit_by_the_estimates_error_at_most(
    estimate: int, real: int, sent: int | None, purse: Purse
) -> None:
    made = run_workers(purse.url, '{"max_tokens": 1000, "max_cost": 1.0}', estimate, real)
    spent = purse(max_tokens=1000).spent
    assert spent["tokens"] == made * real
    assert spent["tokens"] <= 1000 + made * max(0, real - estimate)
    assert made >= 10
    if sent is not None:
        assert made == sent


async def test_no_call_blocks_the_event_loop(purse: Purse) -> None:
    """While the server is silent the loop turns, and the call waits by itself."""
    budget = purse(max_calls=10)
    with purse.raw() as raw:
        raw.client_pause(60_000, all=False)
        reserving = asyncio.create_task(budget.reserve_async(expected()))
        for _ in range(20):
            await asyncio.sleep(0.001)
            assert not reserving.done()
        raw.client_unpause()
    (await reserving).release()


async def test_the_unused_part_of_a_reservation_is_free_at_once(purse: Purse) -> None:
    """A settlement that is still on its way must not make the next call be refused."""
    budget = purse(max_tokens=1000)
    for _ in range(20):
        reserved = await budget.reserve_async(expected(900))
        reserved.record(used(1))
    assert budget.spent["tokens"] == 20


async def test_a_call_that_is_cancelled_while_it_waits_has_reserved_nothing(quick: None, purse: Purse) -> None:
    one, other = purse(max_calls=1), purse(max_calls=1)
    for turns in range(6):
        waiting = asyncio.create_task(one.reserve_async(expected()))
        for _ in range(turns):
            await asyncio.sleep(0.0005)
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            (await waiting).release()
        one.sync()
        (await other.reserve_async(expected())).release()
        other.sync()
    assert one.spent["calls"] == 0


async def test_reservations_of_a_dead_process_expire_and_its_spending_stays(
    quick: None, purse: Purse, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, living = purse(max_calls=3), purse(max_calls=3)
    (await dead.reserve_async(expected())).record(used())
    running = [await dead.reserve_async(expected()) for _ in range(2)]
    dead.sync()
    with pytest.raises(BudgetExceeded, match="2 calls are reserved for calls that run"):
        await living.reserve_async(expected())
    monkeypatch.setattr(line, "LEASE", 0.5)
    dead.sync()
    silence(dead)

    async def has_room() -> bool:
        with suppress(BudgetExceeded):
            await living.reserve_async(expected())
            return True
        return False

    end = time.monotonic() + 30
    while not await has_room():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)
    assert living.spent["calls"] == 1
    assert len(running) == 2


def test_a_process_that_is_killed_leaves_no_reservation_behind(quick: None, purse: Purse) -> None:
    code = """
    from dspy_live.core.usage import Expected
    from dspy_live.layers.shared_budget import SharedBudget
    from dspy_live.runtime.stores import line
    line.LEASE, line.BEAT = 60.0, 0.1
    budget = SharedBudget(sys.argv[1], "team", max_calls=2, timeout=30)
    held = [budget.reserve(Expected()) for _ in range(2)]
    tell("holds")
    wait_for_a_word()
    line.LEASE = 0.5
    budget.sync()
    tell("holds on for half a second")
    wait_for_a_word()
    """
    budget = purse(max_calls=2)
    with Processes(code, [[purse.url]]) as processes:
        processes.hear()
        with pytest.raises(BudgetExceeded, match="2 calls are reserved"):
            budget.reserve(expected())
        processes.go()
        processes.hear()
        processes.all[0].send_signal(signal.SIGKILL)

        def reserved() -> bool:
            with suppress(BudgetExceeded):
                budget.reserve(expected()).release()
                return True
            return False

        until(reserved)


async def test_a_reservation_of_a_long_call_is_kept_alive(quick: None, purse: Purse) -> None:
    one, other = purse(max_calls=1), purse(max_calls=1)
    running = await one.reserve_async(expected())
    with purse.raw() as raw:
        first = row(raw, KEY, one._line)
        await async_until(lambda: row(raw, KEY, one._line)[0] > first[0] + 0.1)
    with pytest.raises(BudgetExceeded):
        await other.reserve_async(expected())
    running.release()


# The store: killed, restarted empty, slow, partitioned.


async def test_while_the_server_is_dead_each_counts_alone_and_tells_later(
    quick: None, redis_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"redis://127.0.0.1:{redis_server.port}"
    budget = SharedBudget(url, "team", max_calls=3, timeout=PATIENCE)
    redis_server.stop()
    for _ in range(3):
        (await budget.reserve_async(expected())).record(used())
    with pytest.raises(BudgetExceeded, match="3 calls of 3 calls are spent"):
        await budget.reserve_async(expected())
    assert caplog.text.count("counts alone") == 1
    redis_server.start()
    await async_until(lambda: "shared again" in caplog.text)
    line._lines.clear()
    later = await asyncio.to_thread(SharedBudget, url, "team", max_calls=3, timeout=PATIENCE)
    assert later.spent["calls"] == 3
    budget.close()


async def test_it_can_refuse_every_call_while_the_server_is_dead(quick: None, redis_server: Server) -> None:
    url = f"redis://127.0.0.1:{redis_server.port}"
    budget = SharedBudget(url, "team", max_calls=3, on_outage="refuse", timeout=PATIENCE)
    redis_server.stop()
    for _ in range(2):
        with pytest.raises(BudgetUnreachable, match="does not answer") as refused:
            await budget.reserve_async(expected())
        assert refused.value.status == 503
        assert refused.value.retry_after
    with pytest.raises(BudgetUnreachable):
        budget.check()
    redis_server.start()

    def let_through() -> bool:
        with suppress(BudgetUnreachable):
            budget.check()
            return True
        return False

    await async_until(let_through)
    (await budget.reserve_async(expected())).record(used())
    budget.close()


def test_a_server_that_was_never_there_refuses_nobody(caplog: pytest.LogCaptureFixture) -> None:
    with refusing_port() as port:
        budget = SharedBudget(f"redis://127.0.0.1:{port}", "team", max_calls=1)
        budget.check()
        assert "counts alone" in caplog.text
        with pytest.raises(OSError, match="does not answer"):
            budget.reset()
        budget.close()


async def test_a_partition_holds_a_call_up_once_and_for_a_bounded_time(quick: None, purse: Purse) -> None:
    """The server is there and nothing comes back, as behind a cut cable."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        budget = SharedBudget(f"redis://127.0.0.1:{silent.getsockname()[1]}", "team", max_calls=2, timeout=0.05)
        for _ in range(2):
            (await budget.reserve_async(expected())).record(used())
        with pytest.raises(BudgetExceeded):
            await budget.reserve_async(expected())


async def test_a_slow_server_is_waited_for_as_long_as_the_timeout(quick: None, purse: Purse) -> None:
    budget, strict = purse(max_calls=1), purse("other", max_calls=1, timeout=0.05, on_outage="refuse")
    with purse.raw() as raw:
        raw.client_pause(60_000, all=False)
        reserved = asyncio.create_task(budget.reserve_async(expected()))
        with pytest.raises(BudgetUnreachable):
            await strict.reserve_async(expected())
        assert not reserved.done()
        raw.client_unpause()
        (await reserved).record(used())
    with pytest.raises(BudgetExceeded):
        await budget.reserve_async(expected())


async def test_a_server_that_comes_back_empty_gives_nothing_back(unsettled: None, purse: Purse) -> None:
    """Each process took the empty server's totals for the truth, and the whole limit could be spent once more."""
    one, other = purse(max_calls=10), purse(max_calls=10)
    for budget, count in ((one, 4), (other, 1)):
        for _ in range(count):
            (await budget.reserve_async(expected())).record(used())
        budget.sync()
    running = [await other.reserve_async(expected()) for _ in range(3)]
    with purse.raw() as raw:
        raw.flushall()
        # ``one`` knows of 5 that are spent, and nothing of the 3 that the other has under way.
        asking = [asyncio.create_task(one.reserve_async(expected())) for _ in range(10)]
        await async_until(lambda: row(raw, KEY, one._line) and row(raw, KEY, other._line))
        assert not any(task.done() for task in asking)
        settle(raw, KEY)
    await asyncio.to_thread(one.sync)
    results = await asyncio.gather(*asking, return_exceptions=True)
    assert sum(not isinstance(result, Exception) for result in results) == 2
    for reserved in (*running, *(result for result in results if not isinstance(result, BaseException))):
        reserved.record(used())
    one.sync()
    other.sync()
    assert other.spent == {"cost": 2.5, "tokens": 100, "calls": 10}
    later = await asyncio.to_thread(purse, max_calls=10)
    assert later.spent["calls"] == 10, "a process that starts later knows it too"


async def test_an_answer_that_is_lost_counts_nothing_twice(
    quick: None, purse: Purse, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = purse(max_calls=10)
    evaluate = budget._line._evaluate
    losing = [2]

    def lossy(*told: Any, **options: Any) -> Any:
        answers = evaluate(*told, **options)
        if losing[0]:
            losing[0] -= 1
            raise redis.TimeoutError("the answer was lost")
        return answers

    monkeypatch.setattr(budget._line, "_evaluate", lossy)
    (await budget.reserve_async(expected())).record(used())
    await async_until(lambda: not losing[0])
    await async_until(lambda: budget.sync())
    other = await asyncio.to_thread(purse, max_calls=10)
    assert other.spent["calls"] == 1
    held = [other.reserve(expected()) for _ in range(9)]
    with pytest.raises(BudgetExceeded):
        other.reserve(expected())
    assert len(held) == 9


# The rest.


def test_spending_of_one_process_counts_in_the_other(purse: Purse) -> None:
    one, other = purse(max_cost=1.0, max_calls=100), purse(max_cost=1.0, max_calls=100)
    for _ in range(3):
        one.record(used())
    one.sync()
    other.record(used())
    other.sync()
    assert other.spent == {"cost": 1.0, "tokens": 40, "calls": 4}
    assert "team: $1.0000 of $1.0000" in refusal(other)
    assert purse("another team", max_cost=1.0).spent["cost"] == 0.0
    assert purse(max_cost=1.0).spent["cost"] == 1.0, "a process that starts later knows it at once"


def test_a_layer_learns_that_the_others_have_spent_it(purse: Purse) -> None:
    one, other = purse(max_calls=1), purse(max_calls=1)
    one.record(used())
    assert refusal(other)


def test_threads_and_processes_lose_nothing(purse: Purse) -> None:
    budgets = [purse(max_calls=10**6) for _ in range(2)]

    def work(budget: SharedBudget) -> None:
        for _ in range(500):
            budget.record(used(3, 0.5))

    code = """
    from dspy_live.layers.shared_budget import SharedBudget
    from dspy_live.core.usage import LMRecord, LMUsage
    budget = SharedBudget(sys.argv[1], "team", max_calls=10**6, timeout=30)
    for _ in range(500):
        budget.record(LMRecord(model="m", usage=LMUsage(3, 0, 3), cost=0.5))
    tell("spent")
    """
    threads = [threading.Thread(target=work, args=(budget,)) for budget in budgets for _ in range(2)]
    for thread in threads:
        thread.start()
    with Processes(code, [[purse.url]]) as processes:
        processes.hear()
        assert processes.all[0].wait(30) == 0, "at its end it tells what the server has not heard"
    for thread in threads:
        thread.join()
    for budget in (*budgets, budgets[0]):
        budget.sync()
    assert budgets[0].spent == {"cost": 1250.0, "tokens": 7500, "calls": 2500}


def test_a_forked_process_holds_and_spends_for_itself(purse: Purse) -> None:
    code = """
    import os
    from dspy_live.core.usage import Expected, LMRecord, LMUsage
    from dspy_live.layers.shared_budget import SharedBudget
    budget = SharedBudget(sys.argv[1], "team", max_calls=10, timeout=30)
    record = LMRecord(model="m", usage=LMUsage(3, 0, 3), cost=0.5)
    held = budget.reserve(Expected())
    child = os.fork()
    budget.reserve(Expected()).record(record)
    budget.close()
    if not child:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    held.record(record)
    budget.sync()
    tell(budget.spent["calls"])
    """
    with Processes(code, [[purse.url]]) as processes:
        assert processes.hear() == [3]


def test_a_day_begins_anew(purse: Purse, midnight: Callable[[], None]) -> None:
    heard: list[BudgetAlert] = []
    budget = purse(max_calls=1, period="day", on_alert=heard.append)
    budget.record(used())
    budget.sync()
    assert refusal(budget)
    midnight()
    budget.check()
    budget.sync()
    budget.check()
    assert budget.spent["calls"] == 0
    budget.reserve(expected()).record(used())
    assert len(heard) == 2, "each day has its alert"
    budget.sync()
    with purse.raw() as raw:
        keys = raw.keys("dspy-live:budget:team:*")
        assert len(keys) == 2
        assert all(0 < raw.ttl(key) <= 2 * 86_400 for key in keys)


async def test_a_call_that_runs_over_midnight_counts_in_the_new_day(purse: Purse, midnight: Callable[[], None]) -> None:
    budget = purse(max_calls=2, period="day")
    running = await budget.reserve_async(expected())
    midnight()
    other = purse(max_calls=2, period="day")
    budget.sync()
    await other.reserve_async(expected())
    with pytest.raises(BudgetExceeded):
        await other.reserve_async(expected())
    running.record(used())
    budget.sync()
    assert budget.spent["calls"] == 1


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


def test_a_reset_is_for_all_and_for_those_that_know_of_more(purse: Purse) -> None:
    one, other = purse(max_calls=10), purse(max_calls=10)
    for _ in range(9):
        one.record(used())
    one.sync()
    other.sync()
    one.reset()
    other.sync()
    one.sync()
    assert one.spent["calls"] == other.spent["calls"] == 0
    with purse.raw() as raw:
        raw.flushall()
    other.record(used())
    other.sync()
    assert other.spent["calls"] == 1


async def test_an_lm_that_can_not_wait_on_the_loop_reserves_by_the_known_totals(purse: Purse) -> None:
    budget = purse(max_calls=2)
    running = [budget.reserve(expected()) for _ in range(2)]
    with pytest.raises(BudgetExceeded):
        budget.reserve(expected())
    other = purse(max_calls=2)

    def told() -> bool:
        other.sync()
        return other._elsewhere["calls"] == 2

    await async_until(told)
    for reserved in running:
        reserved.release()


async def test_an_unknown_price_is_refused_before_the_server_is_asked(purse: Purse) -> None:
    budget = purse(max_cost=1.0)
    with pytest.raises(BudgetExceeded, match="no known price"):
        await budget.reserve_async(Expected("unpriced", LMUsage(1, 0, 1), None))


async def test_a_call_that_the_second_budget_refuses_holds_no_place_in_the_first(quick: None, purse: Purse) -> None:
    first, second = purse(max_calls=1), purse("second", max_calls=1)
    await second.reserve_async(expected())
    account = Account()
    for _ in range(2):
        with pytest.raises(BudgetExceeded, match="second"):
            await account.admit_async((first, second), expected)
    (await first.reserve_async(expected())).release()


async def test_each_key_has_a_shared_purse_over_one_connection(purse: Purse) -> None:
    made: dict[str, SharedBudget] = {}

    def make(key: str) -> SharedBudget:
        made[key] = SharedBudget(purse.url, f"key {key}", max_calls=1, timeout=PATIENCE)
        return made[key]

    account = Account()

    async def service(call: Call, sink: Any) -> Any:
        meters = await account.admit_async(call.meters, expected)
        account.record(used(), meters)

    layer = per_key(make)(service)
    for key in ("a", "b", "c"):
        await layer(Call({}, key=key), None)  # type: ignore[arg-type]
        with pytest.raises(BudgetExceeded, match=f"key {key}"):
            await layer(Call({}, key=key), None)  # type: ignore[arg-type]
    assert len({budget._line for budget in made.values()}) == 1


def test_an_unused_budget_goes_and_takes_its_thread_along(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "_IDLE", 0.01)
    line._lines.clear()
    budget = SharedBudget(redis_url, "team", max_calls=10, timeout=PATIENCE)
    budget.record(used())
    gone, line_of = weakref.ref(budget), weakref.ref(budget._line)
    del budget

    def all_gone() -> bool:
        gc.collect()
        return gone() is None and line_of() is None

    until(all_gone)
    line._lines.clear()
    assert SharedBudget(redis_url, "team", max_calls=10, timeout=PATIENCE).spent["calls"] == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"period": "week", "max_calls": 1},
        {},
        {"max_calls": 0},
        {"url": "http://x", "max_calls": 1},
        {"on_outage": "hope", "max_calls": 1},
        {"timeout": 0, "max_calls": 1},
    ],
)
def test_settings_that_can_not_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        SharedBudget(wrong.pop("url", "redis://127.0.0.1:1"), "team", **wrong)
