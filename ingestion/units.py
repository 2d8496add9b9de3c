"""Queries → what is run for them. The cleanups of a schema come as several queries, and mostly find nothing to delete.

So a unit of several begins with one query that asks whether there is anything for them at all. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from cartoray.jobs import SESSION_PREFIX
from cartoray.queries import Query
from ingestion.batching import QueryItem
from ingestion.statements import is_guarded, keeping_newer, probe
from ingestion.writer import Answer


@dataclass(frozen=True)
class Unit:
    """`queries`: of messages that follow each other. `probe`: asks whether any of them would change something."""

    queries: tuple[Query, ...]
    probe: Query | None = None

    @property
    def first(self) -> Query:
        return self.probe or self.queries[0]

    def has_more(self, answer: Answer) -> bool:
        """Whether, after `first` was answered so, there is something left to do."""
        if self.probe is not None:
            return bool(answer.records[0][0])
        return self.queries[0].repeat and bool(answer.counters)


def units(items: Sequence[QueryItem]) -> Iterator[Unit]:
    """All items, in their order."""
    for together in _together(items):
        queries = tuple(map(kept, together))
        if len(queries) > 1 and all(is_guarded(query.text) for query in queries):
            text = probe([query.text for query in queries])
            yield Unit(queries, Query(text, queries[0].parameters))
        else:
            yield from (Unit((query,)) for query in queries)


def kept(item: QueryItem) -> Query:
    """As it is run: see `keeping_newer`. Raises UnreadableMessage."""
    return keeping_newer(item.query, alone=item.origin.run_id.startswith(SESSION_PREFIX))


def _together(items: Sequence[QueryItem]) -> Iterable[list[QueryItem]]:
    found: list[list[QueryItem]] = [[items[0]]] if items else []
    for before, item in pairwise(items):
        if _follows(before, item):
            found[-1].append(item)
        else:
            found.append([item])
    return found


def _follows(before: QueryItem, item: QueryItem) -> bool:
    """Whether it is the next cleanup of the same schema, of the same attempt and for the same account."""
    first, second = before.query.cleanup, item.query.cleanup
    return (
        first is not None
        and second is not None
        and (first.schema, first.cascade, first.number + 1) == (second.schema, second.cascade, second.number)
        and (before.origin.job_id, before.origin.attempt) == (item.origin.job_id, item.origin.attempt)
        and before.query.parameters == item.query.parameters
    )
