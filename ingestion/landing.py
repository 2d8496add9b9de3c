"""A batch or a step → the graph, with whatever retries, waits and splits that takes.

Runs in the sink's writer thread. What the data or a step is to blame for is part of the answer, not raised.
"""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from cartoray import schemas
from cartoray.errors import RowRejected, UnreadableMessage
from cartoray.events import Deferral, Place, QueryLanded, StepLanded, Unresolved
from cartoray.queries import LIMIT, Query, to_json
from cartoray.settings import variable
from cartoray.steps import ACCOUNT_LABEL, Analyse, CleanupNodes, DeriveLinks, MarkSynced, Settle, Step
from cartoray.wire import Origin
from ingestion.analyses import analysis
from ingestion.attempts import Attempts
from ingestion.batching import QueryItem, RowsItem, groups, split
from ingestion.bookkeeper import Bookkeeper
from ingestion.deferred import Read, settle
from ingestion.derivations import derivation
from ingestion.effects import properties_set
from ingestion.first_sight import FirstSight, Key
from ingestion.pace import Pace
from ingestion.recovery import Bisect, Halve
from ingestion.rows import decode
from ingestion.seen import Seen
from ingestion.statements import MARK_SYNCED, OTHER_LAZY_RUNS, Index, Relationship, Statements, cleanups, statements
from ingestion.units import Unit, units
from ingestion.writer import Abandoned, Answer, Missing, Writer, Written

CLEANUP_ROWS = 1_000  # nodes in one round; `DETACH DELETE` takes all their relationships into the same transaction
_NOTHING = Answer({}, (), [])  # of a query that was spared
T = TypeVar("T")
ANSWER_BYTES_MAX = 500_000  # of what a query returns; reads go to the database directly


@dataclass(frozen=True)
class Landed:
    """A message that was written: what is deferred of it, and whether it has nodes that were left as they were."""

    deferrals: tuple[Deferral, ...] = ()
    untouched: bool = False


Outcome = Landed | str
"""Of a message: what came of it, or why it was refused."""


