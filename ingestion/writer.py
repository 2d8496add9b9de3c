"""The only file that knows `neo4j`. Explicit transactions: retries are decided by `ingestion.recovery`, never here.

Every verb blocks until the server answered, raises WriteFailed with what it or the driver said, and leaves nothing
half done: a transaction is committed whole or not at all. After a lost connection a commit may have happened; all that
is written here may be written again.
"""

from __future__ import annotations

import logging
import re
import ssl
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import neo4j
import neo4j.graph
import neo4j.time
from neo4j.exceptions import AuthError, DriverError, Neo4jError, ServiceUnavailable

from cartoray import schemas
from cartoray.errors import GraphRefused, GraphUnavailable
from cartoray.graph_driver import open_driver
from cartoray.queries import Query
from cartoray.settings import Neo4jSettings, variable
from ingestion.batching import Group, RowsItem
from ingestion.ledger import NO_TRUST, Mark, Trust, mark
from ingestion.parameters import in_a_map
from ingestion.recovery import CERTIFICATE, UNREACHABLE, VALUE, Failure, GiveUp, decide
from ingestion.rows import (
    Changes,
    Prepared,
    RelationshipRows,
    Row,
    changed,
    prepare,
    relationship_rows,
)
from ingestion.statements import BEGIN_LAZY, MERGED_BY_QUERIES, Index, Relationship, Statements, recognition, statements

log = logging.getLogger(__name__)

_DUPLICATES = "cartoray_duplicates_"  # name of an index that was put back: not tried again by every new process
_RACES = (
    ".DeadlockDetected",
    ".EquivalentSchemaRuleAlreadyExists",
    ".IndexAlreadyExists",
    ".ConstraintAlreadyExists",
    ".IndexDropFailed",  # while a constraint is being made, its index does not show yet whose it is
)
_ON_SCHEMA = re.compile(r"\s*(CREATE|DROP)\s+(\w+\s+)?(INDEX|CONSTRAINT)\b", re.IGNORECASE)
_THERE_ALREADY = (".EquivalentSchemaRuleAlreadyExists", ".IndexAlreadyExists", ".ConstraintAlreadyExists")
_COUNTERS = [name for name in vars(neo4j.SummaryCounters) if name.endswith(("ed", "_set"))]
_NONE = neo4j.time.Duration(months=-1)  # instead of null, where values are compared: no row has a duration
_RACE_TRIES = 20
_NEW_BATCHES = 4  # where nearly all rows were new, so many batches are not compared: it would cost them 8% each
_RACE_S = 0.1
_OWED_MAX, _OWED_S_MAX = 64, 2.0  # indexes that wait to be made together, and seconds


