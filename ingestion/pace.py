"""How many rows the next transaction has: a step more while they are quick, half as many when they were too many. Pure.

Time is an argument. As in TCP, what is too much is learnt at once and forgotten slowly.
"""

from __future__ import annotations

STEPS = 10  # from nothing to as many rows as are ever wanted


class Pace:
    """`rows`: of the next transaction, never more than `rows_max`, and as many to begin with."""

    def __init__(self, rows_max: int, slow_ms: float) -> None:
        """`slow_ms`: a transaction that takes longer was too large, whatever the reason."""
        self._rows_max = rows_max
        self._slow_ms = slow_ms
        self.rows = rows_max

    def took(self, rows: int, duration_ms: float) -> None:
        """A transaction of so many rows was committed."""
        if duration_ms > self._slow_ms:
            self.too_many(rows)
        elif rows >= self.rows and duration_ms * 2 < self._slow_ms:
            self.rows = min(self._rows_max, self.rows + max(1, self._rows_max // STEPS))

    def too_many(self, rows: int) -> None:
        """Neo4j had no memory or no time for a transaction of so many."""
        self.rows = max(1, min(self.rows, rows // 2))
