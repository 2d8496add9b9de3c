"""Each message is written once, in the order of its partition, whatever is abandoned, revoked and delivered again."""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from test_ingestion_batching import query_item, rows_item, step_item

from ingestion.batching import QUERIES_MAX, Barrier, Batch, Batcher, Item, Limits, StepItem

LIMITS = Limits(rows=10, bytes=1_000, age_ms=100)
PARTITIONS = st.integers(0, 2)


class Member(RuleBasedStateMachine):
    """A member's batcher as the sink uses it: one batch is out at a time.

    The model is the topic: what was published in each partition, how much of it was delivered, and is in the graph.
    """

    def __init__(self) -> None:
        super().__init__()
        self.batcher, self.limits = Batcher(LIMITS), LIMITS
        self.topic: dict[int, list[Item]] = {partition: [] for partition in range(3)}
        self.delivered = dict.fromkeys(range(3), 0)
        self.written = dict.fromkeys(range(3), 0)  # a prefix, if the order is kept
        self.out: Batch | None = None
        self.now_ms = 0
        self.held_since_ms: dict[tuple[int, int], int] = {}

    # ---- what comes in

    @rule(partition=PARTITIONS, rows=st.integers(1, 12), size=st.integers(1, 600))
    def rows_are_published(self, partition: int, rows: int, size: int) -> None:
        self.topic[partition].append(rows_item(len(self.topic[partition]), partition=partition, rows=rows, size=size))

    @rule(partition=PARTITIONS, step=st.booleans())
    def a_barrier_is_published(self, partition: int, *, step: bool) -> None:
        make = step_item if step else query_item
        self.topic[partition].append(make(len(self.topic[partition]), partition=partition))

    @rule(partition=PARTITIONS)
    def one_is_delivered(self, partition: int) -> None:
        at = self.delivered[partition]
        if at < len(self.topic[partition]):
            self.batcher.add(self.topic[partition][at], self.now_ms)
            self.held_since_ms[partition, at] = self.now_ms
            self.delivered[partition] += 1

    @rule(by_ms=st.integers(1, 120))
    def time_goes_by(self, by_ms: int) -> None:
        self.now_ms += by_ms

    @rule(rows=st.integers(1, 12))
    def the_pace_changes(self, rows: int) -> None:
        self.batcher.resize(rows)
        self.limits = Limits(rows, LIMITS.bytes, LIMITS.age_ms)

    # ---- what goes out

    @precondition(lambda self: self.out is None)
    @rule(rest=st.booleans())
    def a_batch_is_taken(self, *, rest: bool) -> None:
        due_ms, held = self.batcher.due_in_ms(self.now_ms), self._held()
        self.out = self.batcher.take(self.now_ms, rest=rest)
        assert (due_ms is None) == (not held)
        assert (self.out is not None) == (due_ms == 0 or (rest and bool(held)))
        if due_ms is not None and due_ms > 0:
            heads = [min(at for each, at in held if each == partition) for partition in {each for each, _ in held}]
            assert heads
            oldest = min(self.held_since_ms[each] for each in held)
            assert self.now_ms < oldest + LIMITS.age_ms
        if self.out is not None:
            self._is_sound(self.out)

    def _is_sound(self, batch: Batch) -> None:
        assert len({type(item) for item in batch.items}) == 1
        if isinstance(batch.items[0], StepItem):
            assert len(batch.items) == 1
        assert len(batch.queries) <= QUERIES_MAX
        if len(batch.rows) > 1:
            assert sum(len(item.rows) for item in batch.rows) <= self.limits.rows
            assert sum(item.rows.nbytes for item in batch.rows) <= self.limits.bytes
        for partition, at in self.written.items():
            own = [item.message.offset for item in batch.items if item.message.partition == partition]
            assert own == list(range(at, at + len(own)))  # nothing before them is left, no barrier is overtaken

    @precondition(lambda self: self.out is not None)
    @rule()
    def it_is_written(self) -> None:
        assert self.out is not None
        for item in self.out.items:
            self.written[item.message.partition] += 1
        self.out = None

    @precondition(lambda self: self.out is not None)
    @rule()
    def it_is_abandoned(self) -> None:
        assert self.out is not None
        self.batcher.put_back(self.out, self.now_ms)
        for item in self.out.items:
            self.held_since_ms[item.message.place] = self.now_ms
        self.out = None

    @rule(partition=PARTITIONS)
    def a_partition_goes_and_comes_back(self, partition: int) -> None:
        """What is out is abandoned, and the others' part of it put back: as `Sink._on_revoked` and `_advance` do."""
        self.batcher.forget([partition])
        if self.out is not None:
            kept = tuple(item for item in self.out.items if item.message.partition != partition)
            self.batcher.put_back(Batch(kept, self.out.reason), self.now_ms)
            for item in kept:
                self.held_since_ms[item.message.place] = self.now_ms
            self.out = None
        self.delivered[partition] = self.written[partition]

    # ---- what always holds

    def _held(self) -> set[tuple[int, int]]:
        out = {item.message.place for item in self.out.items} if self.out is not None else set()
        return {
            (partition, at)
            for partition, end in self.delivered.items()
            for at in range(self.written[partition], end)
            if (partition, at) not in out
        }

    @invariant()
    def it_holds_what_was_delivered_and_is_not_out(self) -> None:
        held = [self.topic[partition][at] for partition, at in self._held()]
        assert len(self.batcher) == len(held)
        assert self.batcher.rows == sum(1 if isinstance(each, Barrier) else len(each.rows) for each in held)
        sizes = (len(each.message.value) if isinstance(each, Barrier) else each.rows.nbytes for each in held)
        assert self.batcher.bytes == sum(sizes)
        assert not (self.batcher.full and self.batcher.has_room)

    def teardown(self) -> None:
        for partition in range(3):
            while self.delivered[partition] < len(self.topic[partition]):
                self.one_is_delivered(partition)
        while self.out is not None or self._held():
            if self.out is None:
                self.a_batch_is_taken(rest=True)
            self.it_is_written()
        assert Counter(self.written) == Counter({partition: len(items) for partition, items in self.topic.items()})


TestMember = Member.TestCase
TestMember.settings = settings(max_examples=80, stateful_step_count=50, deadline=None, derandomize=True)
