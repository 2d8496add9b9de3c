"""Relationships whose other end had not landed when their message was written: applied now, from the message itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from cartoray.errors import UnreadableMessage
from cartoray.events import Deferral, Place, Unresolved
from cartoray.messages import Message
from ingestion.batching import RowsItem
from ingestion.rows import decode
from ingestion.statements import Relationship, Statements, statements

SAMPLE = 3  # different keys that a report shows; the count says the rest

Read = Callable[[Iterable[Place]], Iterator[Message]]
"""The messages at (partition, offset), in order; those that are gone are left out."""

Relate = Callable[[Statements, Relationship, Sequence[RowsItem]], Sequence[str]]
"""Applies one relationship of the items' rows; answers the keys of those that still lack their other end."""


@dataclass(frozen=True)
class Settled:
    """How many relationships were made, and what is still open, one entry per kind."""

    relationships: int
    unresolved: tuple[Unresolved, ...]


@dataclass
class _Work:
    schema: Statements
    relationship: Relationship
    items: list[RowsItem] = field(default_factory=list)
    owed: int = 0
    absent: list[str] = field(default_factory=list)


def settle(run_id: str, deferrals: Sequence[Deferral], read: Read, relate: Relate, *, rows_max: int) -> Settled:
    """Applies `deferrals`, reading their messages again, about `rows_max` rows at a time.

    A message that is gone from Kafka (retention, or a new topic of the same name) is unresolved with that reason.
    """
    by_place: dict[Place, list[Deferral]] = {}
    for deferral in deferrals:
        by_place.setdefault((deferral.partition, deferral.offset), []).append(deferral)
    work: dict[tuple[str, int], _Work] = {}
    gone: list[Unresolved] = []
    held = 0
    unread = dict(by_place)
    for message in read(list(by_place)):
        wanted = unread.pop(message.place, [])
        try:
            item = decode(message)
            if item.header.run_id != run_id:
                raise UnreadableMessage(f"it is of run {item.header.run_id}")
            for deferral in wanted:
                _add(work, item, deferral)
        except UnreadableMessage as error:
            gone += [_gone(deferral, str(error)) for deferral in wanted]
            continue
        held += len(item.rows)
        if held >= rows_max:
            _apply(work.values(), relate)
            held = 0
    _apply(work.values(), relate)
    for wanted in unread.values():
        gone += [_gone(deferral, "the message is no longer in Kafka") for deferral in wanted]
    open_ = tuple(
        Unresolved(
            relationship=entry.relationship.name,
            target_label=entry.relationship.target_label,
            rows=len(entry.absent),
            sample=tuple(dict.fromkeys(entry.absent))[:SAMPLE],
        )
        for entry in work.values()
        if entry.absent
    )
    made = sum(max(0, entry.owed - len(entry.absent)) for entry in work.values())
    return Settled(made, (*open_, *gone))


def _add(work: dict[tuple[str, int], _Work], item: RowsItem, deferral: Deferral) -> None:
    schema = statements(item.header.schema)
    if deferral.relationship >= len(schema.relationships):
        raise UnreadableMessage(f"{schema.path} has no relationship {deferral.relationship}")
    relationship = schema.relationships[deferral.relationship]
    entry = work.setdefault((schema.path, relationship.number), _Work(schema, relationship))
    entry.items.append(item)
    entry.owed += deferral.rows


def _apply(work: Iterable[_Work], relate: Relate) -> None:
    for entry in work:
        if entry.items:
            entry.absent += relate(entry.schema, entry.relationship, entry.items)
            entry.items.clear()


def _gone(deferral: Deferral, reason: str) -> Unresolved:
    place = f"graph_data[{deferral.partition}]@{deferral.offset}"
    return Unresolved(
        relationship=f"relationship {deferral.relationship} of {place}",
        target_label="",
        rows=deferral.rows,
        sample=(f"{place}: {reason}",),
    )
