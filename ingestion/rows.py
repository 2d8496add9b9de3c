"""Decoded messages → the parameters that the statements of `ingestion.statements` take. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from cartoray.errors import UnreadableMessage
from cartoray.messages import Message
from cartoray.wire import Columns, decode_rows, rows_header
from ingestion.batching import Group, RowsItem
from ingestion.fingerprint import key_of
from ingestion.ledger import NO_TRUST, Trust
from ingestion.statements import Relationship, Statements, statements
from ingestion.table import Rows

Row = list[Any]


@dataclass(frozen=True)
class Prepared:
    """A group in the order in which it is written, by id: row k is row number `place` of `items[item]`.

    `places[k]` is (item, place), and `load_of[item]` the number of the load that its rows share.

    The driver packs lists faster than tuples, so rows that are sent are lists.
    """

    items: tuple[RowsItem, ...]
    loads: list[dict[str, Any]]
    load_of: list[int]
    places: list[tuple[int, int]]
    ids: Sequence[Any]
    fingerprints: Sequence[int | None]

    def __len__(self) -> int:
        return len(self.places)

    def keys(self, fields_at: Sequence[int] = ()) -> list[Row]:
        """[id, load, number, fingerprint, value, …] of rows that have a fingerprint, and an id that no other row has.

        Of several rows the last one must win, also over one that is in the graph until then.
        """
        known = [number for number, value in enumerate(self.fingerprints) if value is not None]
        times = Counter(self.ids[number] for number in known)
        keys = [
            [self.ids[number], self.load_of[self.places[number][0]], number, self.fingerprints[number]]
            for number in known
            if times[self.ids[number]] == 1
        ]
        for at in fields_at:
            columns = [item.rows.column(at) for item in self.items]
            for key in keys:
                item, place = self.places[key[2]]
                key.append(columns[item][place])
        return keys

    def is_lazy(self, number: int) -> bool:
        """Whether the node stays as it is if it did not change, even its `lastupdated`."""
        return self.items[self.places[number][0]].header.touch == "lazy"

    def rows(self, numbers: Sequence[int]) -> list[Row]:
        """[value, …, load, number, fingerprint] of each."""
        wanted: dict[int, list[int]] = {}
        for number in numbers:
            item, place = self.places[number]
            wanted.setdefault(item, []).append(place)
        picked = {item: iter(self.items[item].rows.pick(places)) for item, places in wanted.items()}
        return [
            [*next(picked[item]), self.load_of[item], number, self.fingerprints[number]]
            for number in numbers
            for item in (self.places[number][0],)
        ]


@dataclass(frozen=True)
class Changes:
    """`whole`: numbers of rows that are to be written as they are. `parts`: [id, {property: value}] of others."""

    whole: list[int]
    parts: list[list[Any]]


@dataclass(frozen=True)
class RelationshipRows:
    """Parameters of one relationship statement; `rows[k]` ends with k and its load, and comes from `origins[k]`."""

    relationship: Relationship
    rows: list[Row]
    loads: list[dict[str, Any]]
    origins: list[RowsItem]

    @property
    def parameters(self) -> dict[str, Any]:
        if not self.relationship.per_load:
            return {"rows": self.rows, "loads": self.loads}
        by_load: dict[int, list[Row]] = {}
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
    _check(schema, columns)
    # one load for rows of other messages with the same constants, so only those that the schema reads
    kept = {name: constants[name] for name in schema.constants}
    return RowsItem(message, header, Rows(columns, schema.fields), constants=kept)


def prepare(group: Group, schema: Statements, trust: Trust = NO_TRUST) -> Prepared:
    """Rows of all items, sorted by id, and the loads that they refer to. They have fingerprints if their run has."""
    loads: list[dict[str, Any]] = []
    numbers: dict[tuple[Any, ...], int] = {}
    load_of: list[int] = []
    ids: list[Any] = []
    places: list[tuple[int, int]] = []
    prints: list[int | None] = []
    for number, item in enumerate(group.items):
        key = tuple(item.constants.values())
        if key not in numbers:
            numbers[key] = len(loads)
            loads.append(dict(item.constants))
        load_of.append(numbers[key])
        places += [(number, place) for place in range(len(item.rows))]
        ids += item.rows.column(schema.id_at) if schema.id_at is not None else [None] * len(item.rows)
        prints += _fingerprints(item, schema, trust.salts.get(item.header.run_id))
    if schema.id_at is not None:
        with suppress(TypeError):  # ids that cannot be compared, such as lists: Neo4j will say what it thinks of them
            order = sorted(range(len(ids)), key=lambda at: _sortable(ids[at]))
            ids, places, prints = [ids[at] for at in order], [places[at] for at in order], [prints[at] for at in order]
    return Prepared(group.items, loads, load_of, places, ids, prints)


def _fingerprints(item: RowsItem, schema: Statements, salt: bytes | None) -> Sequence[int | None]:
    if salt is None or schema.nodes is None or schema.id_at is None:
        return [None] * len(item.rows)
    constants = {name: value for name, value in item.constants.items() if name != "lastupdated"}
    return item.rows.fingerprints(key_of(salt, schema.nodes, constants))


def changed(
    prepared: Prepared, schema: Statements, numbers: Sequence[int], found: Iterable[Sequence[Any]], none: Any
) -> Changes:
    """What is to be written of the rows `numbers`, after the comparison of these has answered `found`.

    `none` was its $none. Of an id that has several rows, all are written whole if any of them changed: the last one
    must win, also over one that was unchanged until then. So is a row of which more than half changed, which costs
    less then.
    """
    if schema.compare is None:
        return Changes(list(numbers), [])
    names, ids = schema.compare.names, prepared.ids
    unchanged: set[int] = set()
    changes: dict[int, dict[str, Any]] = {}
    for number, *others in found:
        if not others:
            unchanged.add(number)
        elif len(others[0]) * 2 <= len(names):
            changes[number] = {names[at]: None if value == none else value for at, value in zip(*others, strict=True)}
    times = Counter(ids[number] for number in numbers)
    differ = {ids[number] for number in numbers if number not in unchanged}
    parts = [number for number in numbers if number in changes and times[ids[number]] == 1]
    apart = set(parts)
    return Changes(
        [number for number in numbers if ids[number] in differ and number not in apart],
        [[ids[number], changes[number]] for number in parts],
    )


def _sortable(value: object) -> tuple[str, Any]:
    return (type(value).__name__, value) if value is not None else ("", 0)


def relationship_rows(
    relationship: Relationship, prepared: Prepared, numbers: Collection[int] | None = None
) -> RelationshipRows | None:
    """Those of the rows `numbers` (all) that have this relationship. None: no row has.

    A row without a value to match by has none; one that matches by a list has one for each distinct entry.
    """
    usable = [all(load[constant] is not None for constant in relationship.needed_constants) for load in prepared.loads]
    needed, list_at = relationship.needed_at, relationship.list_at
    columns = [
        {at: item.rows.column(at) for at in (*relationship.fields_at, *needed)}
        if usable[load] and all(item.rows.has(at) for at in needed)
        else None
        for item, load in zip(prepared.items, prepared.load_of, strict=True)
    ]
    rows: list[Row] = []
    origins: list[RowsItem] = []
    for number in range(len(prepared)) if numbers is None else numbers:
        item, place = prepared.places[number]
        of = columns[item]
        if of is None or any(of[at][place] is None for at in needed):
            continue
        load = prepared.load_of[item]
        id_ = None if relationship.id_at is None else prepared.ids[number]
        values = [id_, *(of[at][place] for at in relationship.fields_at)]
        if list_at is None:
            rows.append([*values, len(rows), load])
            origins.append(prepared.items[item])
            continue
        for entry in dict.fromkeys(of[list_at][place]):
            if entry is not None:
                rows.append([*values, entry, len(rows), load])
                origins.append(prepared.items[item])
    return RelationshipRows(relationship, rows, prepared.loads, origins) if rows else None


def _check(schema: Statements, columns: Columns) -> None:
    """What no transaction has to find out: ids that are none, lists that are none. Raises UnreadableMessage."""
    if schema.id_at is not None:
        name = schema.fields[schema.id_at]
        if name not in columns or None in columns[name]:
            raise UnreadableMessage(f"A row of {schema.path} has no {name}, which is its id.")
        if any(isinstance(value, list | dict) for value in columns[name]):
            raise UnreadableMessage(f"A row of {schema.path} has a {name}, which is its id, that is no single value.")
    for relationship in schema.relationships:
        if relationship.list_at is not None:
            for value in columns.get(schema.fields[relationship.list_at], ()):
                if value is not None and not (isinstance(value, list) and all(map(_hashable, value))):
                    raise UnreadableMessage(
                        f"{relationship.name} is matched by a list of keys; a row has {value!r:.80}."
                    )


def _hashable(value: object) -> bool:
    return isinstance(value, str | int | float | None)
