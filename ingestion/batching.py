"""Messages of `graph_data` → what is written next. No clock, no thread, no client: time is an argument.

One batch is one transaction over messages of many accounts, runs and schemas. What may change places, and what not:

- Inside a partition, a *step* or a *query* is a barrier: it runs when everything before it in its partition is in the
  graph, and before anything after it. That is what makes "cleanup comes after its data" true without a lock. A step
  runs alone; queries that follow each other run in one transaction, in their order.
- Rows of one schema are written together, but a message joins an earlier group of its schema only if no group in
  between writes one of its labels: two schemas write properties of the same node, and the later one must win.
- Inside a group rows are sorted by id, so that sibling writers take locks in the same order. The sort is stable: of
  two rows with the same id the later one still wins.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cartoray.messages import Message
from cartoray.queries import Query
from cartoray.steps import Step
from cartoray.wire import Origin, RowsHeader
from ingestion.table import Rows


@dataclass(frozen=True)
class RowsItem:
    """A message of rows, decoded, or a part of one that was too large for one transaction.

    `rows` hold the values in the order of `schemas.fields`.
    """

    message: Message
    header: RowsHeader
    rows: Rows
    constants: Mapping[str, Any]  # what all rows share, of which the schema reads something

    @property
    def run_id(self) -> str:
        return self.header.run_id

    def halves(self) -> tuple[RowsItem, RowsItem]:
        half = len(self.rows) // 2
        return replace(self, rows=self.rows[:half]), replace(self, rows=self.rows[half:])


@dataclass(frozen=True)
class StepItem:
    """A message that holds a step."""

    message: Message
    step: Step

    @property
    def run_id(self) -> str:
        return self.step.run_id


@dataclass(frozen=True)
class QueryItem:
    """A message that holds a query."""

    message: Message
    origin: Origin
    query: Query

    @property
    def run_id(self) -> str:
        return self.origin.run_id


Barrier = StepItem | QueryItem
"""It may read what stands before it, and what stands behind it may rely on it."""

Item = RowsItem | Barrier

HELD_MAX = 8  # batches: the client fetches again after each pause, and by then the writer must not be idle
QUERIES_MAX = 50  # in one batch: by then the commit and the answers cost little a query


@dataclass(frozen=True)
class Batch:
    """Items of one kind, to be written in order of arrival: rows or queries, or one step."""

    items: tuple[Item, ...]
    reason: str

    @property
    def step(self) -> StepItem | None:
        first = self.items[0]
        return first if isinstance(first, StepItem) else None

    @property
    def queries(self) -> tuple[QueryItem, ...]:
        return tuple(item for item in self.items if isinstance(item, QueryItem))

    @property
    def rows(self) -> tuple[RowsItem, ...]:
        return tuple(item for item in self.items if isinstance(item, RowsItem))


@dataclass(frozen=True)
class Group:
    """Items of one schema, in order of arrival, that one statement writes."""

    schema: str
    items: tuple[RowsItem, ...]


def groups(items: Iterable[RowsItem], labels: Callable[[str], frozenset[str]]) -> tuple[Group, ...]:
    """Items grouped by schema. `labels(schema)` are all labels that a schema writes.

    Items whose schemas share a label keep their order; the others may change places.
    """
    order: list[tuple[str, list[RowsItem]]] = []
    for item in items:
        schema = item.header.schema
        own = labels(schema)
        for name, members in reversed(order):
            if name == schema:
                members.append(item)
                break
            if labels(name) & own:
                order.append((schema, [item]))
                break
        else:
            order.append((schema, [item]))
    return tuple(Group(name, tuple(members)) for name, members in order)


@dataclass(frozen=True)
class Limits:
    """Of one batch; any of them makes it due. `bytes`: of rows as Arrow, not compressed."""

    rows: int
    bytes: int
    age_ms: int


class Batcher:
    """Holds what was polled and not taken yet. One batch is out at a time: the caller writes it, then takes again."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._queues: dict[int, deque[tuple[int, int, Item]]] = {}  # partition → (number of arrival, ms, item)
        self._arrivals = self._first = 0
        self.rows = 0
        self.bytes = 0

    def resize(self, rows: int) -> None:
        """From now on, batches have at most so many rows."""
        self._limits = replace(self._limits, rows=rows)

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    @property
    def full(self) -> bool:
        """As many rows or bytes are held as should ever be."""
        return self.rows >= HELD_MAX * self._limits.rows or self.bytes >= HELD_MAX * self._limits.bytes

    @property
    def has_room(self) -> bool:
        """Less than half of that is held: polling does not stop and go at every message."""
        return self.rows * 2 < HELD_MAX * self._limits.rows and self.bytes * 2 < HELD_MAX * self._limits.bytes

    def add(self, item: Item, now_ms: int) -> None:
        queue = self._queues.setdefault(item.message.partition, deque())
        queue.append((self._arrivals, now_ms, item))
        self._arrivals += 1
        self._count(item, 1)

    def due_in_ms(self, now_ms: int) -> int | None:
        """When `take` answers something next; None: not before something is added."""
        heads = [queue[0] for queue in self._queues.values() if queue]
        if not heads:
            return None
        if any(isinstance(item, Barrier) for _, _, item in heads) or not self._below_limits():
            return 0
        return max(0, min(arrived for _, arrived, _ in heads) + self._limits.age_ms - now_ms)

    def take(self, now_ms: int, *, rest: bool = False) -> Batch | None:
        """The next batch if one is due, or if there is anything at all (`rest`)."""
        due = self.due_in_ms(now_ms)
        if due is None or (due > 0 and not rest):
            return None
        for queue in self._queues.values():
            if queue and isinstance(queue[0][2], StepItem):
                return Batch((self._pop(queue),), "step")
        if queries := tuple(self._gather(QueryItem, QUERIES_MAX)):
            return Batch(queries, "queries")
        reason = "rest" if rest and due > 0 else ("age" if self._below_limits() else "rows or bytes")
        return Batch(tuple(self._gather(RowsItem)), reason)

    def put_back(self, batch: Batch, now_ms: int) -> None:
        """The batch was abandoned: its items come first again, in their order."""
        for item in reversed(batch.items):
            self._first -= 1
            self._queues.setdefault(item.message.partition, deque()).appendleft((self._first, now_ms, item))
            self._count(item, 1)

    def forget(self, partitions: Iterable[int]) -> None:
        """Another member has these partitions now."""
        for partition in partitions:
            for _, _, item in self._queues.pop(partition, ()):
                self._count(item, -1)

    def _below_limits(self) -> bool:
        return self.rows < self._limits.rows and self.bytes < self._limits.bytes

    def _gather(self, kind: type[Item], items_max: int | None = None) -> Iterable[Item]:
        """Items in order of arrival up to the limits (at least one), of each partition up to one of another kind."""
        rows = size = count = 0
        while count != items_max:
            queue = min(
                (queue for queue in self._queues.values() if queue and isinstance(queue[0][2], kind)),
                key=lambda queue: queue[0][0],
                default=None,
            )
            if queue is None:
                return
            item = queue[0][2]
            more_rows, more_bytes = _size(item)
            if rows and (rows + more_rows > self._limits.rows or size + more_bytes > self._limits.bytes):
                return
            rows, size, count = rows + more_rows, size + more_bytes, count + 1
            yield self._pop(queue)

    def _pop(self, queue: deque[tuple[int, int, Item]]) -> Item:
        item = queue.popleft()[2]
        self._count(item, -1)
        return item

    def _count(self, item: Item, sign: int) -> None:
        rows, size = _size(item)
        self.rows += sign * rows
        self.bytes += sign * size


def _size(item: Item) -> tuple[int, int]:
    if isinstance(item, RowsItem):
        return max(len(item.rows), 1), item.rows.nbytes
    return 1, len(item.message.value)


def split(items: Sequence[RowsItem]) -> tuple[Sequence[RowsItem], Sequence[RowsItem]] | None:
    """Two halves, by messages and, of a single one, by rows. None: one row cannot be split."""
    if len(items) > 1:
        half = len(items) // 2
        return items[:half], items[half:]
    if items and len(items[0].rows) > 1:
        first, second = items[0].halves()
        return (first,), (second,)
    return None
