"""Decoded messages → the parameters that the statements of `ingestion.statements` take. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from cartoray.errors import UnreadableMessage
from cartoray.messages import Message
from cartoray.wire import decode_rows, rows_header
from ingestion.batching import Group, RowsItem, Values
from ingestion.statements import Relationship, Statements, statements


@dataclass(frozen=True)
class Prepared:
    """A group as its node statement takes it: `rows[k]` ends with the number of its load and k, from `origins[k]`."""

    rows: list[Values]
    loads: list[dict[str, Any]]
    origins: list[RowsItem]


@dataclass(frozen=True)
class Changes:
    """`whole`: rows that are to be written as they are. `parts`: [id, {property: value}] of those that are not."""

    whole: list[Values]
    parts: list[list[Any]]


@dataclass(frozen=True)
class RelationshipRows:
    """Parameters of one relationship statement; `rows[k]` ends with k and its load, and comes from `origins[k]`."""

    relationship: Relationship
    rows: list[Values]
    loads: list[dict[str, Any]]
    origins: list[RowsItem]

    @property
    def parameters(self) -> dict[str, Any]:
        if not self.relationship.per_load:
            return {"rows": self.rows, "loads": self.loads}
        by_load: dict[int, list[Values]] = {}
        for row in self.rows:
            by_load.setdefault(row[-1], []).append(row)
        return {"loads": [{**self.loads[load], "rows": own} for load, own in by_load.items()]}

    def key(self, number: int) -> str:
        """What the other end of row `number` is looked for by, for people."""
        row, relationship = self.rows[number], self.relationship
        places = [1 + relationship.fields_at.index(at) for at in relationship.needed_at if at != relationship.list_at]
        if relationship.list_at is not None:
            places.append(len(row) - 3)
        constants = [self.loads[row[-1]][name] for name in relationship.needed_constants]
        return " ".join(str(part) for part in (*(row[place] for place in places), *constants))


def decode(message: Message) -> RowsItem:
    """A message of rows. Raises UnreadableMessage: its headers, its schema or its value."""
    header = rows_header(message.headers)
    schema = statements(header.schema)
    constants = {"lastupdated": header.update_tag, **header.constants}
    if absent := [name for name in schema.constants if name not in constants]:
        raise UnreadableMessage(f"Constant {absent[0]} of {header.schema} is missing.")
    columns = decode_rows(message.value)
    length = max((len(column) for column in columns.values()), default=0)
    _check(schema, columns)
    nulls = [None] * length
    rows = tuple(zip(*(columns.get(field, nulls) for field in schema.fields), strict=True))
    if schema.id_at is None:
        rows = rows or ((),) * length
    # one load for rows of other messages with the same constants, so only those that the schema reads
    kept = {name: constants[name] for name in schema.constants}
    return RowsItem(message, header, rows, constants=kept)


def prepare(group: Group, schema: Statements) -> Prepared:
    """Rows of all items, sorted by id, and the loads that they refer to."""
    loads: list[dict[str, Any]] = []
    numbers: dict[tuple[Any, ...], int] = {}
    found: list[tuple[Values, int, RowsItem]] = []
    for item in group.items:
        key = tuple(item.constants.values())
        if key not in numbers:
            numbers[key] = len(loads)
            loads.append(dict(item.constants))
        number = numbers[key]
        found += [(row, number, item) for row in item.rows]
    if (place := schema.id_at) is not None:
        with suppress(TypeError):  # ids that cannot be compared, such as lists: Neo4j will say what it thinks of them
            found.sort(key=lambda each: _sortable(each[0][place]))
    rows = [(*row, load, number) for number, (row, load, _) in enumerate(found)]
    return Prepared(rows, loads, [item for _, _, item in found])


def changed(prepared: Prepared, schema: Statements, found: Iterable[Sequence[Any]], none: Any) -> Changes:
    """What is to be written after `schema.compare.query` has answered `found`; `none` was its $none.

    Of an id that has several rows, all are written whole if any of them changed: the last one must win, also over one
    that was unchanged until then. So is a row of which more than half changed, which costs less then.
    """
    if schema.compare is None or schema.id_at is None:
        return Changes(prepared.rows, [])
    names, place = schema.compare.names, schema.id_at
    unchanged: set[int] = set()
    changes: dict[int, dict[str, Any]] = {}
    for number, *others in found:
        if not others:
            unchanged.add(number)
        elif len(others[0]) * 2 <= len(names):
            changes[number] = {names[at]: None if value == none else value for at, value in zip(*others, strict=True)}
    times = Counter(row[place] for row in prepared.rows)
    ids = {row[place] for row in prepared.rows if row[-1] not in unchanged}
    whole = [row for row in prepared.rows if row[place] in ids and not (row[-1] in changes and times[row[place]] == 1)]
    parts = [[row[place], changes[row[-1]]] for row in prepared.rows if row[-1] in changes and times[row[place]] == 1]
    return Changes(whole, parts)


def _sortable(value: object) -> tuple[str, Any]:
    return (type(value).__name__, value) if value is not None else ("", 0)


def relationship_rows(relationship: Relationship, prepared: Prepared) -> RelationshipRows | None:
    """The rows that have this relationship. None: no row has.

    A row without a value to match by has none; one that matches by a list has one for each distinct entry.
    """
    usable = [all(load[constant] is not None for constant in relationship.needed_constants) for load in prepared.loads]
    id_at, list_at = relationship.id_at, relationship.list_at
    rows: list[Values] = []
    origins: list[RowsItem] = []
    for row, item in zip(prepared.rows, prepared.origins, strict=True):
        load = row[-2]
        if not usable[load] or any(row[at] is None for at in relationship.needed_at):
            continue
        values = (None if id_at is None else row[id_at], *(row[at] for at in relationship.fields_at))
        if list_at is None:
            rows.append((*values, len(rows), load))
            origins.append(item)
            continue
        for entry in dict.fromkeys(row[list_at]):
            if entry is not None:
                rows.append((*values, entry, len(rows), load))
                origins.append(item)
    return RelationshipRows(relationship, rows, prepared.loads, origins) if rows else None


def _check(schema: Statements, columns: Mapping[str, list[Any]]) -> None:
    """What no transaction has to find out: ids that are null, lists that are none. Raises UnreadableMessage."""
    if schema.id_at is not None:
        name = schema.fields[schema.id_at]
        if name not in columns or None in columns[name]:
            raise UnreadableMessage(f"A row of {schema.path} has no {name}, which is its id.")
    for relationship in schema.relationships:
        if relationship.list_at is not None:
            for value in columns.get(schema.fields[relationship.list_at], ()):
                if value is not None and not (isinstance(value, list) and all(map(_hashable, value))):
                    raise UnreadableMessage(
                        f"{relationship.name} is matched by a list of keys; a row has {value!r:.80}."
                    )


def _hashable(value: object) -> bool:
    return isinstance(value, str | int | float | None)
