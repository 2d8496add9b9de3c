"""Messages of one attempt on their way to `graph_data`, held back while an earlier job has not ended."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import Future, wait

from cartoray.wire import RowsHeader

HELD_BYTES_MAX = 32 * 1024 * 1024  # of one job; with more it stops asking for pages until it may publish
_LOOK_EVERY_S = 0.1

Report = Future[tuple[int, int]]
Send = Callable[[RowsHeader, bytes], Report]


class Outbox:
    """`earlier`: ended when those jobs have ended that must not be overtaken. `check` raises to end the wait for them.

    One thread uses it. `reports` are those of what was sent: messages 0 … n-1 of the attempt.
    """

    def __init__(
        self,
        send: Send,
        earlier: Collection[Future[None]],
        check: Callable[[], None],
        held_bytes_max: int = HELD_BYTES_MAX,
    ) -> None:
        self._send, self._earlier, self._check = send, earlier, check
        self._held: deque[tuple[RowsHeader, bytes]] = deque()
        self._held_bytes, self._held_bytes_max = 0, held_bytes_max
        self.reports: list[Report] = []

    def publish(self, header: RowsHeader, value: bytes) -> None:
        """Sends the message, or keeps it. Blocks while too much is kept, or Kafka's client has no room."""
        self._held.append((header, value))
        self._held_bytes += len(value)
        if all(future.done() for future in self._earlier):
            self._flush()
        elif self._held_bytes > self._held_bytes_max:
            self.release()

    def release(self) -> None:
        """Waits for the earlier jobs and sends what was kept. Raises what `check` raises."""
        while wait(self._earlier, timeout=_LOOK_EVERY_S).not_done:
            self._check()
        self._flush()

    def acknowledged(self) -> int:
        """How many messages were sent, when Kafka has them all. Raises KafkaUnavailable."""
        return len([report.result() for report in self.reports])

    def _flush(self) -> None:
        self._check()  # an earlier job that was abandoned has ended as well, and then nobody wants this one either
        while self._held:
            self.reports.append(self._send(*self._held.popleft()))
        self._held_bytes = 0
