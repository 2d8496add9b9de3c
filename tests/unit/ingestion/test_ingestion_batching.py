from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cartoray.messages import Message
from cartoray.queries import Query
from cartoray.steps import CleanupNodes, Step
from cartoray.wire import Columns, Origin, RowsHeader
from ingestion.batching import HELD_MAX, Batcher, Item, Limits, QueryItem, RowsItem, StepItem, groups, split
from ingestion.table import Rows

LABELS = {
    "instance": frozenset({"Instance", "Compute"}),
    "interface": frozenset({"Interface"}),
    "interface of an instance": frozenset({"Interface"}),
    "function": frozenset({"Function", "Compute"}),
    "subnet": frozenset({"Subnet"}),
}
LIMITS = Limits(rows=10, bytes=1_000, age_ms=100)


def rows_item(offset: int, *, partition: int = 0, schema: str = "instance", rows: int = 1, size: int = 10) -> RowsItem:
    message = Message("graph_data", partition, offset, b"1", b"", {})
    header = RowsHeader("run", 1, "run/1/job", "attempt", offset, schema, {})
    batch = pa.RecordBatch.from_pydict({"id": [f"id-{number}" + "x" * (size // rows) for number in range(rows)]})
    return RowsItem(message, header, Rows(Columns(batch, {}), ("id",)), {})


def step_item(offset: int, *, partition: int = 0) -> StepItem:
    step = Step(run_id="r", update_tag=1, step_id="s", account_id="1", actions=(CleanupNodes(schema_path="x"),))
    return StepItem(Message("graph_data", partition, offset, b"1", b"{}", {}), step)


def query_item(offset: int, *, partition: int = 0) -> QueryItem:
    message = Message("graph_data", partition, offset, b"1", b"{}", {})
    return QueryItem(message, Origin("run", 1, "run/1/job", "attempt", offset), Query("RETURN 1", {}))


def offsets(items: object) -> list[int]:
    return [item.message.offset for item in items]  # type: ignore[attr-defined]


items_of_schemas = st.lists(st.sampled_from(sorted(LABELS)), max_size=30).map(
    lambda names: [rows_item(offset, schema=name) for offset, name in enumerate(names)]
)


@given(items_of_schemas)
def test_groups_neither_lose_nor_double_a_message(items: list[RowsItem]) -> None:
    assert sorted(offset for group in groups(items, LABELS.__getitem__) for offset in offsets(group.items)) == offsets(
        items
    )


@given(items_of_schemas)
def test_messages_that_write_a_common_label_keep_their_order(items: list[RowsItem]) -> None:
    written = [item for group in groups(items, LABELS.__getitem__) for item in group.items]
    for place, earlier in enumerate(written):
        for later in written[place + 1 :]:
            if LABELS[earlier.header.schema] & LABELS[later.header.schema]:
                assert earlier.message.offset < later.message.offset


def test_messages_join_the_group_of_their_schema_over_what_does_not_touch_it() -> None:
    names = ["instance", "subnet", "instance", "interface", "interface of an instance", "subnet", "interface"]
    items = [rows_item(offset, schema=name) for offset, name in enumerate(names)]
    found = [(group.schema, offsets(group.items)) for group in groups(items, LABELS.__getitem__)]
    assert found == [
        ("instance", [0, 2]),
        ("subnet", [1, 5]),
        ("interface", [3]),
        ("interface of an instance", [4]),
        ("interface", [6]),
    ]


@st.composite
def arrivals(draw: st.DrawFn) -> list[Item]:
    kinds = st.tuples(st.integers(0, 2), st.integers(0, 12), st.integers(1, 600))
    found: list[Item] = []
    for offset, (partition, rows, size) in enumerate(draw(st.lists(kinds, max_size=40))):
        if rows == 0:
            found.append(step_item(offset, partition=partition))
        else:
            found.append(rows_item(offset, partition=partition, rows=rows, size=size))
    return found


@given(arrivals(), st.lists(st.booleans()))
def test_every_message_is_taken_once_in_the_order_of_its_partition(items: list[Item], abandoned: list[bool]) -> None:
    batcher = Batcher(LIMITS)
    taken: list[Item] = []
    for now_ms, item in enumerate(items):
        batcher.add(item, now_ms)
        if now_ms % 3 == 0 and (batch := batcher.take(now_ms)):
            if abandoned and abandoned.pop():
                batcher.put_back(batch, now_ms)
            else:
                taken += batch.items
    while batch := batcher.take(0, rest=True):
        taken += batch.items
    assert sorted(offsets(taken)) == offsets(items)
    for partition in range(3):
        own = [item for item in taken if item.message.partition == partition]
        assert offsets(own) == sorted(offsets(own))
    assert (len(batcher), batcher.rows, batcher.bytes) == (0, 0, 0)


@given(arrivals())
def test_a_batch_holds_its_limits_and_a_step_is_alone(items: list[Item]) -> None:
    batcher = Batcher(LIMITS)
    for item in items:
        batcher.add(item, 0)
    while batch := batcher.take(0, rest=True):
        if len(batch.items) == 1:
            continue  # one message may be larger than a batch: it is split when the database asks for it
        assert batch.step is None
        assert all(isinstance(item, RowsItem) for item in batch.items)
        assert sum(len(item.rows) for item in batch.rows) <= LIMITS.rows
        assert sum(item.rows.nbytes for item in batch.rows) <= LIMITS.bytes


def test_a_batch_waits_for_others_no_longer_than_its_age() -> None:
    batcher = Batcher(LIMITS)
    assert batcher.due_in_ms(0) is None
    batcher.add(rows_item(0), 50)
    assert batcher.due_in_ms(60) == 90
    assert batcher.take(60) is None
    assert batcher.due_in_ms(150) == 0
    batch = batcher.take(150)
    assert batch is not None
    assert batch.reason == "age"


def test_a_full_batch_does_not_wait() -> None:
    batcher = Batcher(LIMITS)
    for offset in range(3):
        batcher.add(rows_item(offset, rows=4), 0)
    batch = batcher.take(0)
    assert batch is not None
    assert (offsets(batch.items), batch.reason) == ([0, 1], "rows or bytes")


def test_queries_that_follow_each_other_are_one_batch_up_to_what_is_none() -> None:
    batcher = Batcher(LIMITS)
    for item in (query_item(0), query_item(1), rows_item(2), query_item(3), query_item(0, partition=1)):
        batcher.add(item, 0)
    batch = batcher.take(0)
    assert batch is not None
    assert [(item.message.partition, item.message.offset) for item in batch.queries] == [(0, 0), (0, 1), (1, 0)]
    batch = batcher.take(0, rest=True)
    assert batch is not None
    assert (offsets(batch.items), batch.queries) == ([2], ())


def test_a_step_holds_up_its_own_partition_alone() -> None:
    batcher = Batcher(LIMITS)
    for item in (rows_item(0), step_item(1), rows_item(2), rows_item(3, partition=1)):
        batcher.add(item, 0)
    order = []
    while batch := batcher.take(0, rest=True):
        order.append(offsets(batch.items))
    assert order == [[0, 3], [1], [2]]


def test_partitions_that_are_gone_are_forgotten() -> None:
    batcher = Batcher(LIMITS)
    batcher.add(rows_item(0), 0)
    batcher.add(rows_item(1, partition=1, rows=3), 0)
    batcher.forget([0])
    assert (len(batcher), batcher.rows) == (1, 3)


def test_polling_stops_when_enough_is_held_and_goes_on_below_half_of_it() -> None:
    batcher = Batcher(LIMITS)
    for offset in range(HELD_MAX * 10):
        assert not batcher.full
        batcher.add(rows_item(offset), 0)
    assert batcher.full
    for _ in range(HELD_MAX // 2):
        assert not batcher.has_room
        batcher.take(0)
        assert not batcher.full
    batcher.take(0)
    assert batcher.has_room


@pytest.mark.parametrize("counts", [[1, 1, 1], [4], [1]])
def test_halves_hold_every_row_once_and_in_order(counts: list[int]) -> None:
    items = [rows_item(offset, rows=count) for offset, count in enumerate(counts)]
    halves = split(items)
    if counts == [1]:
        assert halves is None
        return
    assert halves is not None
    rows = [row for half in halves for item in half for row in item.rows]
    assert rows == [row for item in items for row in item.rows]
    assert all(half for half in halves)
