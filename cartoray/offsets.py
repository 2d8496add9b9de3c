"""Which offsets may be committed when messages are completed out of order. No clock, no client."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from cartoray.errors import IllegalTransition


@dataclass
class _Partition:
    delivered: deque[int] = field(default_factory=deque)  # not committed yet, ascending
    unfinished: set[int] = field(default_factory=set)


class OffsetTracker:
    """Tracks messages from delivery to completion, per partition.

    An offset here is Kafka's committed offset: that of the *next* message to read. It never passes an unfinished
    message, and gaps (compaction, transaction markers) are stepped over with the next message that was delivered.
    """

    def __init__(self) -> None:
        self._partitions: dict[int, _Partition] = {}

    def deliver(self, partition: int, offset: int) -> None:
        """A message was polled. Raises IllegalTransition when offsets do not rise within the partition."""
        state = self._partitions.setdefault(partition, _Partition())
        if state.delivered and offset <= state.delivered[-1]:
            raise IllegalTransition(f"Partition {partition}: offset {offset} came after {state.delivered[-1]}.")
        state.delivered.append(offset)
        state.unfinished.add(offset)

    def complete(self, partition: int, offset: int) -> None:
        """The message needs no redelivery. Ignored when the partition was revoked meanwhile."""
        state = self._partitions.get(partition)
        if state is not None:
            state.unfinished.discard(offset)

    def take_commits(self) -> dict[int, int]:
        """Partition → offset to commit, of those that moved since the last call."""
        return {partition: offset for partition in self._partitions if (offset := self._advance(partition)) is not None}

    def revoke(self, partition: int) -> int | None:
        """Forgets the partition. The offset to commit before it goes, if it moved."""
        offset = self._advance(partition)
        self._partitions.pop(partition, None)
        return offset

    def _advance(self, partition: int) -> int | None:
        state = self._partitions.get(partition)
        if state is None:
            return None
        last = None
        while state.delivered and state.delivered[0] not in state.unfinished:
            last = state.delivered.popleft()
        if last is None:
            return None
        return state.delivered[0] if state.delivered else last + 1
