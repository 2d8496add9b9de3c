"""Labels that had no nodes when a run began to write: of these, it cannot find anything stale.

A first sync makes every label, and each cleanup that is spared is a plan that Neo4j need not make: with a plan cache
that is empty, and is emptied by every new index, planning is most of what a first sync waits for.

What is remembered holds for the partitions that a member has had since: an account's data comes in one partition, so
nobody else writes older nodes of it meanwhile. With new partitions a member begins a new `FirstSight`.
"""

from __future__ import annotations

from collections.abc import Collection

RUNS_MAX = 64  # a run that is forgotten is only cleaned up in full

Key = tuple[str, int]
"""Run id and update tag: a session of Cartography may have several tags."""


class FirstSight:
    """Per run, the labels that may have nodes which the run has not written."""

    def __init__(self) -> None:
        self._older: dict[Key, set[str]] = {}

    def __contains__(self, key: Key) -> bool:
        return key in self._older

    def begin(self, key: Key, labels: Collection[str]) -> None:
        """`labels` have nodes, as of a moment after the run began."""
        if len(self._older) >= RUNS_MAX:
            del self._older[next(iter(self._older))]
        self._older[key] = set(labels)

    def wrote(self, key: Key, labels: Collection[str]) -> None:
        """Rows of a run have made nodes, which other runs may find stale."""
        for other, older in self._older.items():
            if other != key:
                older.update(labels)

    def ran(self, run_id: str) -> None:
        """A query of a run may have made nodes of any label."""
        for key in [key for key in self._older if key[0] != run_id]:
            del self._older[key]

    def is_new(self, key: Key, label: str) -> bool:
        """Whether all nodes of the label were written by the run itself. Of a run that did not begin here: False."""
        return key in self._older and label not in self._older[key]
