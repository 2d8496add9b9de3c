from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cartoray import wire
from ingestion.fingerprint import fingerprints, key_of
from ingestion.table import Rows

FIELDS = ("a", "b", "c")
KEY = key_of(b"salt", "SET i.a = item[0]", {"AWS_ID": "1"})
values = st.one_of(
    st.none(),
    st.text(max_size=6),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.lists(st.text(max_size=3), max_size=3),
    st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=2))]), min_value=datetime(1970, 1, 1)),
)


def of(rows: list[dict[str, Any]], columns: tuple[str, ...] = FIELDS, key: bytes = KEY) -> list[int]:
    (value,) = wire.split(wire.encode_rows(rows, columns), 900_000)
    return fingerprints(wire.decode_rows(value).batch, FIELDS, key)


@given(st.lists(st.sampled_from(["", "a", "b", "ab", None]), min_size=6, max_size=6))
def test_rows_have_the_same_one_exactly_if_they_are_the_same(drawn: list[str | None]) -> None:
    first, second = (dict(zip(FIELDS, part, strict=True)) for part in (drawn[:3], drawn[3:]))
    one, other = of([first, second])
    assert (one == other) == (first == second)


@given(st.lists(values, min_size=2, max_size=2))
def test_a_value_of_another_type_is_another_value(drawn: list[Any]) -> None:
    (one,), (other,) = of([{"a": drawn[0]}]), of([{"a": drawn[1]}])
    assert (one == other) == (repr(drawn[0]) == repr(drawn[1]))


@given(st.lists(st.fixed_dictionaries({"a": st.text(max_size=4), "b": st.integers(0, 3)}), min_size=1, max_size=8))
def test_neither_other_rows_nor_the_order_of_columns_count(rows: list[dict[str, Any]]) -> None:
    together = of(rows, ("b", "a", "c"))
    assert together == [found for row in rows for found in of([row])]
    assert together == of([row | {"c": None} for row in rows])


def test_the_key_the_statement_and_the_constants_count() -> None:
    row = [{"a": "x"}]
    keys = [
        key_of(*of_key)
        for of_key in (
            (b"salt", "q", {"AWS_ID": "1"}),
            (b"other", "q", {"AWS_ID": "1"}),
            (b"salt", "p", {"AWS_ID": "1"}),
            (b"salt", "q", {"AWS_ID": 1}),
            (b"salt", "q", {"AWS_ID": "1", "Region": None}),
        )
    ]
    assert len({of(row, key=key)[0] for key in keys}) == len(keys)


def test_it_is_the_same_on_every_machine_and_release() -> None:
    """As they were when this was written: with others, all rows of all users would be compared once more."""
    row = {"a": "i-1", "b": datetime(2026, 1, 2, tzinfo=UTC), "c": ["x", None]}
    assert of([row, {"a": "1", "b": None}]) == [-6993258983918674117, 411052140025107653]
    assert of([{"a": 1, "b": True, "c": 1.5}]) == [-6249664516285531926]


def test_a_slice_has_the_ones_of_its_rows() -> None:
    rows = [{"a": str(number), "b": number % 2, "c": [number]} for number in range(10)]
    (value,) = wire.split(wire.encode_rows(rows, FIELDS), 900_000)
    whole = Rows(wire.decode_rows(value), FIELDS)
    assert whole[3:7].fingerprints(KEY) == of(rows)[3:7]
    assert whole[5:5].fingerprints(KEY) == []


@pytest.mark.parametrize("count", [1, 3, 40])
def test_rows_are_picked_as_they_are(count: int) -> None:
    rows = [{"a": str(number), "b": ["x", number][number % 2], "c": number} for number in range(60)]
    (value,) = wire.split(wire.encode_rows(rows, FIELDS), 900_000)
    part = Rows(wire.decode_rows(value), (*FIELDS, "absent"))[10:60]
    wanted = [(*row.values(), None) for row in rows[10:60]]
    assert list(part) == wanted
    places = random.Random(7).sample(range(50), count)
    assert part.pick(places) == [wanted[place] for place in places]
    assert part[-1] == wanted[-1]