class Landing:
    """Puts batches and steps into the graph. `abandoned()`: nobody wants the present one any more."""

    def __init__(
        self,
        writer: Writer,
        attempts: Attempts,
        read: Read,
        abandoned: Callable[[], bool],
        *,
        sight: FirstSight,
        seen: Seen,
        books: Bookkeeper,
        pace: Pace,
    ) -> None:
        self._sight = sight
        self._seen = seen
        self._books = books
        self._writer = writer
        self._attempts = attempts
        self._read = read
        self._abandoned = abandoned
        self._pace = pace

    # ---- rows --------------------------------------------------------------------------------------------------

    def rows(self, items: Sequence[RowsItem]) -> dict[Place, Outcome]:
        """(partition, offset) of each item → what came of it.

        Raises GraphRefused, GraphUnavailable, Abandoned: nothing is known to have landed then.
        """
        self._begin({_run(item) for item in items})
        self._begin_lazy(items)
        for item in items:
            self._sight.wrote(_run(item), statements(item.header.schema).labels)
        missing: list[Missing] = []
        untouched: dict[Place, list[Any]] = {}
        refused: dict[Place, str] = {}
        pending: list[Sequence[RowsItem]] = [items]
        while pending:
            part = pending.pop()
            halves = split(part)
            if halves is not None and _rows(part) > self._pace.rows:
                pending += reversed(halves)  # one message may be larger than a batch
                continue
            outcome = self._attempts.run(partial(self._write, part), splittable=halves is not None)
            if isinstance(outcome, Halve):
                self._pace.too_many(_rows(part))
            if isinstance(outcome, Bisect) and len(part) == 1:
                refused[part[0].message.place] = outcome.reason
            elif isinstance(outcome, Halve | Bisect):
                pending += reversed(halves or ())
            else:
                missing += outcome.missing
                for item, ids in outcome.untouched:
                    untouched.setdefault(item.message.place, []).extend(ids)
        for item in items:  # only now: of a message that was split, all parts have landed
            place = item.message.place
            if place in untouched:
                self._seen.add(_account(item), place, untouched[place])
        deferrals = _deferrals(missing)
        places = (item.message.place for item in items)
        landed = {place: Landed(deferrals.get(place, ()), place in untouched) for place in places}
        return {**landed, **refused}

    def _begin(self, runs: Collection[Key]) -> None:
        if new := [run for run in runs if run not in self._sight]:
            labels = self._certain(self._writer.begin_run)
            for run in new:
                self._sight.begin(run, labels)
                self._books.begin(run[0], partial(self._certain, self._writer.newest), self._writer.commits)

    def _begin_lazy(self, items: Sequence[RowsItem]) -> None:
        for item in items:
            account = _account(item)
            if item.header.touch == "lazy" and account not in self._seen:
                begin = partial(self._writer.begin_lazy, *account, item.header.update_tag)
                self._certain(begin)
                self._seen.begin(account)

    def _write(self, items: Sequence[RowsItem]) -> Written:
        together = groups(items, lambda schema: statements(schema).labels)
        began_s = time.monotonic()
        written = self._writer.write(together, self._abandoned, self._books.ledger.trust)
        self._pace.took(_rows(items), (time.monotonic() - began_s) * 1_000)
        return written

    # ---- steps -------------------------------------------------------------------------------------------------

    def step(self, step: Step, now_ms: Callable[[], int]) -> StepLanded:
        """Does all actions of the step in order. One that cannot be done ends it, with the reason in the answer.

        Raises GraphRefused, GraphUnavailable, Abandoned.
        """
        tally = _Tally()
        reason = ""
        try:
            for action in step.actions:
                match action:
                    case Analyse():
                        self._analyse(step, action)
                    case CleanupNodes():
                        self._cleanup(step, action, tally)
                    case DeriveLinks():
                        self._derive(step, action, tally)
                    case MarkSynced():
                        self._mark(step, action)
                    case Settle():
                        self._settle(step, action, tally)
        except (UnreadableMessage, RowRejected) as error:
            reason = str(error)
        return StepLanded(
            run_id=step.run_id,
            step_id=step.step_id,
            at_ms=now_ms(),
            nodes_deleted=tally.nodes_deleted,
            relationships_deleted=tally.relationships_deleted,
            relationships_settled=tally.relationships_settled,
            unresolved=tuple(tally.unresolved),
            reason=reason,
        )

    # ---- queries -----------------------------------------------------------------------------------------------

    def queries(self, items: Sequence[QueryItem], now_ms: Callable[[], int]) -> list[QueryLanded | str]:
        """Runs them in order; of each what came of it, or why it was refused.

        As many as can be are run in one transaction; when that fails, one after the other, so that only what is to
        blame is refused. Raises GraphRefused, GraphUnavailable, Abandoned.
        """
        needless = [self._is_needless(item) for item in items]
        answers = self._answers(
            deque(units([item for item, spared in zip(items, needless, strict=True) if not spared]))
        )
        answered = [_NOTHING if spared else next(answers) for spared in needless]
        return [
            answer if isinstance(answer, str) else _told(item.origin, answer, now_ms())
            for item, answer in zip(items, answered, strict=True)
        ]

    def _answers(self, left: deque[Unit]) -> Iterator[Answer | str]:
        while left:
            together = self._together(tuple(left))
            if isinstance(together, Halve | Bisect) or not together:
                yield from map(self._query, left.popleft().queries)
                continue
            for answer in together:
                unit = left.popleft()
                if not unit.has_more(answer):
                    yield from [answer if unit.probe is None else _NOTHING] * len(unit.queries)
                elif unit.probe is None:
                    yield self._query(unit.first, answer)
                else:
                    yield from map(self._query, unit.queries)

    def _together(self, some: tuple[Unit, ...]) -> list[Answer] | Halve | Bisect:
        """Answers of the first of them, none if there is nothing to gain by a transaction for several."""
        if len(some) == 1 and some[0].probe is None:
            return []
        firsts = [unit.first for unit in some]
        run = partial(self._writer.queries, firsts, lambda number, answer: some[number].has_more(answer))
        return self._attempts.run(run, splittable=True)

    def _is_needless(self, item: QueryItem) -> bool:
        """Whether it is a cleanup that can find nothing. Of another query, notes what it may do."""
        cleanup, run_id = item.query.cleanup, item.origin.run_id
        tag = item.query.parameters.get("UPDATE_TAG")
        if cleanup is None:
            self._books.ledger.queried(properties_set(item.query.text))
        if cleanup is None or not isinstance(tag, int):
            self._sight.ran(run_id)
            return False
        return self._sight.is_new((run_id, tag), schemas.label(cleanup.schema))

    def _query(self, query: Query, before: Answer | None = None) -> Answer | str:
        """Runs it, if asked for until it changes nothing, or says why it was refused. `before`: what one run did."""
        counters = Counter(before.counters if before else {})
        limit = query.parameters[LIMIT] if query.repeat else 1
        while True:
            if self._abandoned():
                raise Abandoned
            answer = self._attempts.run(partial(self._writer.query, query), splittable=limit > 1)
            if isinstance(answer, Bisect):
                return answer.reason
            if isinstance(answer, Halve):
                limit //= 2
                query = replace(query, parameters={**query.parameters, LIMIT: limit})
                continue
            counters.update(answer.counters)
            if not (query.repeat and answer.counters):
                return replace(answer, counters=counters)

    def _is_new(self, step: Step, path: str) -> bool:
        return self._sight.is_new((step.run_id, step.update_tag), schemas.label(path))

    def _cleanup(self, step: Step, action: CleanupNodes, tally: _Tally) -> None:
        if self._is_new(step, action.schema_path):
            return
        schema, found = statements(action.schema_path), cleanups(action.schema_path, action.of)
        self._ensure(schema.path, schema.indexes)
        scope = {"_sub_resource_label": action.of, "_sub_resource_id": step.account_id}
        parameters = {"AWS_ID": step.account_id, "UPDATE_TAG": step.update_tag, **scope}
        if tally.overtaken is None:
            others = {**parameters, "RUN_ID": step.run_id}
            tally.overtaken = self._certain(lambda: self._writer.finds(OTHER_LAZY_RUNS, others))
        if tally.overtaken:
            return  # what these runs left untouched looks stale to this one; they clean up themselves
        probe, queries = found.probe, found.queries
        if step.untouched and found.by_id:
            stale = self._stale(step, found.older, parameters)
            for query in found.by_id:
                for start in range(0, len(stale), CLEANUP_ROWS):
                    self._delete(query, tally, {**parameters, "IDS": stale[start : start + CLEANUP_ROWS]})
            probe, queries = found.rest, queries[len(found.by_id) :]
        if not queries:
            return
        if self._certain(lambda: self._writer.finds(probe, parameters)):
            for query in queries:
                self._delete(query, tally, parameters)

    def _stale(self, step: Step, older: str, parameters: Mapping[str, Any]) -> list[Any]:
        """Ids of nodes that are older than the run, and that it has not seen. Raises UnreadableMessage."""
        of = step.run_id, step.account_id
        unknown = self._seen.unknown(of, step.untouched)
        for message in self._read(unknown):
            if self._abandoned():
                raise Abandoned
            item = decode(message)
            id_at = statements(item.header.schema).id_at
            if id_at is not None:  # all of its nodes: those that were written are newer than the run anyway
                self._seen.add(_account(item), message.place, item.rows.column(id_at))
        if gone := self._seen.unknown(of, unknown):
            raise UnreadableMessage(
                f"{len(gone)} messages that tell which nodes are still there are no longer in Kafka, so nothing was "
                f"deleted. The next sync makes up for it; {variable('kafka', 'retention_hours')} is how long they stay."
            )
        seen = self._seen.hashes(of)
        return self._certain(lambda: self._writer.ids(older, parameters, seen))

    def _derive(self, step: Step, action: DeriveLinks, tally: _Tally) -> None:
        found = derivation(action.schema_path)
        self._ensure(action.schema_path, found.indexes)
        scope = {"_sub_resource_label": ACCOUNT_LABEL, "_sub_resource_id": step.account_id}
        parameters = {"lastupdated": step.update_tag, **scope}
        self._certain(lambda: self._writer.link(found.link, parameters))
        if self._is_new(step, action.schema_path):
            return
        self._delete(found.cleanup, tally, {"UPDATE_TAG": step.update_tag, **scope})

    def _analyse(self, step: Step, action: Analyse) -> None:
        named = {"AWS_ID": step.account_id, "UPDATE_TAG": step.update_tag}
        for query in analysis(action.path):
            self._books.ledger.queried(properties_set(query.text))
            answer = self._query(replace(query, parameters={**query.parameters, **named}))
            if isinstance(answer, str):
                raise RowRejected(f"{action.path}: {answer}")

    def _mark(self, step: Step, action: MarkSynced) -> None:
        named = {"ACCOUNT": step.account_id, "GROUP": ACCOUNT_LABEL, "LABEL": action.label}
        mark = Query(MARK_SYNCED, {**named, "UPDATE_TAG": step.update_tag})
        self._certain(lambda: self._writer.query(mark))

    def _settle(self, step: Step, action: Settle, tally: _Tally) -> None:
        done = settle(step.run_id, action.deferrals, self._read, self._relate, rows_max=self._pace.rows)
        tally.relationships_settled += done.relationships
        tally.unresolved += done.unresolved

    def _relate(self, schema: Statements, relationship: Relationship, items: Sequence[RowsItem]) -> list[str]:
        absent: list[str] = []
        pending: list[Sequence[RowsItem]] = [items]
        while pending:
            part = pending.pop()
            outcome = self._attempts.run(
                partial(self._writer.relate, schema, relationship, part),
                splittable=split(part) is not None,
            )
            if isinstance(outcome, Halve):
                pending += reversed(split(part) or ())
            elif isinstance(outcome, Bisect):
                raise RowRejected(f"{relationship.name}: {outcome.reason}")
            else:
                absent += outcome
        return absent

    def _delete(self, query: str, tally: _Tally, parameters: dict[str, Any]) -> None:
        limit = CLEANUP_ROWS
        while True:
            if self._abandoned():
                raise Abandoned
            outcome = self._attempts.run(
                partial(self._writer.delete, query, {**parameters, "LIMIT_SIZE": limit}),
                splittable=limit > 1,
            )
            if isinstance(outcome, Halve):
                limit //= 2
                continue
            if isinstance(outcome, Bisect):
                raise RowRejected(outcome.reason)
            tally.nodes_deleted += outcome.nodes
            tally.relationships_deleted += outcome.relationships
            if outcome.seen < limit:
                return

    def _ensure(self, key: str, indexes: Sequence[Index]) -> None:
        self._certain(lambda: self._writer.ensure(key, indexes))

    def _certain(self, transaction: Callable[[], T]) -> T:
        outcome = self._attempts.run(transaction, splittable=False)
        if isinstance(outcome, Bisect | Halve):
            raise RowRejected(outcome.reason)
        return outcome


