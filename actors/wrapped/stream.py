"""Messages of one producer to `graph_data`, in order, and what has become of them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from cartoray.errors import Permanent
from cartoray.events import EVENT, BatchLanded, Deferral, Event, MessageRefused, QueryLanded, StepLanded
from cartoray.kafka import Follower, Publisher
from cartoray.queries import SIGNATURE, signature
from cartoray.settings import KafkaSettings
from cartoray.steps import Step, settlements
from cartoray.topics import topics
from cartoray.wire import Origin, RowsHeader, encode_step, query_headers, rows_headers, step_headers

log = logging.getLogger(__name__)
_POLL_S = 0.05
_SILENCE_S = 20.0


class WriteRefused(Permanent):
    """Ingestion could not use something that was sent; it is among the dead letters."""


class Stream:
    """All messages have the same key, hence the same partition: each lands after those before it.

    One thread sends. `close` waits for nothing; `flush` does.
    """

    def __init__(
        self, settings: KafkaSettings, key: str, *, run_id: str, job_id: str, attempt: str, update_tag: int
    ) -> None:
        """Raises KafkaUnavailable."""
        self._settings, self._key = settings, key
        self._run_id, self._job_id, self._attempt, self._update_tag = run_id, job_id, attempt, update_tag
        self._topics = topics(settings)
        self._sent = 0
        self._changed = threading.Condition()
        self._landed: set[int] = set()
        self._answers: dict[int, QueryLanded] = {}
        self._refused: dict[int, str] = {}
        self._deferrals: list[Deferral] = []
        self._steps: dict[str, StepLanded] = {}
        self._broken: Exception | None = None  # what ended the thread that follows
        self._follower = Follower(settings, self._topics.events.name, f"stream-{attempt}", from_end=True)
        self._publisher = Publisher(settings, f"stream-{attempt}")
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._follow, name=f"stream-{attempt}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Sends what is still here, and ends. Raises KafkaUnavailable."""
        try:
            self._publisher.close()
        finally:
            self._closed.set()
            self._thread.join()
            self._follower.close()

    # ---- what goes out -----------------------------------------------------------------------------------------

    def rows(self, schema: str, constants: dict[str, str | int | bool | None], value: bytes) -> int:
        """Sends a message of rows, as `wire.split` makes them; answers its sequence number."""
        header = RowsHeader(**vars(self._origin()), schema=schema, constants=constants)
        return self._send(value, rows_headers(header))

    def query(self, value: bytes) -> int:
        """Sends a query, as `queries.encode_query` makes it; answers its sequence number."""
        headers = query_headers(self._origin())
        if self._settings.signing_key is not None:
            key = self._settings.signing_key.get_secret_value()
            headers.append((SIGNATURE, signature(key, headers, value)))
        return self._send(value, headers)

    def _origin(self) -> Origin:
        return Origin(self._run_id, self._update_tag, self._job_id, self._attempt, self._sent)

    def _send(self, value: bytes, headers: list[tuple[str, bytes]]) -> int:
        self._publisher.publish(self._topics.data.name, self._key.encode(), value, headers)
        self._sent += 1
        return self._sent - 1

    # ---- what became of it -------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Returns when everything sent so far is in the database. Raises WriteRefused, KafkaUnavailable."""
        self._publisher.flush()
        sent = self._sent
        self._wait(lambda: len(self._landed) + len(self._refused) >= sent)

    def answer(self, sequence: int) -> QueryLanded:
        """What query `sequence` did and returned, once it has been run. Raises WriteRefused, KafkaUnavailable."""
        self._wait(lambda: sequence in self._answers or sequence in self._refused)
        return self._answers[sequence]

    def settle(self) -> None:
        """Applies relationships whose other end landed after them, as stock's second run would. Raises WriteRefused."""
        self.flush()
        deferrals, self._deferrals = self._deferrals, []
        steps = [
            Step(
                run_id=self._run_id,
                update_tag=self._update_tag,
                step_id=f"{self._run_id}/settle/{self._attempt}/{self._sent}/{number}",
                account_id=self._key,
                actions=(settle,),
            )
            for number, settle in enumerate(settlements(deferrals))
        ]
        for step in steps:
            self._publisher.publish(self._topics.data.name, self._key.encode(), encode_step(step), step_headers(step))
        self._wait(lambda: all(step.step_id in self._steps for step in steps))
        for step in steps:
            if reason := self._steps[step.step_id].reason:
                raise WriteRefused(reason)

    def _wait(self, done: Callable[[], bool]) -> None:
        silent_since_s, told = time.monotonic(), False
        with self._changed:
            while not done():
                if self._broken is not None:
                    raise self._broken
                if self._changed.wait(_POLL_S * 20):
                    silent_since_s = time.monotonic()
                elif time.monotonic() - silent_since_s > _SILENCE_S and not told:
                    told = True
                    log.warning("nothing_lands seconds=%g hint=is `cartoray serve` running?", _SILENCE_S)
            if self._refused:
                sequence, reason = min(self._refused.items())
                raise WriteRefused(f"Message {sequence} of {self._job_id} was refused: {reason}")

    def _follow(self) -> None:
        try:
            self._follow_until_closed()
        except Exception as error:  # noqa: BLE001 - told to whoever waits, who would else wait for ever
            with self._changed:
                self._broken = error
                self._changed.notify_all()

    def _follow_until_closed(self) -> None:
        while not self._closed.is_set():
            for message in self._follower.poll(_POLL_S):
                try:
                    event = EVENT.validate_json(message.value)
                except ValueError:  # of a newer release: not of ours
                    continue
                with self._changed:
                    if self._take(event):
                        self._changed.notify_all()

    def _take(self, event: Event) -> bool:
        """Whether it is about this stream."""
        if isinstance(event, StepLanded) and event.run_id == self._run_id:
            self._steps[event.step_id] = event
            return True
        if not isinstance(event, BatchLanded | QueryLanded | MessageRefused):
            return False
        if (event.job_id, event.attempt) != (self._job_id, self._attempt):
            return False
        match event:
            case BatchLanded():
                self._landed |= set(event.sequences)
                self._deferrals += event.deferrals
            case QueryLanded():
                self._landed.add(event.sequence)
                self._answers[event.sequence] = event
            case MessageRefused():
                self._refused[event.sequence] = event.reason
        return True
