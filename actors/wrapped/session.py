"""A stand-in for `neo4j.Session` that can be given to any function of Cartography.

    with GraphSession(settings) as session:
        cartography.intel.aws.ec2.vpc.sync_vpc(session, boto3_session, regions, account, update_tag, parameters)

What holds:

- Every write goes to `graph_data`, in order, and nowhere else. `cartoray serve` must be up somewhere, to run it.
- A read sees everything that this session has written: it first waits until that is in the database.
- `load` travels as rows of its schema, which ingestion writes as it writes those of native modules; whatever else is
  written travels as Cypher with its parameters. A result or a counter that is looked at is waited for.
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
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import neo4j

from actors.wrapped.results import Result
from actors.wrapped.schema_queries import schema_of
from actors.wrapped.stream import Stream
from cartoray import schemas
from cartoray.errors import RowRejected
from cartoray.graph_driver import open_driver
from cartoray.jobs import SESSION_PREFIX
from cartoray.queries import Query, encode_query
from cartoray.settings import Settings
from cartoray.wire import encode_rows, split

P = ParamSpec("P")
T = TypeVar("T")

ROWS_MAX = 1_000  # maps in one query: more are not faster, and Neo4j runs out of transaction memory
_INDEX = "CREATE INDEX IF NOT EXISTS"
_LIST = "DictList"  # Cartography's name for what its queries unwind; each entry is written by itself
_WRITES = re.compile(r"\b(CREATE|MERGE|SET|DELETE|REMOVE|DROP|FOREACH|LOAD\s+CSV|ALTER|CALL\s*\{)\b", re.IGNORECASE)


class GraphSession:
    """One thread uses it, like a session of neo4j. `key`: sessions with the same one land in the same order."""

    def __init__(
        self,
        settings: Settings,
        key: str = "cartography",
        *,
        run_id: str = "",
        job_id: str = "",
        attempt: str = "",
        update_tag: int = 0,
    ) -> None:
        """Raises KafkaUnavailable, GraphRefused. What is not given is made up: a session may stand alone."""
        run_id = run_id or f"{SESSION_PREFIX}{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(2)}"
        self._settings = settings
        self._indexes: set[str] = set()
        self._stream = Stream(
            settings.kafka,
            key,
            run_id=run_id,
            job_id=job_id or f"{run_id}/{key}/session",
            attempt=attempt or secrets.token_hex(6),
            update_tag=update_tag,
        )
        self._driver = open_driver(settings.neo4j, "session")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._stream.settle()
        finally:
            self.close()

    def close(self) -> None:
        self._driver.close()
        self._stream.close()

    def flush(self) -> None:
        """Returns when all that was sent is in the database. Raises WriteRefused, KafkaUnavailable."""
        self._stream.flush()

    # ---- as neo4j.Session --------------------------------------------------------------------------------------

    def execute_write(self, function: Callable[Concatenate[Any, P], T], /, *arguments: P.args, **named: P.kwargs) -> T:
        return function(Transaction(self), *arguments, **named)

    def execute_read(self, function: Callable[Concatenate[Any, P], T], /, *arguments: P.args, **named: P.kwargs) -> T:
        self.flush()
        with self._driver.session(database=self._settings.neo4j.database) as session:
            return session.execute_read(function, *arguments, **named)

    def begin_transaction(self, **_: object) -> Transaction:
        return Transaction(self)

    def run(self, query: str, parameters: Mapping[str, Any] | None = None, **named: Any) -> Result | _Read:
        """Raises RowRejected for parameters that cannot travel; what the query itself raises comes when it is read."""
        everything = {**(parameters or {}), **named}
        if not _WRITES.search(query):
            return self._read(query, everything)
        if query.startswith(_INDEX):
            if query in self._indexes:  # Cartography asks for all of them before every load
                return Result(lambda: None)
            self._indexes.add(query)
        if everything.get(_LIST) and (path := schema_of(query)) is not None:
            rows = everything.pop(_LIST)
            if self._send_rows(path, rows, everything):
                return Result(lambda: None)
            everything[_LIST] = rows
        sequence = -1
        for part in _parts(everything):
            sequence = self._send_query(Query(query, part))
        return Result(lambda: self._stream.answer(sequence))

    def _read(self, query: str, parameters: Mapping[str, Any]) -> _Read:
        self.flush()
        with self._driver.session(database=self._settings.neo4j.database) as session:
            return _Read(session.execute_read(_fetch, query, parameters))

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
            self._stream.rows(path, {name: constants[name] for name in wanted}, value)
        return True

    def _send_query(self, query: Query) -> int:
        rows, value = query.parameters.get(_LIST), encode_query(query)
        too_large = len(value) > self._settings.kafka.message_bytes_max
        if too_large and isinstance(rows, list) and len(rows) > 1:
            half = len(rows) // 2
            self._send_query(Query(query.text, {**query.parameters, _LIST: rows[:half]}))
            return self._send_query(Query(query.text, {**query.parameters, _LIST: rows[half:]}))
        return self._stream.query(value)


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
