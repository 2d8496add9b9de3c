"""What goes in comes out, and what did not come from us is refused without harm."""

from __future__ import annotations

import random
import struct
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
import pytz
from hypothesis import given
from hypothesis import strategies as st

from cartoray import wire
from cartoray.errors import RowRejected, UnreadableMessage

VALUES = st.one_of(
    st.none(),
    st.text(max_size=20),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.lists(st.text(max_size=5), max_size=3),
    st.datetimes(timezones=st.just(UTC), min_value=datetime(1970, 1, 1), max_value=datetime(2200, 1, 1)),
)
ONE_TYPE = [
    st.one_of(st.none(), strategy)
    for strategy in (
        st.text(max_size=20),
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False),
        st.lists(st.text(max_size=5), max_size=3),
        st.datetimes(timezones=st.just(UTC), min_value=datetime(1970, 1, 1), max_value=datetime(2200, 1, 1)),
    )
]


def through(rows: list[dict[str, Any]], columns: list[str], bytes_max: int = 900_000) -> list[dict[str, Any]]:
    back = []
    for value in wire.split(wire.encode_rows(rows, columns), bytes_max):
        decoded = wire.decode_rows(value)
        back += [dict(zip(decoded, row, strict=True)) for row in zip(*decoded.values(), strict=True)]
    return back


@given(st.sampled_from(ONE_TYPE).flatmap(lambda values: st.lists(values, min_size=1, max_size=30)))
def test_values_come_back_as_they_went(values: list[Any]) -> None:
    rows = [{"id": str(number), "v": value} for number, value in enumerate(values)]
    back = through(rows, ["id", "v"])
    assert back == rows
    assert [type(row["v"]) for row in back] == [type(row["v"]) for row in rows]


BERLIN = pytz.timezone("Europe/Berlin")


def test_a_column_that_mixes_types_comes_back_exactly() -> None:
    rows = [{"v": value} for value in ("a", ["b", "c"], 3, None, True, {"k": [1]}, 2.5)]
    assert through(rows, ["v"]) == rows


@pytest.mark.parametrize(
    "values",
    [
        [7, 7.5, None],
        [[1, 2.5], [3], None],
        [datetime(2030, 1, 1, tzinfo=timezone(timedelta(hours=2))), None],
        [datetime(2030, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=timezone(timedelta(hours=-5)))],
        [datetime(2030, 1, 1), None],
        [BERLIN.localize(datetime(2030, 7, 1)), datetime(2030, 1, 1, tzinfo=UTC)],
        [BERLIN.localize(datetime(2029, 10, 28, 2, 30), is_dst=dst) for dst in (True, False)],
        [pytz.utc.localize(datetime(2030, 1, 1))],
        [float("nan"), float("-inf"), -0.0, None],
        [[float("nan"), 1.0], None],
    ],
)
def test_what_arrow_has_one_type_or_zone_for_comes_back_as_it_went(values: list[Any]) -> None:
    back = [row["v"] for row in through([{"v": value} for value in values], ["v"])]
    assert repr(back) == repr(values)  # since 7 == 7.0, and one instant is the same in all zones


def test_a_zone_of_zoneinfo_is_the_one_of_that_name() -> None:
    (row,) = through([{"v": datetime(2030, 7, 1, tzinfo=ZoneInfo("Europe/Berlin"))}], ["v"])
    assert repr(row["v"]) == repr(BERLIN.localize(datetime(2030, 7, 1)))


def test_a_time_zone_that_nobody_knows_is_refused() -> None:
    column = pa.field("v", pa.string(), metadata={b"cartoray.encoding": b"iso"})
    table = pa.table([["2030-01-01T00:00:00+01:00[Nowhere/Land]"]], schema=pa.schema([column]))
    (value,) = wire.split(table, 50_000)
    with pytest.raises(UnreadableMessage, match="Nowhere/Land is no time zone"):
        wire.decode_rows(value)


def test_a_field_that_a_row_lacks_is_null_and_one_that_is_not_asked_for_is_not_sent() -> None:
    assert through([{"a": 1, "secret": "x"}, {}], ["a", "b"]) == [{"a": 1, "b": None}, {"a": None, "b": None}]


def test_messages_are_split_under_the_limit_and_nothing_is_lost() -> None:
    chance = random.Random(7)
    rows = [{"id": number, "text": "".join(chance.choices("abcdefghij", k=200))} for number in range(5_000)]
    values = list(wire.split(wire.encode_rows(rows, ["id", "text"]), 50_000))
    assert len(values) > 5
    assert max(map(len, values)) <= 50_000
    assert through(rows, ["id", "text"], 50_000) == rows