class WriteFailed(Exception):
    """A transaction was not committed, or nobody knows. What to do about it is for `ingestion.recovery` to decide."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.code}: {failure.text}")
        self.failure = failure


class Abandoned(Exception):
    """The caller no longer wanted the transaction; it was rolled back."""


@dataclass(frozen=True)
class Missing:
    """Relationships of `item` (number `relationship` of its schema) whose other end is not in the graph."""

    item: RowsItem
    relationship: int
    rows: int


@dataclass(frozen=True)
class Written:
    """What is to be known of rows that were written. `untouched`: ids of nodes that were left as they were, by item."""

    missing: list[Missing]
    untouched: list[tuple[RowsItem, list[Any]]]


@dataclass(frozen=True)
class Answer:
    """What a query did and returned: counters that are not 0, and records, each the values in the order of `keys`."""

    counters: Mapping[str, int]
    keys: tuple[str, ...]
    records: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Deleted:
    """What one round of a cleanup did; it looked at `seen` nodes or relationships."""

    seen: int
    nodes: int
    relationships: int


def _never() -> bool:
    return False


class Writer:
    """A driver with few connections. Its calls come from one thread at a time; `close` from any."""

    def __init__(self, settings: Neo4jSettings, name: str) -> None:
        """Does not connect yet. Raises GraphRefused for an address that cannot be one."""
        self._settings = settings
        self._driver = open_driver(settings, name)
        self._ensured: set[str] = set()
        self._compare_after: dict[str, int] = {}  # schema → batches to be written without comparing
        self.rows_unchanged = 0  # since the start, in transactions that were committed or not
        self.rows_recognised = 0  # of these, by their fingerprints
        self.commits: Counter[str] = Counter()  # by database, of transactions that surely changed something
        self._present: dict[tuple[str, tuple[str, ...]], _Present] | None = None
        self._owed: list[str] = []  # queries of indexes that are to be made soon
        self._owed_since_s = 0.0

    def close(self) -> None:
        self._driver.close()

    def check(self) -> None:
        """Returns when a query was answered. Raises GraphUnavailable or GraphRefused, naming setting and remedy."""
        try:
            self._run("RETURN 1")
        except WriteFailed as error:
            decision = decide(error.failure, attempt=1, retries_max=0, jitter=0, splittable=False)
            if isinstance(decision, GiveUp) and decision.refused:
                raise GraphRefused(decision.reason) from None
            raise GraphUnavailable(
                f"Neo4j at {self._settings.uri} does not answer ({error.failure.text}). Start it with `cartoray up`, "
                f"or set {variable('neo4j', 'uri')} to the one you have."
            ) from None

    def begin_run(self) -> frozenset[str]:
        """Labels that have nodes, before a run writes any: what was new to the one before may be so no more.

        Raises WriteFailed.
        """
        self._compare_after.clear()
        return self.labels()

    def begin_lazy(self, run_id: str, account_id: str, update_tag: int) -> None:
        """Before a run leaves the first nodes of an account untouched: older ones must know. Raises WriteFailed."""
        with self._transaction() as transaction:
            transaction.write(BEGIN_LAZY, AWS_ID=account_id, run=f"{update_tag} {run_id}")
            transaction.commit()

    def newest(self) -> Mark | None:
        """The newest transaction of the database, if its bookmarks tell. Raises WriteFailed."""
        with self._transaction() as transaction:
            transaction.run("RETURN 1")
            transaction.commit()
        return transaction.newest

    def count(self) -> GraphCounts:
        """Raises GraphUnavailable and GraphRefused, as `check`."""
        self.check()
        try:
            nodes = self._run("MATCH (n) RETURN count(n)")[0][0]
            labels = self._counts("CALL db.labels()", "MATCH (n:`{}`) RETURN count(n)")
            types = self._counts("CALL db.relationshipTypes()", "MATCH ()-[r:`{}`]->() RETURN count(r)")
        except WriteFailed as error:
            raise GraphUnavailable(str(error)) from None
        return GraphCounts(nodes, labels, types)

    def labels(self) -> frozenset[str]:
        """Those that have nodes. Raises WriteFailed."""
        return frozenset(name for (name,) in self._run("CALL db.labels()"))

    def _counts(self, names: str, query: str) -> dict[str, int]:
        """Of each name how many; a query for each, because only then Neo4j answers from its counts."""
        found = {name: self._run(query.format(name.replace("`", "``")))[0][0] for (name,) in self._run(names)}
        return {name: count for name, count in found.items() if count}

    # ---- rows --------------------------------------------------------------------------------------------------

    def write(
        self, groups: Sequence[Group], abandoned: Callable[[], bool] = _never, trust: Trust = NO_TRUST
    ) -> Written:
        """All nodes, then all relationships of `groups`, in one transaction.

        Raises WriteFailed, and Abandoned when `abandoned()` became true on the way.
        """
        work = []
        self._look([group.schema for group in groups if group.schema not in self._ensured])
        for group in groups:
            schema = statements(group.schema)
            self.ensure(schema.path, schema.indexes, soon=True)
            try:
                work.append((schema, prepare(group, schema, trust)))
            except (TypeError, ValueError) as error:
                raise WriteFailed(Failure(VALUE, _said(error))) from error
        with self._transaction() as transaction:
            left = []
            written = Written([], [])
            for schema, prepared in work:
                if abandoned():
                    raise Abandoned
                rest, untouched = self._write_nodes(transaction, schema, prepared, trust.volatile)
                left.append(rest)
                written.untouched.extend(_by_item(prepared, untouched))
            for (schema, prepared), rest in zip(work, left, strict=True):
                written.missing.extend(_relate(transaction, schema, prepared, rest, abandoned))
            if abandoned():
                raise Abandoned
            transaction.commit()
        return written

    def _look(self, unseen: Sequence[str]) -> None:
        """Schemas of which there are no nodes are not compared at first: Neo4j would plan for nothing."""
        labels = self.labels() if unseen else frozenset()
        self._compare_after |= {path: _NEW_BATCHES for path in unseen if schemas.label(path) not in labels}

    def _write_nodes(
        self, transaction: _Transaction, schema: Statements, prepared: Prepared, volatile: frozenset[str]
    ) -> tuple[Sequence[int], Collection[int]]:
        """Answers the numbers of the rows whose relationships have to be written, and of those left untouched."""
        everything = range(len(prepared))
        if schema.nodes is None:
            return everything, ()
        skip = self._compare_after.get(schema.path, 0)
        self._compare_after[schema.path] = max(0, skip - 1)
        touched, untouched = (set(), set()) if skip else _recognise(transaction, schema, prepared, volatile)
        rest = [number for number in everything if number not in touched and number not in untouched]
        self.rows_recognised += len(prepared) - len(rest)
        changes = Changes(list(rest), []) if skip else self._changes(transaction, schema, prepared, rest)
        if changes.whole:
            rows = prepared.rows(changes.whole)
            transaction.write(schema.nodes, rows=rows, loads=prepared.loads)
        if changes.parts and schema.compare is not None:
            transaction.write(schema.compare.apply, changes=changes.parts)
        self.rows_unchanged += len(prepared) - len(changes.whole) - len(changes.parts)
        return rest, untouched

    def _changes(
        self, transaction: _Transaction, schema: Statements, prepared: Prepared, numbers: Sequence[int]
    ) -> Changes:
        """What is not in the graph as it should be. Nodes that are there get their `lastupdated` on the way."""
        if schema.compare is None or not numbers:
            return Changes(list(numbers), [])
        rows = prepared.rows(numbers)
        result = transaction.write(schema.compare.query, rows=rows, loads=prepared.loads, none=_NONE)
        changes = changed(prepared, schema, numbers, result.only, _NONE)
        if len(changes.whole) * 10 > len(prepared) * 9:
            self._compare_after[schema.path] = _NEW_BATCHES
        return changes

    def relate(self, schema: Statements, relationship: Relationship, items: Sequence[RowsItem]) -> list[str]:
        """One relationship of rows whose nodes are in the graph; answers the keys for which the other end is not.

        Raises WriteFailed.
        """
        self.ensure(schema.path, schema.indexes)
        rows = relationship_rows(relationship, prepare(Group(schema.path, tuple(items)), schema))
        if rows is None:
            return []
        with self._transaction() as transaction:
            absent = _absent(transaction, rows)
            transaction.commit()
        return [rows.key(number) for number in absent]

    # ---- what has no rows --------------------------------------------------------------------------------------

    def finds(self, query: str, parameters: Mapping[str, Any]) -> bool:
        """What a query of `ingestion.statements` that answers one truth value answers. Raises WriteFailed."""
        with self._transaction() as transaction:
            return bool(transaction.write(query, **parameters).only)

    def ids(self, query: str, parameters: Mapping[str, Any], without: Collection[int]) -> list[Any]:
        """What the query answers, an id each, but for those whose `hash` is in `without`. Raises WriteFailed."""
        with self._transaction() as transaction:
            return [id_ for id_ in transaction.stream(query, **parameters) if hash(id_) not in without]

    def delete(self, query: str, parameters: Mapping[str, Any]) -> Deleted:
        """One round of a cleanup statement. Raises WriteFailed."""
        with self._transaction() as transaction:
            result = transaction.write(query, **parameters)
            transaction.commit()
        seen = sum(value for (value,) in result.records)
        return Deleted(seen, result.counters.nodes_deleted, result.counters.relationships_deleted)

    def query(self, query: Query) -> Answer:
        """Runs what a producer wrote, in a transaction of its own. Raises WriteFailed."""
        try:
            return self.queries([query], lambda *_: False)[0]
        except WriteFailed as error:
            code = error.failure.code
            if code.endswith(_THERE_ALREADY):
                return Answer({}, (), [])
            if code.startswith("Neo.ClientError.Schema."):  # of this query alone, and not to be tried until it works
                raise WriteFailed(Failure(f"Neo.ClientError.Statement.{code}", error.failure.text)) from error
            raise

    def queries(self, queries: Sequence[Query], ends: Callable[[int, Answer], bool]) -> list[Answer]:
        """Runs the first of them, at least one, in one transaction. Raises WriteFailed.

        What changes the schema and what does not cannot share one, so it ends where the one follows the other; and
        behind the query of that number whose answer says so.
        """
        answers: list[Answer] = []
        for label in _merged(queries):
            index = f"CREATE INDEX IF NOT EXISTS FOR (n:{label}) ON (n.id)"
            self.ensure(f"merged {label}", [Index(label, ("id",), unique=True, query=index)])
        self._make_owed(now=False)
        with self._transaction() as transaction:
            for number, query in enumerate(queries):
                if answers and _on_schema(query) != _on_schema(queries[0]):
                    break
                answers.append(_run(transaction, query))
                if ends(number, answers[-1]):
                    break
            transaction.commit()
        return answers

    def link(self, query: str, parameters: Mapping[str, Any]) -> int:
        """Runs a derivation; answers how many relationships are new. Raises WriteFailed."""
        with self._transaction() as transaction:
            result = transaction.write(query, **parameters)
            transaction.commit()
        return result.counters.relationships_created

    # ---- indexes -----------------------------------------------------------------------------------------------

    def ensure(self, key: str, indexes: Iterable[Index], *, soon: bool = False) -> None:
        """Makes the indexes that are absent; for each `key` (a schema's path) once in this process.

        `soon`: those that are not unique may be made a moment later, many in one transaction, since a first sync needs
        hundreds. Raises WriteFailed. A constraint that duplicate nodes prevent is reported and left out.
        """
        if key not in self._ensured:
            wanted = tuple(indexes)
            self._racing(lambda: self._make(wanted))
            self._ensured.add(key)
        self._make_owed(now=not soon)

    def _make(self, indexes: Sequence[Index]) -> None:
        if self._present is None:
            self._present = self._read_indexes()
        for index in indexes:
            at = index.label, index.properties
            found = self._present.get(at)
            if index.unique and not (found and found.unique):
                if found and not found.name:  # made here, and named by Neo4j
                    self._make_owed(now=True)
                    self._present = self._read_indexes()
                self._present[at] = self._make_unique(index, self._present.get(at))
            elif found is None:
                self._present[at] = _Present("", unique=False)
                self._owed.append(index.query)

    def _make_owed(self, *, now: bool) -> None:
        """One commit for all: each alone costs as much."""
        if not self._owed:
            self._owed_since_s = time.monotonic()
        elif now or len(self._owed) >= _OWED_MAX or time.monotonic() - self._owed_since_s > _OWED_S_MAX:

            def make() -> None:
                with self._transaction() as transaction:
                    for query in self._owed:
                        transaction.run(query)
                    transaction.commit()

            self._racing(make)
            self._owed.clear()

    def _racing(self, make: Callable[[], None]) -> None:
        """`IF NOT EXISTS` looks before it locks: when a sibling or stock was faster, look again."""
        for left in reversed(range(_RACE_TRIES)):
            try:
                make()
                return
            except WriteFailed as error:
                if left == 0 or not error.failure.code.endswith(_RACES):
                    raise
                self._present = None
                time.sleep(_RACE_S)

    def _make_unique(self, index: Index, present: _Present | None) -> _Present:
        """See docs/decisions/001-uniqueness.md for what Neo4j answers to each step, and why they are in this order."""
        label, mark = index.label, f"{_DUPLICATES}{index.label}"
        if present and (present.unique or present.name == mark):
            return present
        if present:
            self._run(f"DROP INDEX `{present.name}` IF EXISTS")
        try:
            self._run(f"CREATE CONSTRAINT IF NOT EXISTS FOR (n:{label}) REQUIRE n.id IS UNIQUE")
        except WriteFailed as error:
            if not error.failure.code.endswith(".ConstraintCreationFailed"):
                raise
            self._run(f"CREATE INDEX `{mark}` IF NOT EXISTS FOR (n:{label}) ON (n.id)")
            log.warning(
                "duplicate_nodes label=%s: several nodes have the same id, so ids stay without a constraint and "
                "writers can add more. Merge them, then drop the index %s. Neo4j: %s",
                label,
                mark,
                error.failure.text,
            )
            return _Present(mark, unique=False)
        return _Present("", unique=True)

    def _read_indexes(self) -> dict[tuple[str, tuple[str, ...]], _Present]:
        query = "SHOW INDEXES YIELD name, type, entityType, labelsOrTypes, properties, owningConstraint"
        found: dict[tuple[str, tuple[str, ...]], _Present] = {}
        for name, kind, entity, labels, properties, constraint in self._run(query):
            if kind == "RANGE" and entity == "NODE":
                found[labels[0], tuple(properties)] = _Present(name, unique=constraint is not None)
        return found

    # ---- the driver --------------------------------------------------------------------------------------------

    def _run(self, query: str) -> list[list[Any]]:
        """A statement alone, such as one on the schema."""
        with self._transaction() as transaction:
            result = transaction.run(query)
            transaction.commit()
        return result.records

    @contextmanager
    def _transaction(self) -> Iterator[_Transaction]:
        """Rolled back unless the block committed. Raises WriteFailed for whatever server or driver raise."""
        try:
            with self._driver.session(database=self._settings.database) as session:
                with session.begin_transaction(timeout=self._settings.transaction_timeout_s) as inner:
                    transaction = _Transaction(inner)
                    yield transaction
                newest = transaction.newest = mark(session.last_bookmarks().raw_values)
                if newest is not None and transaction.committed and transaction.changed:
                    self.commits[newest.database] += 1
        except AuthError as error:
            raise WriteFailed(Failure(error.code or "Neo.ClientError.Security.Unauthorized", _said(error))) from error
        except Neo4jError as error:
            raise WriteFailed(Failure(error.code or UNREACHABLE, _said(error))) from error
        except (ServiceUnavailable, DriverError, OSError, BufferError) as error:
            untrusted = _untrusted(error)
            failure = Failure(UNREACHABLE, _said(error)) if untrusted is None else Failure(CERTIFICATE, untrusted)
            raise WriteFailed(failure) from error
        except (ValueError, TypeError, OverflowError) as error:
            raise WriteFailed(Failure(VALUE, _said(error))) from error


@dataclass(frozen=True)
class _Result:
    """All that a statement answered."""

    keys: tuple[str, ...]
    records: list[list[Any]]
    counters: neo4j.SummaryCounters

    @property
    def only(self) -> Any:
        """The one value of its one record."""
        ((value,),) = self.records
        return value


class _Transaction:
    """The driver's, and whether it surely changed something: what it made and deleted again would be no change."""

    def __init__(self, inner: neo4j.Transaction) -> None:
        self._inner = inner
        self.changed = self.committed = False
        self.newest: Mark | None = None  # of the database, as of the end of this one

    def write(self, query: str, /, **parameters: Any) -> _Result:
        """A statement of `ingestion.statements`: planned once, since a graph of any size needs no other plan."""
        return self.run(f"CYPHER replan=skip {query}", **parameters)

    def run(self, query: str, /, **parameters: Any) -> _Result:
        result = self._inner.run(*in_a_map(query, parameters))
        keys, records = tuple(result.keys()), result.values()
        counters = result.consume().counters
        undone = counters.nodes_created and counters.nodes_deleted
        undone = undone or (counters.relationships_created and counters.relationships_deleted)
        self.changed = self.changed or bool(counters.contains_updates and not undone)
        return _Result(keys, records, counters)

    def stream(self, query: str, /, **parameters: Any) -> Iterator[Any]:
        """The one value of each record of a query that only reads, as they come."""
        for record in self._inner.run(*in_a_map(query, parameters)):
            yield record[0]

    def commit(self) -> None:
        self._inner.commit()
        self.committed = True


@dataclass(frozen=True)
class GraphCounts:
    """Nodes in all, and by label (a node counts under each of its labels); relationships by type."""

    nodes: int
    labels: Mapping[str, int]
    relationships: Mapping[str, int]


def check_graph(settings: Neo4jSettings) -> None:
    """As `Writer.check`."""
    writer = Writer(settings, "check")
    try:
        writer.check()
    finally:
        writer.close()


def count_graph(settings: Neo4jSettings) -> GraphCounts:
    """What is in the graph, from the store's own counts. Raises GraphUnavailable and GraphRefused."""
    writer = Writer(settings, "count")
    try:
        return writer.count()
    finally:
        writer.close()


@dataclass(frozen=True)
class _Present:
    name: str
    unique: bool


def _untrusted(error: BaseException | None) -> str | None:
    """Why the server's certificate is not trusted, if that is what is behind the error."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message
        for inner in error.exceptions if isinstance(error, BaseExceptionGroup) else ():  # one for each server
            if (found := _untrusted(inner)) is not None:
                return found
        error = error.__cause__ or error.__context__
    return None


def _merged(queries: Iterable[Query]) -> set[str]:
    """Labels of which two writers may make the same node at once, unless its id is constrained."""
    return {label for query in queries for label in MERGED_BY_QUERIES if f":{label}:" in query.text}


def _on_schema(query: Query) -> bool:
    return _ON_SCHEMA.match(query.text) is not None


def _run(transaction: _Transaction, query: Query) -> Answer:
    result = transaction.run(query.text, **query.parameters)
    records = [[_plain(value) for value in record] for record in result.records]
    counters = {name: value for name in _COUNTERS if (value := getattr(result.counters, name))}
    return Answer(counters, result.keys, records)


def _plain(value: Any) -> Any:
    """A value of an answer as `cartoray.queries` can carry it; nodes and relationships are their properties."""
    if isinstance(value, neo4j.graph.Node | neo4j.graph.Relationship):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return value.to_native() if isinstance(value, neo4j.time.DateTime | neo4j.time.Date) else value


def _said(error: BaseException) -> str:
    return str(getattr(error, "message", None) or error).split("\n", 1)[0][:500]


def _recognise(
    transaction: _Transaction, schema: Statements, prepared: Prepared, volatile: frozenset[str]
) -> tuple[set[int], set[int]]:
    """Numbers of rows whose nodes are as they should be: of those that were touched, and of those that were not."""
    touched: set[int] = set()
    untouched: set[int] = set()
    statement = recognition(schema.path, volatile)
    if statement is None:
        return touched, untouched
    keys: dict[bool, list[Row]] = {True: [], False: []}
    for key in prepared.keys(statement.fields_at):
        keys[statement.lazy is not None and prepared.is_lazy(key[2])].append(key)
    for query, lazy, found in ((statement.query, False, touched), (statement.lazy, True, untouched)):
        if query is not None and keys[lazy]:
            found.update(transaction.write(query, keys=keys[lazy], loads=prepared.loads, none=_NONE).only)
    return touched, untouched


def _by_item(prepared: Prepared, numbers: Collection[int]) -> Iterator[tuple[RowsItem, list[Any]]]:
    """Ids of these rows."""
    ids: dict[int, list[Any]] = {}
    for number in numbers:
        ids.setdefault(prepared.places[number][0], []).append(prepared.ids[number])
    return ((prepared.items[item], own) for item, own in ids.items())


def _relate(
    transaction: _Transaction,
    schema: Statements,
    prepared: Prepared,
    rest: Sequence[int],
    abandoned: Callable[[], bool],
) -> Iterator[Missing]:
    """`rest`: numbers of the rows that were not touched."""
    for relationship in schema.relationships:
        if abandoned():
            raise Abandoned
        rows = relationship_rows(relationship, prepared, rest if relationship.touched else None)
        if rows is None:
            continue
        counts: dict[int, Missing] = {}
        for number in _absent(transaction, rows):
            item = rows.origins[number]
            before = counts.get(id(item))
            counts[id(item)] = Missing(item, relationship.number, 1 + (before.rows if before else 0))
        yield from counts.values()


def _absent(transaction: _Transaction, rows: RelationshipRows) -> list[int]:
    """Runs the statement; answers the numbers of the rows for which an end was not there."""
    found = set(transaction.write(rows.relationship.query, **rows.parameters).only)
    return [number for number in range(len(rows.rows)) if number not in found]
