"""Whether rows may be published, by how far ingestion is behind: Kafka holds a surge, not all that a cloud answers."""

from __future__ import annotations

from cartoray.settings import variable

FAILURES_MAX = 3  # measurings in a row, about half a minute; after that rows go, since no one could say when else


class LagLimit:
    """Rows wait from a lag of `messages_max` on, until it has fallen to half of that; 0: they never do.

    Half, since at the limit itself rows would go and wait with each measuring, and since ingestion is to have work
    until the next one. What was sent here since the last one is added to it, so that a burst in between does not pass.
    """

    def __init__(self, messages_max: int) -> None:
        self._max, self._half = messages_max, messages_max // 2
        self._lag = 0  # that was measured last
        self._sent = self._sent_before = 0  # since that measuring began, and of those before the present one
        self.failures = 0  # in a row
        self.reason = ""  # why rows wait; empty while they go

    def sent(self) -> None:
        """A message of rows goes to Kafka from here."""
        self._sent += 1
        self._decide()

    def measuring(self) -> None:
        """A measuring begins: it may not see what is sent from now on."""
        self._sent_before = self._sent

    def measured(self, lag: int) -> None:
        self._lag, self._sent, self.failures = lag, self._sent - self._sent_before, 0
        self._decide()

    def failed(self) -> None:
        """Nothing was measured: what is known holds for a while."""
        self.failures += 1
        self._decide()

    def _decide(self) -> None:
        lag = self._lag + self._sent
        if not self._max or self.failures >= FAILURES_MAX or lag <= self._half:
            self.reason = ""
        elif lag >= self._max and not self.reason:
            self.reason = (
                f"Rows wait for ingestion: {lag:,} messages of graph_data have not landed. They go on when at most "
                f"{self._half:,} are left ({variable('intel', 'lag_messages_max')} is {self._max:,})."
            )
