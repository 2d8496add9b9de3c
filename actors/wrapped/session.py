"""A stand-in for `neo4j.Session` that can be given to any function of Cartography.

    with GraphDriver(settings) as driver, driver.session() as session:
        cartography.intel.aws.ec2.vpc.sync_vpc(session, boto3_session, regions, account, update_tag, parameters)

What holds:

- Every write goes to `graph_data`, in order, and nowhere else. `cartoray serve` must be up somewhere, to run it.
- A read sees everything that this session has written: it first waits until that is in the database.
- `load` and `load_matchlinks` travel as rows of their schema, which ingestion writes as it writes those of native
  modules, and a cleanup made from a schema by the schema's name; whatever else is written travels as Cypher with its
  parameters. A result or a counter that is looked at is waited for; but a statement with $LIMIT_SIZE is repeated by
  ingestion until it changes nothing, and counts as 0 here.
- `flush()` returns when all that was sent is in the database; leaving the block also applies relationships whose other
  end came later, for which stock needs a second run. What ingestion refuses is raised by the next read or flush.

What does not: several queries of one transaction are several transactions, and nothing is rolled back when the function
that wrote them raises. Cartography's own transactions are single queries that may be repeated.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import neo4j

from actors.lag_gate import LagGate
from actors.wrapped.results import Result
from actors.wrapped.schema_queries import cleanup_of, schema_of
from actors.wrapped.stream import Stream, Streams
from cartoray import schemas
from cartoray.errors import RowRejected, TooLarge
from cartoray.graph_driver import open_driver
from cartoray.jobs import SESSION_PREFIX, Job
from cartoray.queries import LIMIT, Query, encode_query
from cartoray.settings import Settings
from cartoray.wire import Origin, encode_rows, split

P = ParamSpec("P")
T = TypeVar("T")

ROWS_MAX = 1_000  # maps in one query: more are not faster, and Neo4j runs out of transaction memory
_READS_MAX = 16  # connections for reading
_INDEX = "CREATE INDEX IF NOT EXISTS"
_INDEXES = f"""
SHOW INDEXES YIELD type, entityType, labelsOrTypes, properties
WHERE type = 'RANGE' AND entityType = 'NODE' AND size(properties) = 1
RETURN '{_INDEX} FOR (n:' + labelsOrTypes[0] + ') ON (n.' + properties[0] + ')'
"""
_LIST = "DictList"  # Cartography's name for what its queries unwind; each entry is written by itself
_STALE = re.compile(r"\blastupdated\s*(<>|<)\s*\$.*\bDELETE\b", re.IGNORECASE | re.DOTALL)
_WRITES = re.compile(r"\b(CREATE|MERGE|SET|DELETE|REMOVE|DROP|FOREACH|LOAD\s+CSV|ALTER|CALL\s*\{)\b", re.IGNORECASE)


class GraphDriver:
    """As `neo4j.Driver`: opens sessions, which may be used by a thread each. It holds what they share."""

    def __init__(self, settings: Settings, name: str = "cartography", gate: LagGate | None = None) -> None:
        """`gate`: of this process, if it has one. Raises KafkaUnavailable, GraphRefused."""
        self.settings, self.name = settings, name
        self._gate, self._own_gate = gate or LagGate(settings), gate is None
        self.streams = Streams(settings.kafka, name, self._gate)
        # of a cluster the leader is asked: what has landed is there already, while others may lag behind
        self.reads = open_driver(settings.neo4j, name, connections=_READS_MAX)
        if self._own_gate:
            self._gate.start()
        self._indexes: set[str] | None = None  # those that are there, and that some session has asked for

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Sends what is still here, and ends. Raises KafkaUnavailable."""
        if self._own_gate:
            self._gate.close()
        self.reads.close()
        self.streams.close()

    def is_new_index(self, query: str) -> bool:
        """Whether nobody here has asked for the index yet, and it was not there before: each costs a transaction.

        Raises what the driver of neo4j raises.
        """
        if self._indexes is None:
            with self.reads.session(database=self.settings.neo4j.database) as session:
                self._indexes = set(session.execute_write(lambda transaction: transaction.run(_INDEXES).value()))
        index = " ".join(query.rstrip("; \n").split())
        new = index not in self._indexes
        self._indexes.add(index)
        return new

    def session(self, **_: object) -> GraphSession:
        """A session that stands alone: what it writes is of no run that somebody planned."""
        run_id = f"{SESSION_PREFIX}{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(2)}"
        origin = Origin(run_id, 0, f"{run_id}/{self.name}/session", secrets.token_hex(6), 0)
        return GraphSession(self, self.streams.open(self.name, origin))

    def session_of(self, job: Job, attempt: str, check: Callable[[], None] = lambda: None) -> GraphSession:
        """The session of an attempt at a job. Those of the same account land in the order in which they send.

        `check` is called often, and raises to end it.
        """
        origin = Origin(job.run_id, job.update_tag, job.job_id, attempt, 0)
        return GraphSession(self, self.streams.open(job.account.id, origin, check))


