"""What the supervisor of workers does next, without a process and without waiting."""

from __future__ import annotations

import pytest

from dspy_live.cli.workers.plan import STABLE_SECONDS, START_SECONDS, Action, Do, Plan, State

LEAVE = 50.0


def serving(size: int, now: float = 0.0) -> Plan:
    """A plan whose workers serve, the numbers from 1 on."""
    plan = Plan(size, LEAVE)
    for action in plan.next_actions(now):
        plan.served(action.worker, now)
    return plan


def done(plan: Plan, now: float) -> list[tuple[Do, int]]:
    return [(action.do, action.worker) for action in plan.next_actions(now)]


def test_all_workers_are_started_at_once_and_then_there_is_nothing_to_do() -> None:
    plan = Plan(3, LEAVE)
    assert plan.next_actions(0.0) == [Action(Do.START, number) for number in (1, 2, 3)]
    assert plan.next_actions(0.0) == []
    assert plan.next_time() == START_SECONDS
    for number in (1, 2, 3):
        plan.served(number, 1.0)
    assert plan.serving == 3
    assert plan.next_time() is None


def test_a_worker_that_does_not_start_in_time_is_killed_once() -> None:
    plan = serving(2)
    plan.ended(1, 5.0)
    assert done(plan, 5.0) == [(Do.START, 3)]
    assert done(plan, 5.0 + START_SECONDS - 0.1) == []
    assert done(plan, 5.0 + START_SECONDS) == [(Do.KILL, 3)]
    assert done(plan, 5.0 + START_SECONDS) == []
    assert plan.next_time() is None


def test_a_dead_worker_is_replaced_at_once_and_one_that_dies_again_after_longer_and_longer_waits() -> None:
    plan = serving(1)
    now, waits, number = 100.0, [], 1
    for _ in range(9):
        plan.ended(number, now)
        again = plan.next_time()
        assert again is not None
        assert again == now or done(plan, again - 0.01) == []
        waits.append(again - now)
        [action] = plan.next_actions(again)
        number, now = action.worker, again + 1.0
        plan.served(number, again)
    assert waits == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_a_worker_that_was_stable_is_replaced_at_once_whatever_was_before() -> None:
    plan = serving(1)
    plan.ended(1, 1.0)
    [action] = plan.next_actions(1.0)
    plan.served(action.worker, 2.0)
    plan.ended(action.worker, 2.0 + STABLE_SECONDS)
    assert done(plan, 2.0 + STABLE_SECONDS) == [(Do.START, 3)]


def test_a_server_whose_workers_have_all_failed_at_their_start_is_hopeless() -> None:
    plan = Plan(2, LEAVE)
    plan.next_actions(0.0)
    plan.ended(1, 1.0)
    assert not plan.hopeless
    assert done(plan, 10.0) == []  # before any has served, each has one try
    assert plan.next_time() == START_SECONDS  # which is the other's
    plan.ended(2, 10.0)
    assert plan.hopeless


def test_one_worker_that_fails_at_its_start_does_not_end_the_others() -> None:
    plan = Plan(2, LEAVE)
    plan.next_actions(0.0)
    plan.ended(1, 1.0)
    plan.served(2, 2.0)
    assert not plan.hopeless
    assert done(plan, 2.0) == [(Do.START, 3)]


def test_workers_are_renewed_one_after_the_other_each_when_its_successor_serves() -> None:
    plan = serving(2)
    plan.renew()
    assert plan.next_actions(1.0) == [Action(Do.START, 3, replaces=1)]
    assert plan.next_actions(2.0) == []
    plan.served(3, 3.0)
    assert plan.next_actions(3.0) == [Action(Do.RETIRE, 1), Action(Do.START, 4, replaces=2)]
    plan.ended(1, 4.0)  # its runs have ended
    plan.served(4, 5.0)
    assert plan.next_actions(5.0) == [Action(Do.RETIRE, 2)]
    assert not plan.rolling
    assert plan.next_time() == 5.0 + LEAVE
    plan.ended(2, 6.0)
    assert plan.next_actions(7.0) == []
    assert {number: worker.state for number, worker in plan.workers.items()} == {3: State.SERVING, 4: State.SERVING}


def test_a_successor_that_fails_ends_the_renewal_and_the_old_workers_go_on() -> None:
    plan = serving(2)
    plan.renew()
    plan.next_actions(1.0)
    assert plan.ended(3, 2.0).replaces == 1
    assert not plan.rolling
    assert plan.next_actions(3.0) == []
    assert plan.serving == 2


def test_a_worker_that_dies_while_its_successor_starts_is_not_replaced_twice() -> None:
    plan = serving(2)
    plan.renew()
    plan.next_actions(1.0)
    plan.ended(1, 2.0)
    assert plan.next_actions(2.0) == []
    plan.served(3, 3.0)
    assert plan.next_actions(3.0) == [Action(Do.START, 4, replaces=2)]


def test_a_renewal_passes_over_a_place_that_is_empty_and_waits_for_one_that_is_starting() -> None:
    plan = serving(2)
    plan.ended(1, 1.0)
    assert done(plan, 1.0) == [(Do.START, 3)]
    plan.renew()
    assert plan.next_actions(2.0) == []
    plan.ended(3, 3.0)
    assert plan.next_actions(3.0) == [Action(Do.START, 4, replaces=2)]


def test_another_renewal_in_the_midst_of_one_begins_anew() -> None:
    plan = serving(2)
    plan.renew()
    plan.next_actions(1.0)
    plan.served(3, 2.0)
    plan.next_actions(2.0)
    plan.renew()
    plan.served(4, 3.0)
    assert plan.next_actions(3.0) == [Action(Do.RETIRE, 2), Action(Do.START, 5, replaces=3)]
    plan.served(5, 4.0)
    assert plan.next_actions(4.0) == [Action(Do.RETIRE, 3), Action(Do.START, 6, replaces=4)]


def test_a_stop_tells_those_that_serve_kills_those_that_start_and_hurries_the_second_time() -> None:
    plan = serving(2)
    plan.ended(1, 1.0)
    plan.next_actions(1.0)
    assert plan.stop(2.0) == [2]
    assert done(plan, 2.0) == [(Do.KILL, 3)]
    plan.ended(3, 2.5)
    assert plan.stop(3.0) == [2]
    assert done(plan, 3.0) == []
    assert not plan.over
    plan.ended(2, 4.0)
    assert plan.over
    assert plan.next_actions(5.0) == []


def test_a_worker_that_does_not_leave_in_time_is_killed() -> None:
    plan = serving(1)
    plan.stop(10.0)
    assert plan.next_time() == 10.0 + LEAVE
    assert done(plan, 10.0 + LEAVE) == [(Do.KILL, 1)]


@pytest.mark.parametrize("stopped", [True, False])
def test_a_worker_that_leaves_is_not_counted_as_a_failure(stopped: bool) -> None:
    plan = serving(1)
    plan.renew()
    plan.next_actions(1.0)
    plan.served(2, 2.0)
    plan.next_actions(2.0)
    if stopped:
        plan.stop(3.0)
    plan.ended(1, 4.0)
    assert plan.next_actions(5.0) == []
