"""What is committed never passes what is unfinished, whatever ends in whatever order, and whoever has the partition."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from cartoray.errors import IllegalTransition
from cartoray.offsets import OffsetTracker

PARTITIONS = st.integers(0, 2)


class Tracked(RuleBasedStateMachine):
    """A topic of three partitions, a group's committed offsets, and members of the group one after the other.

    The model knows of each message whether it was ever finished; the tracker only what this member was delivered.
    """

    delivered = Bundle("delivered")

    def __init__(self) -> None:
        super().__init__()
        self.tracker = OffsetTracker()
        self.committed = {partition: 0 for partition in range(3)}
        self.position: dict[int, int] = {}  # of what this member has, where it reads next
        self.topic: dict[int, list[int]] = {partition: [] for partition in range(3)}  # offsets, with gaps
        self.finished: set[tuple[int, int]] = set()
        self.life = 0

    @rule(partition=PARTITIONS, gap=st.integers(0, 3))
    def is_published(self, partition: int, gap: int) -> None:
        """Compaction and transactions leave gaps."""
        before = self.topic[partition][-1] if self.topic[partition] else -1
        self.topic[partition].append(before + 1 + gap)

    @rule(target=delivered, partition=PARTITIONS)
    def is_delivered(self, partition: int) -> tuple[int, int, int]:
        at = self.position.setdefault(partition, self.committed[partition])
        offset = next((offset for offset in self.topic[partition] if offset >= at), None)
        if offset is None:
            return self.life, partition, -1
        self.tracker.deliver(partition, offset)
        self.position[partition] = offset + 1
        return self.life, partition, offset

    @rule(message=consumes(delivered))
    def ends(self, message: tuple[int, int, int]) -> None:
        """Also one whose partition has gone meanwhile: that is told to no one."""
        life, partition, offset = message
        if offset >= 0 and (life == self.life or partition not in self.position):
            self.tracker.complete(partition, offset)
            self.finished.add((partition, offset))

    @rule(message=delivered)
    def comes_out_of_order(self, message: tuple[int, int, int]) -> None:
        life, partition, offset = message
        waiting = [
            each
            for each in self.topic[partition]
            if self.committed[partition] <= each < self.position.get(partition, 0)
        ]
        if life == self.life and offset in waiting:
            with pytest.raises(IllegalTransition):
                self.tracker.deliver(partition, offset)

    @rule()
    def is_committed(self) -> None:
        self._commit(range(3))

    @rule(partition=PARTITIONS)
    def goes_to_another_member_and_comes_back(self, partition: int) -> None:
        self._commit([partition])
        self.tracker.revoke(partition)
        assert self.tracker.position(partition) is None
        self.position.pop(partition, None)
        self.life += 1

    @rule()
    def dies(self) -> None:
        self.tracker = OffsetTracker()
        self.position.clear()
        self.life += 1

    def _commit(self, partitions: Iterable[int]) -> None:
        for partition in partitions:
            if (offset := self.tracker.position(partition)) is not None:
                assert offset >= self.committed[partition]
                self.committed[partition] = offset

    @invariant()
    def nothing_is_unfinished_below_what_is_committed(self) -> None:
        for partition, at in self.committed.items():
            below = {(partition, offset) for offset in self.topic[partition] if offset < at}
            assert below <= self.finished

    def teardown(self) -> None:
        """What was delivered and has ended is committed: nothing is held back for ever."""
        for partition in range(3):
            while (message := self.is_delivered_now(partition)) is not None:
                self.tracker.complete(partition, message)
                self.finished.add((partition, message))
            for offset in self.topic[partition]:
                self.tracker.complete(partition, offset)
                self.finished.add((partition, offset))
        self._commit(range(3))
        self.nothing_is_unfinished_below_what_is_committed()
        for partition, offsets in self.topic.items():
            if offsets:
                assert self.committed[partition] > offsets[-1]

    def is_delivered_now(self, partition: int) -> int | None:
        at = self.position.setdefault(partition, self.committed[partition])
        offset = next((offset for offset in self.topic[partition] if offset >= at), None)
        if offset is not None:
            self.tracker.deliver(partition, offset)
            self.position[partition] = offset + 1
        return offset


TestTracked = Tracked.TestCase
TestTracked.settings = settings(max_examples=100, stateful_step_count=40, deadline=None, derandomize=True)
