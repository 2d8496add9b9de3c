"""Pools grow fast, shrink slowly, and never beyond what can have work."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cartoray.cluster.scaling import Bounds, Scaled, Scaling

BOUNDS = Bounds(members_min=0, members_max=8, lag_per_member=10, up_after_ms=2_000, down_after_ms=60_000)


class Watched:
    """A pool of which nobody is ever pending, asked once a second."""

    def __init__(self, bounds: Bounds = BOUNDS, partitions: int = 64) -> None:
        self.scaling, self.partitions, self.now_ms = Scaling(bounds), partitions, 0

    def see(self, lag: int, seconds: int = 1, pending: int = 0) -> list[Scaled]:
        found = []
        for _ in range(seconds):
            self.now_ms += 1_000
            found.append(self.scaling.decide(self.now_ms, lag, pending=pending, partitions=self.partitions))
        return [each for each in found if each is not None]


def test_from_nothing_it_goes_up_at_once() -> None:
    assert [(each.before, each.target) for each in Watched().see(25)] == [(0, 3)]


def test_a_lag_that_is_soon_gone_adds_nobody() -> None:
    pool = Watched()
    pool.see(1)
    assert pool.see(70, seconds=2) == []
    assert pool.see(5, seconds=1) == []
    assert pool.see(70, seconds=2) == []


def test_a_lag_that_lasts_doubles_the_pool_until_it_is_enough() -> None:
    pool = Watched()
    pool.see(1)
    assert [each.target for each in pool.see(65, seconds=12)] == [2, 4, 7]


def test_it_shrinks_to_the_most_that_was_needed_for_a_while() -> None:
    pool = Watched()
    pool.see(80)
    pool.see(0, seconds=30)
    pool.see(30)
    assert pool.see(0, seconds=28) == []
    assert [each.target for each in pool.see(0, seconds=61)] == [3, 0]


def test_an_idle_pool_shrinks_to_its_minimum_and_says_why() -> None:
    pool = Watched(Bounds(members_min=1, members_max=4, lag_per_member=1))
    pool.see(4, seconds=10)
    assert pool.scaling.target == 4
    (down,) = pool.see(0, seconds=70)
    assert (down.before, down.target) == (4, 1)
    assert "60 s" in down.reason


def test_it_does_not_shrink_while_members_are_pending() -> None:
    pool = Watched()
    pool.see(80)
    assert pool.see(0, seconds=200, pending=1) == []
    assert [each.target for each in pool.see(0)] == [0]


def test_there_are_never_more_members_than_partitions() -> None:
    pool = Watched(partitions=3)
    pool.see(1_000, seconds=20)
    assert pool.scaling.target == 3
    pool = Watched(Bounds(members_min=5, members_max=8, lag_per_member=10), partitions=2)
    assert [each.target for each in pool.see(0)] == [2]


def test_after_a_time_without_measurings_it_looks_for_a_while_before_it_shrinks() -> None:
    pool = Watched()
    pool.see(80)
    pool.now_ms += 600_000
    assert pool.see(0, seconds=59) == []
    assert [each.target for each in pool.see(0, seconds=3)] == [0]


@given(
    st.integers(0, 4),
    st.integers(0, 12),
    st.lists(st.tuples(st.integers(0, 500), st.integers(1, 90_000), st.integers(0, 2), st.integers(1, 20))),
)
def test_the_target_stays_within_its_bounds_whatever_happens(
    least: int, more: int, seen: list[tuple[int, int, int, int]]
) -> None:
    scaling, now_ms = Scaling(Bounds(members_min=least, members_max=least + more, lag_per_member=7)), 0
    for lag, later_ms, pending, partitions in seen:
        now_ms += later_ms
        before = scaling.target
        change = scaling.decide(now_ms, lag, pending=pending, partitions=partitions)
        assert scaling.target == (before if change is None else change.target)
        assert min(least, *(each[3] for each in seen)) <= scaling.target <= min(least + more, partitions)
        if change is not None and before:
            assert change.target <= 2 * before
        if change is not None and change.target < before:
            assert not pending or before > partitions
