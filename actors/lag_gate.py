"""Where rows wait while ingestion is too far behind. One thread measures, whatever is published."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from actors.lag_limit import FAILURES_MAX, LagLimit
from cartoray.kafka import GroupLag
from cartoray.settings import Settings
from cartoray.topics import group, topics

log = logging.getLogger(__name__)

_MEASURE_EVERY_S = 2.0
_LOOK_EVERY_S = 0.2
_CLOSE_S = 2.0  # for a measuring to come back; one that does not is left behind


class LagGate:
    """One for all threads of a process. Only rows ask: steps, cleanups, other small queries and events always go.

    Nothing that ingestion does waits for rows, so what waits here goes on as soon as ingestion does.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._limit = LagLimit(settings.intel.lag_messages_max)
        self._changed = threading.Condition()
        self._since_s: float | None = None  # when rows began to wait, if they do
        self._waited_s = 0.0  # before that
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins to measure, if there is a limit."""
        kafka = self._settings.kafka
        if self._settings.intel.lag_messages_max:
            ingestion = GroupLag(kafka, topics(kafka).data.name, group(kafka, "ingestion"))
            self._thread = threading.Thread(target=self._measure, args=(ingestion,), name="lag", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Measures no more. Whoever waits does so until its `check` raises."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join(_CLOSE_S)

    @property
    def trouble(self) -> str:
        """Why rows wait; empty while they go."""
        return self._limit.reason

    def clock_s(self) -> float:
        """A clock that stands still while rows wait, so that no job's time runs out by that."""
        with self._changed:
            return (time.monotonic() if self._since_s is None else self._since_s) - self._waited_s

    def admit(self, check: Callable[[], None]) -> None:
        """Returns when one message of rows may be published. `check` is called often, and raises to end the wait."""
        while True:
            check()
            with self._changed:
                if self._changed.wait_for(lambda: not self._limit.reason, _LOOK_EVERY_S):
                    self._limit.sent()
                    self._note()
                    return

    def _measure(self, ingestion: GroupLag) -> None:
        while not self._closed.is_set():
            with self._changed:
                self._limit.measuring()
            try:
                lag = ingestion.messages()
            except Exception as error:  # noqa: BLE001 - of whatever kind, rows must not wait for ever for a measuring
                with self._changed:
                    self._limit.failed()
                    self._note()
                if self._limit.failures == FAILURES_MAX:  # once, and not for what passes by itself
                    log.warning("lag_unknown rows=go without limit reason=%s", error)
            else:
                with self._changed:
                    self._limit.measured(lag)
                    self._note()
            self._closed.wait(_MEASURE_EVERY_S)
        ingestion.close()

    def _note(self) -> None:
        """After each change, under the lock."""
        now_s = time.monotonic()
        if self._limit.reason and self._since_s is None:
            self._since_s = now_s
            log.warning("rows_wait reason=%s", self._limit.reason)
        elif not self._limit.reason and self._since_s is not None:
            log.info("rows_go_on waited_s=%.1f", now_s - self._since_s)
            self._waited_s += now_s - self._since_s
            self._since_s = None
            self._changed.notify_all()