@dataclass
class _Tally:
    """What a step did so far."""

    nodes_deleted: int = 0
    relationships_deleted: int = 0
    relationships_settled: int = 0
    unresolved: list[Unresolved] = field(default_factory=list)
    overtaken: bool | None = None  # whether other runs that are not older left nodes untouched; None: not asked yet


def _told(origin: Origin, answer: Answer, at_ms: int) -> QueryLanded | str:
    """The event, or why what it returned cannot be told."""
    try:
        records = json.dumps(to_json(answer.records))
    except RowRejected as error:
        return f"What it returned cannot be told: {error}"
    if len(records) > ANSWER_BYTES_MAX:
        return f"It returned {len(records)} bytes, at most {ANSWER_BYTES_MAX} can be told."
    return QueryLanded(
        run_id=origin.run_id,
        job_id=origin.job_id,
        attempt=origin.attempt,
        sequence=origin.sequence,
        at_ms=at_ms,
        counters=dict(answer.counters),
        keys=answer.keys,
        answer=records,
    )


def _account(item: RowsItem) -> tuple[str, str]:
    """Run id and account."""
    run_id, account, _ = item.header.job_id.split("/")
    return run_id, account


def _run(item: RowsItem) -> Key:
    return item.header.run_id, item.constants.get("lastupdated", item.header.update_tag)


def _rows(items: Sequence[RowsItem]) -> int:
    return sum(len(item.rows) for item in items)


def _deferrals(missing: Sequence[Missing]) -> dict[Place, tuple[Deferral, ...]]:
    """Counted per message and relationship; a message that was split has several entries of one relationship."""
    counts: Counter[tuple[int, int, int]] = Counter()
    for entry in missing:
        counts[(*entry.item.message.place, entry.relationship)] += entry.rows
    found: dict[Place, list[Deferral]] = {}
    for (partition, offset, relationship), rows in sorted(counts.items()):
        deferral = Deferral(partition=partition, offset=offset, relationship=relationship, rows=rows)
        found.setdefault((partition, offset), []).append(deferral)
    return {place: tuple(deferrals) for place, deferrals in found.items()}
