"""How many members a pool is to have, by how far it is behind. No Ray, no Kafka, no clock."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True)
class Bounds:
    """Of one pool. `lag_per_member`: messages that one member is expected to have before it.

    A lag must last for `up_after_ms` before members are added, since a start takes seconds of CPU and most lags are
    gone by then; and members stay for `down_after_ms` after they were needed last, since the next lag often follows.
    """

    members_min: int
    members_max: int
    lag_per_member: int
    up_after_ms: int = 2_000
    down_after_ms: int = 60_000

    def __str__(self) -> str:
        """How many members, for people."""
        least, most = self.members_min, self.members_max
        return f"{least}" if least == most else f"{least} to {most}"


@dataclass(frozen=True)
class Scaled:
    """A change of the number of members that are wanted, and why, for people."""

    before: int
    target: int
    reason: str


class Scaling:
    """The number of members that are wanted, `target`; at first the minimum.

    Up at once from nothing, else to what is needed at most twice as many at a time. Down to the most that was needed
    within the last while, as Kubernetes' autoscaler does; but not while members that were asked for have not come: it
    is not known then what the pool can do.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._needed: deque[tuple[int, int]] = deque()  # when, and how many; none is followed by more than its number
        self._watched_since_ms = self._watched_last_ms = -(2**62)
        self._short_since_ms: int | None = None
        self.target = bounds.members_min

    def decide(self, now_ms: int, lag: int, *, pending: int, partitions: int) -> Scaled | None:
        """The change that follows from a lag of so many messages; None: none.

        `pending`: members that are to start or are starting. `partitions`: of the topic; a member without one idles.
        """
        bounds = self._bounds
        most = min(bounds.members_max, partitions)
        needed = min(most, max(bounds.members_min, -(-lag // bounds.lag_per_member)))
        self._watch(now_ms, needed)
        if needed <= self.target:
            self._short_since_ms = None
        elif self._short_since_ms is None:
            self._short_since_ms = now_ms
        if self.target > most:
            return self._move(most, f"the topic has {partitions} partitions")
        if self.target == 0 and needed:
            return self._move(needed, f"{lag:,} messages wait, and nobody is there")
        if self._short_since_ms is not None and now_ms - self._short_since_ms >= bounds.up_after_ms:
            return self._move(min(needed, 2 * self.target), f"{lag:,} messages wait")
        kept = self._needed[0][1]
        if kept < self.target and not pending and now_ms - self._watched_since_ms >= bounds.down_after_ms:
            return self._move(kept, f"not more than {kept} were needed for {bounds.down_after_ms / 1000:g} s")
        return None

    def _watch(self, now_ms: int, needed: int) -> None:
        if now_ms - self._watched_last_ms > self._bounds.down_after_ms:  # nobody knows what was needed meanwhile
            self._watched_since_ms = now_ms
        self._watched_last_ms = now_ms
        while self._needed and self._needed[-1][1] <= needed:
            self._needed.pop()
        self._needed.append((now_ms, needed))
        while now_ms - self._needed[0][0] >= self._bounds.down_after_ms:
            self._needed.popleft()

    def _move(self, target: int, reason: str) -> Scaled:
        before, self.target, self._short_since_ms = self.target, target, None
        return Scaled(before, target, reason)
