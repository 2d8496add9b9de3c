"""What a session answers for a query that it sent: the parts of neo4j's result that Cartography's modules use."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import neo4j

from cartoray.events import QueryLanded
from cartoray.queries import from_json


class Counters:
    """As `neo4j.SummaryCounters`: how much was changed, 0 for what is not named."""

    def __init__(self, counts: dict[str, int]) -> None:
        self._counts = counts

    def __getattr__(self, name: str) -> int:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._counts.get(name, 0)

    @property
    def contains_updates(self) -> bool:
        return any(self._counts.values())


class Summary:
    """As `neo4j.ResultSummary`, as far as counters go. They are waited for when somebody looks at them."""

    def __init__(self, landed: Callable[[], QueryLanded | None]) -> None:
        self._landed = landed

    @property
    def counters(self) -> Counters:
        landed = self._landed()
        return Counters(dict(landed.counters) if landed else {})


class Result:
    """As `neo4j.Result`. Nothing is waited for until a record or a counter is looked at.

    `landed()` blocks until the query was run, and answers what it returned; None: rows, which return nothing.
    """

    def __init__(self, landed: Callable[[], QueryLanded | None]) -> None:
        self._landed = landed
        self._left: list[neo4j.Record] | None = None

    def _records(self) -> list[neo4j.Record]:
        """Those that were not taken yet."""
        if self._left is None:
            landed = self._landed()
            keys = landed.keys if landed else ()
            records = from_json(json.loads(landed.answer)) if landed else []
            make: Any = neo4j.Record  # which has no types
            self._left = [make(zip(keys, record, strict=True)) for record in records]
        return self._left

    def _take(self) -> list[neo4j.Record]:
        records = self._records()
        self._left = []
        return records

    def __iter__(self) -> Iterator[neo4j.Record]:
        while self._records():
            yield self._records().pop(0)

    def keys(self) -> tuple[str, ...]:
        landed = self._landed()
        return landed.keys if landed else ()

    def single(self, strict: bool = False) -> neo4j.Record | None:  # noqa: FBT001, FBT002 - neo4j's signature
        records = self._take()
        if strict and len(records) != 1:
            raise ValueError(f"One record was expected, there are {len(records)}.")
        return records[0] if records else None

    def peek(self) -> neo4j.Record | None:
        records = self._records()
        return records[0] if records else None

    def data(self, *keys: int | str) -> list[dict[str, Any]]:
        return [record.data(*keys) for record in self._take()]

    def values(self, *keys: int | str) -> list[list[Any]]:
        return [record.values(*keys) for record in self._take()]

    def value(self, key: int | str = 0, default: Any = None) -> list[Any]:
        return [record.value(key, default) for record in self._take()]

    def consume(self) -> Summary:
        self._left = []
        return Summary(self._landed)
