"""The only file that knows `neo4j`. Explicit transactions: retries are decided by `ingestion.recovery`, never here.

Every verb blocks until the server answered, raises WriteFailed with what it or the driver said, and leaves nothing
half done: a transaction is committed whole or not at all. After a lost connection a commit may have happened; all that
is written here may be written again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, LiteralString, cast

import neo4j
from neo4j.exceptions import AuthError, ConfigurationError, DriverError, Neo4jError, ServiceUnavailable

from cartoray.errors import GraphRefused, GraphUnavailable
from cartoray.settings import Neo4jSettings, variable
from ingestion.batching import Group, RowsItem
from ingestion.recovery import UNREACHABLE, VALUE, Failure, GiveUp, decide
from ingestion.rows import Prepared, RelationshipRows, prepare, relationship_rows
from ingestion.statements import Index, Relationship, Statements, statements

log = logging.getLogger(__name__)

_DUPLICATES = "cartoray_duplicates_"  # name of an index that was put back: not tried again by every new process
_SWAP_TRIES = 5


class WriteFailed(Exception):  # noqa: N818 - carries a Failure to `recovery`, which decides what it is
    """A transaction was not committed, or nobody knows."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.code}: {failure.text}")
        self.failure = failure


class Abandoned(Exception):  # noqa: N818
    """The caller no longer wanted the transaction; it was rolled back."""