class GraphSession:
    """One thread at a time uses it, like a session of neo4j. Made by `GraphDriver`."""

    def __init__(self, driver: GraphDriver, stream: Stream) -> None:
        self._settings, self._is_new_index, self._driver = driver.settings, driver.is_new_index, driver.reads
        self.stream = stream
        self._asked: list[str] = []  # queries that make an index, and were not sent yet
        self.rows = 0  # that were sent, of whatever kind
        self.withholds: Callable[[], bool] = lambda: False  # whether nothing that is stale may be deleted

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._send_indexes()
                self.stream.settle()
        finally:
            self.close()

    def close(self) -> None:
        """Waits for nothing: what was sent is on its way."""
        self.stream.close()

    def flush(self) -> None:
        """Returns when all that was sent is in the database. Raises WriteRefused, KafkaUnavailable."""
        self._send_indexes()
        self.stream.flush()

    def _send_indexes(self) -> None:
        for query in self._asked:
            self._send_query(Query(query, {}))
        self._asked.clear()

    # ---- as neo4j.Session --------------------------------------------------------------------------------------

    def execute_write(self, function: Callable[Concatenate[Any, P], T], /, *arguments: P.args, **named: P.kwargs) -> T:
        return function(Transaction(self), *arguments, **named)

    def execute_read(self, function: Callable[Concatenate[Any, P], T], /, *arguments: P.args, **named: P.kwargs) -> T:
        self.flush()
        with self._driver.session(database=self._settings.neo4j.database) as session:
            return session.execute_write(function, *arguments, **named)  # see `GraphDriver.reads`

    def begin_transaction(self, **_: object) -> Transaction:
        return Transaction(self)

    def run(self, query: str, parameters: Mapping[str, Any] | None = None, **named: Any) -> Result | _Read:
        """Raises RowRejected for parameters that cannot travel; what the query itself raises comes when it is read."""
        everything = {**(parameters or {}), **named}
        if not _WRITES.search(query):
            return self._read(query, everything)
        if query.startswith(_INDEX):
            if self._is_new_index(query):
                self._asked.append(query)  # before a load, as a rule: rows bring those of their schema
            return Result(lambda: None)
        if _STALE.search(query) and self.withholds():
            return Result(lambda: None)
        if everything.get(_LIST) and (path := schema_of(query)) is not None:
            rows = everything.pop(_LIST)
            if self._send_rows(path, rows, everything):
                brought = schemas.index_queries(path)
                self._asked = [asked for asked in self._asked if asked not in brought]
                return Result(lambda: None)
            # what the schema does not read stays here: an environment of a Lambda function, say
            read = {field.partition(".")[0] for field in schemas.fields(path)}
            everything[_LIST] = [{name: row[name] for name in read if name in row} for row in rows]
        self._send_indexes()
        cleanup = cleanup_of(query) if "DELETE" in query else None
        repeat = everything.get(LIMIT, 0) > 0 and f"${LIMIT}" in query
        sequence = -1
        for part in _parts(everything):
            self.rows += len(part.get(_LIST, ()))
            sequence = self._send_query(Query(query, part, repeat, cleanup))
        if repeat:  # ingestion repeats it until it changes nothing: what Cartography would do, asking each time
            return Result(lambda: None)
        return Result(lambda: self.stream.answer(sequence))

    def _read(self, query: str, parameters: Mapping[str, Any]) -> _Read:
        self.flush()
        with self._driver.session(database=self._settings.neo4j.database) as session:
            return _Read(session.execute_write(_fetch, query, parameters))  # see `GraphDriver.reads`

    def _send_rows(self, path: str, rows: Sequence[Mapping[str, Any]], constants: Mapping[str, Any]) -> bool:
        """Whether they can travel as rows: what mixes types in odd ways, or lacks a constant, goes as a query."""
        wanted = schemas.constants(path)
        if any(name not in constants or not isinstance(constants[name], str | int | bool | None) for name in wanted):
            return False
        fields = schemas.fields(path)
        try:
            table = encode_rows([{field: _dig(row, field) for field in fields} for row in rows], fields)
            values = list(split(table, self._settings.kafka.message_bytes_max))
        except RowRejected:
            return False
        for value in values:
            self.stream.rows(path, {name: constants[name] for name in wanted}, value)
        self.rows += len(rows)
        return True

    def _send_query(self, query: Query) -> int:
        rows = query.parameters.get(_LIST)
        half = len(rows) // 2 if isinstance(rows, list) else 0
        try:
            value = encode_query(query)
            if half and len(value) > self._settings.kafka.message_bytes_max:
                raise TooLarge(f"A query of {len(value)} bytes.")
        except TooLarge:
            if not isinstance(rows, list) or not half:
                raise
            self._send_query(replace(query, parameters={**query.parameters, _LIST: rows[:half]}))
            return self._send_query(replace(query, parameters={**query.parameters, _LIST: rows[half:]}))
        return self.stream.query(value, with_rows=bool(rows))


class Transaction:
    """As `neo4j.Transaction`: each query is on its way when `run` returns. There is no way back."""

    def __init__(self, session: GraphSession) -> None:
        self._session = session

    def run(self, query: str, parameters: Mapping[str, Any] | None = None, **named: Any) -> Result | _Read:
        return self._session.run(query, parameters, **named)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def commit(self) -> None:
        """Nothing is left to do."""

    def close(self) -> None:
        """Nothing is left to do."""


class _Read(Result):
    """The result of a query that was read from the database itself."""

    def __init__(self, records: list[neo4j.Record]) -> None:
        super().__init__(lambda: None)
        self._left = records
        self._keys = tuple(records[0].keys()) if records else ()

    def keys(self) -> tuple[str, ...]:
        return self._keys


def _fetch(transaction: neo4j.ManagedTransaction, query: str, parameters: Mapping[str, Any]) -> list[neo4j.Record]:
    return list(transaction.run(query, dict(parameters)))


def _parts(parameters: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The parameters, as often as the list in them has ROWS_MAX entries."""
    rows = parameters.get(_LIST)
    if not isinstance(rows, list) or len(rows) <= ROWS_MAX:
        yield parameters
        return
    for start in range(0, len(rows), ROWS_MAX):
        yield {**parameters, _LIST: rows[start : start + ROWS_MAX]}


def _dig(row: Mapping[str, Any], field: str) -> Any:
    """The value that Cypher's `item.a.b` has: null where something on the way is missing."""
    value: Any = row
    for part in field.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
