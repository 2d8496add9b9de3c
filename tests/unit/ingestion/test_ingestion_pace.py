from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ingestion.pace import STEPS, Pace


def test_it_begins_with_as_many_as_are_wanted_and_stays_there() -> None:
    pace = Pace(1_000, slow_ms=5_000)
    for _ in range(3):
        assert pace.rows == 1_000
        pace.took(1_000, 100)


def test_too_many_are_halved_and_come_back_step_by_step() -> None:
    pace = Pace(1_000, slow_ms=5_000)
    pace.too_many(1_000)
    pace.took(500, 5_001)
    assert pace.rows == 250
    pace.took(250, 2_400)
    assert pace.rows == 350
    for _ in range(STEPS):
        pace.took(pace.rows, 100)
    assert pace.rows == 1_000


def test_neither_small_nor_middling_transactions_say_that_more_can_be_had() -> None:
    pace = Pace(1_000, slow_ms=5_000)
    pace.too_many(1_000)
    pace.took(10, 1)
    pace.took(500, 4_000)
    assert pace.rows == 500


def test_half_of_a_split_transaction_may_be_too_many_as_well() -> None:
    pace = Pace(1_000, slow_ms=5_000)
    for rows in (1_000, 500, 250, 3, 1):
        pace.too_many(rows)
        assert pace.rows == max(1, rows // 2)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 5_000), st.floats(0, 20_000))), st.integers(1, 3_000))
def test_it_never_leaves_its_bounds(happened: list[tuple[bool, int, float]], rows_max: int) -> None:
    pace = Pace(rows_max, slow_ms=5_000)
    for failed, rows, duration_ms in happened:
        if failed:
            pace.too_many(rows)
        else:
            pace.took(rows, duration_ms)
        assert 1 <= pace.rows <= rows_max
