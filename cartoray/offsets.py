"""Which offsets may be committed when messages are completed out of order. No clock, no client."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from cartoray.errors import IllegalTransition


@dataclass
class _Partition:
    delivered: deque[int] = field(default_factory=deque)  # not committed yet, ascending
    unfinished: set[int] = field(default_factory=set)
    position: int | None = None  # of the next message after all that are done


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

    def position(self, partition: int) -> int | None:
        """The offset to commit, whether it moved or not. None: nothing was delivered."""
        state = self._partitions.get(partition)
        if state is None:
            return None
        while state.delivered and state.delivered[0] not in state.unfinished:
            state.position = state.delivered.popleft() + 1
        if state.delivered:
            state.position = state.delivered[0]
        return state.position

    def revoke(self, partition: int) -> None:
        """Forgets the partition."""
        self._partitions.pop(partition, None)
