"""The plan of the fault suite: what a seed gives."""

from __future__ import annotations

from collections import Counter

from faults.plan import MIXED_S_MAX, Kind, plan, together
from hypothesis import given
from hypothesis import strategies as st

KINDS = (
    Kind("killed", "member"),
    Kind("frozen", "member", (12.0, 20.0)),
    Kind("stopped", "kafka", (2.0, 60.0)),
    Kind("cut", "kafka", (0.0, 10.0)),
    Kind("away", "neo4j", (2.0, 60.0)),
    Kind("lost", "node", (0.0, 10.0), "cluster"),
    Kind("late", "messages", latest=0.0),
    Kind("throttled", "aws", (3.0, 15.0)),
)
OF = {kind.name: kind for kind in KINDS}
seeds = st.integers(0, 2**32)


@given(seeds)
def test_the_same_seed_gives_the_same_plan(seed: int) -> None:
    assert plan(seed, KINDS, 40) == plan(seed, KINDS, 40)


def test_another_seed_gives_another_plan() -> None:
    assert plan(1, KINDS, 60) != plan(2, KINDS, 60)


@given(seeds, st.integers(0, 50))
def test_there_are_as_many_faults_as_asked_for_and_each_is_once_alone_at_its_longest(seed: int, least: int) -> None:
    cases = plan(seed, KINDS, least)
    assert sum(len(case.faults) for case in cases) >= least
    assert [case.number for case in cases] == list(range(1, len(cases) + 1))
    alone = [case.faults[0] for case in cases if case.alone]
    assert sorted(each.fault for each in alone) == sorted(OF)
    assert all(each.seconds == OF[each.fault].seconds[1] for each in alone)


@given(seeds)
def test_faults_come_equally_often(seed: int) -> None:
    counts = Counter(each.fault for case in plan(seed, KINDS, 60) for each in case.faults)
    assert max(counts.values()) - min(counts.values()) <= 2


@given(seeds)
def test_in_one_sync_a_place_is_struck_once_but_for_members(seed: int) -> None:
    for case in plan(seed, KINDS, 40):
        places = [OF[each.fault].place for each in case.faults if OF[each.fault].place != "member"]
        assert len(places) == len(set(places))
        assert all(OF[each.fault].ray in (None, case.ray) for each in case.faults)


@given(seeds)
def test_mixed_faults_are_short_in_order_and_at_their_moment(seed: int) -> None:
    for case in plan(seed, KINDS, 40):
        moments = [each.moment for each in case.faults]
        assert moments == sorted(moments)
        for each in case.faults:
            assert 0 <= each.moment <= OF[each.fault].latest
            assert OF[each.fault].seconds[0] <= each.seconds
            assert case.alone or each.seconds <= max(MIXED_S_MAX, OF[each.fault].seconds[0])


def test_cases_given_by_name_have_the_ray_that_their_faults_need() -> None:
    first, second = together(7, OF, ("killed", "cut"), ("lost", "late"))
    assert {each.fault for each in first.faults} == {"killed", "cut"}
    assert first.ray == "local"
    assert second.ray == "cluster"
    assert second.faults[0].moment == 0.0
