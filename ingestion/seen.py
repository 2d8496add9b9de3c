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

Account = tuple[str, str]
"""Run id, and the account that the rows are of."""


@dataclass
class _Ids:
    places: set[Place] = field(default_factory=set)
    hashes: dict[frozenset[str], array[int]] = field(default_factory=dict)  # by the labels of the nodes


class Seen:
    """Ids of nodes by run and account, as hashes that hold within this process."""

    def __init__(self, ids_max: int = IDS_MAX) -> None:
        self._accounts: dict[Account, _Ids] = {}
        self._ids_max = ids_max
        self._ids = 0

    def add(self, of: Account, place: Place, labels: frozenset[str], ids: Sequence[object]) -> None:
        """Nodes with `labels`, of the message at `place`, which may come in parts."""
        known = self._accounts.setdefault(of, _Ids())
        known.places.add(place)
        known.hashes.setdefault(labels, array("q")).extend(map(hash, ids))
        self._ids += len(ids)
        while self._ids > self._ids_max and len(self._accounts) > 1:
            forgotten = self._accounts.pop(next(each for each in self._accounts if each != of))
            self._ids -= sum(map(len, forgotten.hashes.values()))

    def unknown(self, of: Account, places: Iterable[Place]) -> list[Place]:
        """Those of the messages that have to be read."""
        known = self._accounts.get(of, _Ids()).places
        return [place for place in places if place not in known]

    def hashes(self, of: Account, label: str) -> Collection[int]:
        """`hash(id)` of all nodes that carry the label."""
        known = self._accounts.get(of, _Ids()).hashes
        return {each for labels, hashes in known.items() if label in labels for each in hashes}
