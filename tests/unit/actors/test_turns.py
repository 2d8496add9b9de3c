"""Jobs start in their order, urgent ones first, and a large account leaves room for the others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.turns import Slots, Turns, slots


def turns(all_: int = 4, account: int = 2, urgent: int = 1) -> Turns[str]:
    return Turns(Slots(all_, account, urgent))


def add(made: Turns[str], *keys: str, urgent: bool = False) -> None:
    """`run/account/number` each."""
    for key in keys:
        run, account, _ = key.split("/")
        made.add(key, run=run, account=account, urgent=urgent)


def taken(made: Turns[str]) -> list[str]:
    found = []
    while (key := made.take()) is not None:
        found.append(key)
    return found


def test_accounts_take_turns_and_none_has_all_slots() -> None:
    made = turns()
    add(made, *(f"r/large/{number}" for number in range(9)))
    assert taken(made) == ["r/large/0", "r/large/1"]
    add(made, "r/small/0", "r/other/0", "r/third/0")
    assert taken(made) == ["r/small/0", "r/other/0"]
    made.ended("r/small/0")
    assert taken(made) == ["r/third/0"]


def test_urgent_jobs_go_first_and_have_slots_that_others_have_not() -> None:
    made = turns()
    add(made, "r/a/0", "r/a/1", "r/b/0", "r/b/1", "r/c/0")
    assert len(taken(made)) == 4
    add(made, "u/d/0", "u/d/1", urgent=True)
    assert taken(made) == ["u/d/0"]
    made.ended("r/a/0")
    made.ended("r/a/1")
    assert taken(made) == ["u/d/1"]
    made.ended("u/d/0")
    made.ended("u/d/1")
    assert taken(made) == ["r/b/1"]


def test_what_is_not_wanted_any_more_is_left_out() -> None:
    made = turns()
    add(made, "r/a/0", "r/a/1", "r/b/0")
    made.ended("r/a/0")
    made.ended("r/b/0")
    assert taken(made) == ["r/a/1"]


def test_a_job_that_must_be_alone_goes_first_waits_until_nothing_runs_and_nothing_starts_beside_it() -> None:
    made = turns()
    add(made, "r/a/0", "r/b/0", "r/c/0", "r/c/1")
    assert (made.take(), made.take()) == ("r/a/0", "r/b/0")
    made.add("r/c/2", run="r", account="c", urgent=False, alone=True)
    made.add("r/d/0", run="r", account="d", urgent=False, alone=True)
    add(made, "u/e/0", urgent=True)
    assert taken(made) == ["r/c/0", "r/c/1"]  # it may wait for these while it runs
    for key in ("r/a/0", "r/b/0", "r/c/0"):
        made.ended(key)
        assert taken(made) == []
    made.ended("r/c/1")
    assert taken(made) == ["r/d/0"]
    made.ended("r/d/0")
    assert taken(made) == ["r/c/2"]
    made.ended("r/c/2")
    assert taken(made) == ["u/e/0"]


def test_a_job_that_was_to_be_alone_and_is_not_wanted_any_more_holds_up_nothing() -> None:
    made = turns()
    made.add("r/a/0", run="r", account="a", urgent=False, alone=True)
    add(made, "r/b/0")
    made.ended("r/a/0")
    assert taken(made) == ["r/b/0"]


@pytest.mark.parametrize("jobs", [1, 2, 3, 16])
def test_there_is_a_slot_for_every_kind(jobs: int) -> None:
    found = slots(jobs)
    assert found.all == jobs
    assert 1 <= found.account <= jobs
    assert found.urgent >= 1


@given(st.data())
def test_whatever_happens_each_line_starts_in_order_and_nothing_is_lost(data: st.DataObject) -> None:
    limits = Slots(*(data.draw(st.integers(1, 6)) for _ in range(3)))
    made: Turns[str] = Turns(limits)
    added: dict[str, list[str]] = {}
    started: dict[str, list[str]] = {}
    running: list[str] = []
    for number in range(data.draw(st.integers(0, 60))):
        run, account = data.draw(st.sampled_from("xu")), data.draw(st.sampled_from("abc"))
        if data.draw(st.booleans()) or not running:
            add(made, f"{run}/{account}/{number}", urgent=run == "u")
            added.setdefault(run + account, []).append(f"{run}/{account}/{number}")
        else:
            made.ended(running.pop(data.draw(st.integers(0, len(running) - 1))))
        for key in taken(made):
            running.append(key)
            started.setdefault(key[0] + key[2], []).append(key)
        assert len(running) <= limits.all + limits.urgent
        for account in "abc":
            of = [key for key in running if key.startswith(f"x/{account}/")]
            assert len(of) <= max(limits.account, 0)
    while running:
        made.ended(running.pop())
        for key in taken(made):
            running.append(key)
            started.setdefault(key[0] + key[2], []).append(key)
    assert started == added
