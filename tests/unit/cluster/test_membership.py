"""Dead members are replaced with back-off, and not for ever."""

from __future__ import annotations

import pytest

from cartoray.cluster.membership import Membership, Policy, Signal, State, step
from cartoray.errors import IllegalTransition


def test_a_member_is_started_once() -> None:
    pool = Membership(2)
    assert pool.due(0) == [0, 1]
    pool.start(0, 0)
    assert pool.due(0) == [1]


def test_a_dead_member_comes_back_after_a_back_off_that_grows() -> None:
    pool = Membership(1, Policy(back_off_first_ms=100, back_off_last_ms=300))
    waits = []
    now = 0
    for _ in range(4):
        pool.start(0, now)
        pool.ready(0)
        pool.died(0, now, "killed")
        waits.append(pool[0].start_at_ms - now)
        assert pool.due(pool[0].start_at_ms - 1) == []
        now = pool[0].start_at_ms
        assert pool.due(now) == [0]
    assert waits == [100, 200, 300, 300]


def test_the_driver_gives_up_on_a_member_that_dies_again_and_again() -> None:
    pool = Membership(1, Policy(deaths_max=2, healthy_ms=1000))
    for _ in range(3):
        assert pool.given_up is None
        pool.start(0, 0)
        pool.died(0, 10, "wrong password")
    assert pool.given_up is not None
    assert pool.given_up.last_reason == "wrong password"


def test_a_healthy_life_starts_a_new_count() -> None:
    pool = Membership(1, Policy(deaths_max=2, healthy_ms=1000))
    for _ in range(10):
        pool.start(0, 0)
        pool.died(0, 2000, "spot instance reclaimed")
    assert pool.given_up is None


def test_a_member_that_had_work_starts_a_new_count_however_short_it_lived() -> None:
    pool = Membership(1, Policy(deaths_max=2, healthy_ms=1000))
    for _ in range(10):
        pool.start(0, 0)
        pool.ready(0)
        pool.worked(0)
        pool.died(0, 10, "out of memory")
    assert pool.given_up is None


def test_a_draining_pool_starts_nobody() -> None:
    pool = Membership(2)
    pool.start(0, 0)
    pool.ready(0)
    pool.drain()
    assert pool.states() == [State.DRAINING, State.STOPPED]
    assert pool.due(10**9) == []
    pool.stopped(0)
    assert pool.states() == [State.STOPPED, State.STOPPED]


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("signal", list(Signal))
def test_an_impossible_step_raises_and_changes_nothing(state: State, signal: Signal) -> None:
    try:
        assert step(state, signal) in State
    except IllegalTransition as error:
        assert state.value in str(error)
    assert step(State.STOPPED, Signal.DRAIN) is State.STOPPED
    with pytest.raises(IllegalTransition):
        step(State.STOPPED, Signal.START)


def test_a_pool_that_grows_takes_the_lowest_numbers() -> None:
    pool = Membership(1)
    assert pool.resize(3) == []
    assert pool.due(0) == [0, 1, 2]
    assert pool.pending == 3


def test_a_pool_that_shrinks_drains_the_highest_numbers_and_forgets_who_never_started() -> None:
    pool = Membership(4)
    for number in (0, 1, 2):
        pool.start(number, 0)
    pool.ready(1)
    assert pool.resize(1) == [1, 2]
    assert pool.states() == [State.STARTING, State.DRAINING, State.DRAINING, State.STOPPED]
    assert pool.resize(1) == []
    assert pool.states() == [State.STARTING, State.DRAINING, State.DRAINING]


def test_a_number_is_free_again_when_its_member_has_stopped() -> None:
    pool = Membership(2)
    for number in (0, 1):
        pool.start(number, 0)
        pool.ready(number)
    assert pool.resize(1) == [1]
    pool.resize(2)
    assert pool.due(0) == [2]  # 1 is still at work
    pool.stopped(1)
    pool.resize(3)
    assert pool.due(0) == [2, 1]


def test_a_member_that_dies_while_it_drains_is_not_replaced() -> None:
    pool = Membership(2)
    pool.start(1, 0)
    pool.resize(1)
    pool.died(1, 0, "killed")
    assert pool.due(10**9) == [0]