@dataclass(frozen=True)
class Missing:
    """Relationships of `item` (number `relationship` of its schema) whose other end is not in the graph."""

    item: RowsItem
    relationship: int
    rows: int


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
        password = settings.password.get_secret_value()
        try:
            self._driver = neo4j.GraphDatabase.driver(
                settings.uri,
                auth=(settings.user, password) if password else None,
                user_agent=f"cartoray/{name}",
                connection_timeout=settings.timeout_s,
                connection_acquisition_timeout=settings.timeout_s * 2,
                max_connection_pool_size=4,
                notifications_min_severity="OFF",
                telemetry_disabled=True,
            )
        except (ConfigurationError, ValueError) as error:
            raise GraphRefused(f"{variable('neo4j', 'uri')} is not usable: {error}") from None
        self._ensured: set[str] = set()
        self._present: dict[tuple[str, tuple[str, ...]], _Present] | None = None

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

    # ---- rows --------------------------------------------------------------------------------------------------

    def write(self, groups: Sequence[Group], abandoned: Callable[[], bool] = _never) -> list[Missing]:
        """All nodes, then all relationships of `groups`, in one transaction. What could not be related is answered.

        Raises WriteFailed, and Abandoned when `abandoned()` became true on the way.
        """
        work = []
        for group in groups:
            schema = statements(group.schema)
            self.ensure(schema.path, schema.indexes)
            work.append((schema, prepare(group, schema)))
        with self._transaction() as transaction:
            for schema, prepared in work:
                if abandoned():
                    raise Abandoned
                transaction.run(_text(schema.nodes), rows=prepared.rows, loads=prepared.loads).consume()
            missing: list[Missing] = []
            for schema, prepared in work:
                missing += _relate(transaction, schema, prepared, abandoned)
            if abandoned():
                raise Abandoned
            transaction.commit()
        return missing

    def relate(self, schema: Statements, relationship: Relationship, item: RowsItem) -> tuple[int, list[str]]:
        """One relationship of rows whose nodes are in the graph: how many rows have it, keys of those that still lack it.

        Raises WriteFailed.
        """
        self.ensure(schema.path, schema.indexes)
        rows = relationship_rows(relationship, prepare(Group(schema.path, (item,)), schema))
        if rows is None:
            return 0, []
        with self._transaction() as transaction:
            absent = _absent(transaction, rows)
            transaction.commit()
        return len(rows.rows), [rows.key(number) for number in absent]

    # ---- what has no rows --------------------------------------------------------------------------------------

    def delete(self, query: str, **parameters: Any) -> Deleted:
        """One round of a cleanup statement. Raises WriteFailed."""
        with self._transaction() as transaction:
            result = transaction.run(_text(query), parameters)
            seen = sum(result.value())
            counters = result.consume().counters
            transaction.commit()
        return Deleted(seen, counters.nodes_deleted, counters.relationships_deleted)

    def link(self, query: str, **parameters: Any) -> int:
        """Runs a derivation; answers how many relationships are new. Raises WriteFailed."""
        with self._transaction() as transaction:
            created = transaction.run(_text(query), parameters).consume().counters.relationships_created
            transaction.commit()
        return created

    # ---- indexes -----------------------------------------------------------------------------------------------

    def ensure(self, key: str, indexes: Iterable[Index]) -> None:
        """Makes the indexes that are absent; for each `key` (a schema's path) once in this process.

        Raises WriteFailed. A constraint that duplicate nodes prevent is reported and left out.
        """
        if key in self._ensured:
            return
        if self._present is None:
            self._present = self._read_indexes()
        plain = []
        for index in indexes:
            at = (index.label, index.properties)
            if index.unique:
                self._ensure_unique(index)
            elif at not in self._present or not index.label:
                plain.append(index)
                self._present[at] = _Present("", unique=False)
        if plain:
            with self._transaction() as transaction:  # one commit for all: each alone costs as much
                for index in plain:
                    transaction.run(_text(index.query)).consume()
                transaction.commit()
        self._ensured.add(key)

    def _ensure_unique(self, index: Index) -> None:
        """See docs/decisions/001-uniqueness.md for what Neo4j answers to each step and why they are in this order."""
        at = (index.label, index.properties)
        query = f"CREATE CONSTRAINT IF NOT EXISTS FOR (n:{index.label}) REQUIRE n.{index.properties[0]} IS UNIQUE"
        for _ in range(_SWAP_TRIES):
            present = self._present.get(at) if self._present else None
            if present and (present.unique or present.name.startswith(_DUPLICATES)):
                return
            if present and present.name:
                self._run(f"DROP INDEX `{present.name}` IF EXISTS")
            try:
                self._run(query)
            except WriteFailed as error:
                if error.failure.code.endswith(".ConstraintCreationFailed"):
                    log.warning(
                        "duplicate_nodes label=%s: several nodes have the same id, so it stays without a constraint "
                        "and writers can add more. Merge them, then drop the index %s%s. Neo4j: %s",
                        index.label,
                        _DUPLICATES,
                        index.label,
                        error.failure.text,
                    )
                    self._run(
                        f"CREATE INDEX `{_DUPLICATES}{index.label}` IF NOT EXISTS FOR (n:{index.label}) ON (n.id)"
                    )
                elif not error.failure.code.endswith(".IndexAlreadyExists"):  # a sibling or stock was faster: look again
                    raise
            self._present = self._read_indexes()

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
            values = transaction.run(_text(query)).values()
            transaction.commit()
        return values

    @contextmanager
    def _transaction(self) -> Iterator[neo4j.Transaction]:
        """Rolled back unless the block committed. Raises WriteFailed for whatever server or driver raise."""
        try:
            with (
                self._driver.session(database=self._settings.database) as session,
                session.begin_transaction(timeout=self._settings.transaction_timeout_s) as transaction,
            ):
                yield transaction
        except AuthError as error:
            raise WriteFailed(Failure(error.code or "Neo.ClientError.Security.Unauthorized", _said(error))) from error
        except Neo4jError as error:
            raise WriteFailed(Failure(error.code or UNREACHABLE, _said(error))) from error
        except (ServiceUnavailable, DriverError, OSError, BufferError) as error:
            raise WriteFailed(Failure(UNREACHABLE, _said(error))) from error
        except (ValueError, TypeError, OverflowError) as error:
            raise WriteFailed(Failure(VALUE, _said(error))) from error


@dataclass(frozen=True)
class _Present:
    name: str
    unique: bool


def _text(query: str) -> LiteralString:
    """The driver asks for literals against injection; ours are made from the schemas, values travel as parameters."""
    return cast(LiteralString, query)


def _said(error: BaseException) -> str:
    return str(getattr(error, "message", None) or error).split("\n", 1)[0][:500]


def _relate(
    transaction: neo4j.Transaction, schema: Statements, prepared: Prepared, abandoned: Callable[[], bool]
) -> Iterator[Missing]:
    for relationship in schema.relationships:
        if abandoned():
            raise Abandoned
        rows = relationship_rows(relationship, prepared)
        if rows is None:
            continue
        counts: dict[int, Missing] = {}
        for number in _absent(transaction, rows):
            item = rows.origins[number]
            before = counts.get(id(item))
            counts[id(item)] = Missing(item, relationship.number, 1 + (before.rows if before else 0))
        yield from counts.values()


def _absent(transaction: neo4j.Transaction, rows: RelationshipRows) -> list[int]:
    """Runs the statement; answers the numbers of the rows for which an end was not there."""
    found = set(transaction.run(_text(rows.relationship.query), rows.parameters).single(strict=True)[0])
    return [number for number in range(len(rows.rows)) if number not in found]
