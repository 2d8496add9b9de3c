"""Which runs were cancelled: told to their state by `run_events`, and to every worker by a small topic of its own.

`run_events` is what decides how a run ended, but holds too much for a worker to read it all when it starts.
"""

from __future__ import annotations

import logging
import threading

from cartoray.errors import CartorayError, KafkaRefused
from cartoray.events import RunCancelled, key_of
from cartoray.kafka import Follower, Publisher
from cartoray.settings import KafkaSettings
from cartoray.topics import topics

log = logging.getLogger(__name__)

_IDLE_MS = 1_000
_POLL_S = 0.2
_AGAIN_S = 1.0
_CLOSE_S = 5.0


def publish_cancel(settings: KafkaSettings, event: RunCancelled) -> None:
    """Returns when Kafka has it for both; told twice it changes nothing. Raises KafkaUnavailable.

    The run's state goes first: should this be cut off in between, then its workers do needless work, and say so.
    """
    names, value = topics(settings), event.model_dump_json().encode()
    publisher = Publisher(settings, "cartoray-cancel")
    try:
        publisher.publish(names.events.name, key_of(event).encode(), value).result()
        publisher.publish(names.cancels.name, event.run_id.encode(), value).result()
    finally:
        publisher.close()


class Cancels:
    """The cancelled runs that Kafka knows, a moment later. A thread follows the topic from `start` to `close`."""

    def __init__(self, settings: KafkaSettings, name: str) -> None:
        self._settings, self._name = settings, f"{name}-cancels"
        self._runs: set[str] = set()
        self._refused: KafkaRefused | None = None
        self._known, self._closed = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._follow, name=self._name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._thread.join(_CLOSE_S)

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._runs

    def wait_until_known(self, stop: threading.Event) -> bool:
        """Blocks until all that was cancelled before `start` is known; False if `stop` was set before.

        Raises KafkaRefused.
        """
        while not self._known.wait(_POLL_S):
            if self._refused is not None:
                raise self._refused
            if stop.is_set():
                return False
        return True

    def _follow(self) -> None:
        while not self._closed.is_set():
            try:
                self._read()
            except KafkaRefused as error:
                self._refused = error
                log.warning("cancels_refused reason=%s", error)
                return
            except CartorayError as error:  # Kafka is away: all is read again when it is back
                log.info("cancels_unknown reason=%s", error)
                self._closed.wait(_AGAIN_S)

    def _read(self) -> None:
        follower = Follower(self._settings, topics(self._settings).cancels.name, self._name, idle_ms=_IDLE_MS)
        try:
            while not self._closed.is_set():
                if follower.caught_up:
                    self._known.set()
                for message in follower.poll(_POLL_S):
                    run_id = message.key.decode("utf-8", "replace")
                    if run_id not in self._runs:
                        log.info("run_cancelled run=%s", run_id)
                    self._runs.add(run_id)
        finally:
            follower.close()
