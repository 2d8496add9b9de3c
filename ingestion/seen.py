"""Nodes that a run has found in the graph and left as they were: a cleanup must not take them for stale.

What is kept in memory is a copy: the ids are in messages on `graph_data`, the step that cleans up says in which ones,
and those that this process did not write itself, or has forgotten, are read again. Pure.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from cartoray.events import Place

IDS_MAX = 4_000_000  # 8 bytes each; with more, the accounts that came first are forgotten
_PLACE = 25  # ids take as much memory

Account = tuple[str, str]
"""Run id, and the account that the rows are of."""


@dataclass
class _Ids:
    places: set[Place] = field(default_factory=set)
    hashes: array[int] = field(default_factory=lambda: array("q"))


class Seen:
    """Ids of nodes by run and account, as hashes that hold within this process."""

    def __init__(self, ids_max: int = IDS_MAX) -> None:
        self._accounts: dict[Account, _Ids] = {}
        self._ids_max = ids_max
        self._ids = 0

    def __contains__(self, of: Account) -> bool:
        return of in self._accounts

    def begin(self, of: Account) -> None:
        self._accounts.setdefault(of, _Ids())

    def add(self, of: Account, place: Place, ids: Sequence[object]) -> None:
        """All that were left untouched of the message at `place`."""
        known = self._accounts.setdefault(of, _Ids())
        known.places.add(place)
        known.hashes.extend(map(hash, ids))
        self._ids += len(ids) + _PLACE
        while self._ids > self._ids_max and len(self._accounts) > 1:
            forgotten = self._accounts.pop(next(each for each in self._accounts if each != of))
            self._ids -= len(forgotten.hashes) + _PLACE * len(forgotten.places)

    def unknown(self, of: Account, places: Iterable[Place]) -> list[Place]:
        """Those of the messages that have to be read."""
        known = self._accounts.get(of, _Ids()).places
        return [place for place in places if place not in known]

    def hashes(self, of: Account) -> Collection[int]:
        """`hash(id)` of all nodes, of whatever label."""
        return set(self._accounts.get(of, _Ids()).hashes)