def test_a_row_too_large_for_a_message_is_named() -> None:
    noise = random.Random(7).randbytes(100_000).hex()
    with pytest.raises(RowRejected, match="CARTORAY_KAFKA_MESSAGE_BYTES_MAX"):
        list(wire.split(wire.encode_rows([{"id": 1, "text": noise}], ["id", "text"]), 20_000))


def test_an_integer_beyond_64_bits_is_refused_with_its_row() -> None:
    with pytest.raises(RowRejected, match=r"Row 1: size is an integer beyond 64 bits"):
        wire.encode_rows([{"size": 1}, {"size": 2**63}], ["size"])


def stream(*arrays: pa.Array, schema: pa.Schema | None = None, **options: Any) -> bytes:
    schema = schema or pa.schema([pa.field(f"c{number}", array.type) for number, array in enumerate(arrays)])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(list(arrays), schema=schema))
    return sink.getvalue().to_pybytes()


def test_a_wrong_string_offset_is_refused_before_a_value_is_read() -> None:
    value = stream(pa.array(["a", "b"]))
    position = value.rindex(struct.pack("<iii", 0, 1, 2))
    hostile = value[: position + 8] + struct.pack("<i", 2_000_000_000) + value[position + 12 :]
    with pytest.raises(UnreadableMessage):
        wire.decode_rows(hostile)


def test_a_bomb_is_refused_by_the_length_it_declares() -> None:
    value = stream(pa.array(["x" * 70_000_000]), compression="zstd")
    assert len(value) < 100_000
    with pytest.raises(UnreadableMessage, match="at most"):
        wire.decode_rows(value)


def test_rows_that_need_no_bytes_are_bounded_too() -> None:
    with pytest.raises(UnreadableMessage, match="200000 rows"):
        wire.decode_rows(stream(pa.nulls(200_000)))


@pytest.mark.parametrize(
    "array",
    [
        pa.array(["a"]).dictionary_encode(),
        pa.array([b"a"]),
        pa.array([{"a": 1}]),
        pa.array([1], pa.int8()),
        pa.array(["a"], pa.large_string()),
        pa.array([b"0123456789abcdef"], pa.uuid()),  # extension types, also those whose values are texts
        pa.ExtensionArray.from_storage(pa.json_(pa.string()), pa.array(["{}"])),
    ],
    ids=str,
)
def test_types_that_no_message_of_ours_carries_are_refused(array: pa.Array) -> None:
    with pytest.raises(UnreadableMessage):
        wire.decode_rows(stream(array))


@pytest.mark.parametrize("value", [b"", b"\x00", b"ARROW1", b"\xff\xff\xff\xff" + b"\x7f" * 200, b"{}" * 50])
def test_other_bytes_are_refused(value: bytes) -> None:
    with pytest.raises(UnreadableMessage):
        wire.decode_rows(value)


def test_damaged_messages_never_crash_the_reader() -> None:
    rows = [{"a": str(n), "b": n, "c": [str(n)], "d": datetime.fromtimestamp(n, UTC)} for n in range(200)]
    (good,) = wire.split(wire.encode_rows(rows, ["a", "b", "c", "d"]), 900_000)
    chance = random.Random(42)
    for _ in range(3_000):
        damaged = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        if chance.random() < 0.2:
            del damaged[chance.randrange(len(damaged)) :]
        try:
            wire.decode_rows(bytes(damaged))
        except UnreadableMessage:
            continue


HEADER = wire.RowsHeader("r", 5, "r/1/x", "a", 3, "cartography.models.x:Y", {"AWS_ID": "1", "lastupdated": 5})


def test_headers_come_back_as_they_went() -> None:
    headers = dict(wire.rows_headers(HEADER))
    assert wire.kind_of(headers) == "rows"
    assert wire.rows_header(headers) == HEADER
    lazy = replace(HEADER, touch="lazy")
    assert wire.rows_header(dict(wire.rows_headers(lazy))) == lazy


@pytest.mark.parametrize("name", ["run", "tag", "job", "attempt", "sequence", "schema", "constants"])
def test_a_missing_header_is_named(name: str) -> None:
    headers = {key: value for key, value in wire.rows_headers(HEADER) if key != name}
    with pytest.raises(UnreadableMessage, match=name):
        wire.rows_header(headers)


def test_a_newer_format_is_refused_by_its_version() -> None:
    headers = dict(wire.rows_headers(HEADER)) | {"version": b"2"}
    with pytest.raises(UnreadableMessage, match="'2'; this release reads 1"):
        wire.kind_of(headers)
