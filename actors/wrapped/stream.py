"""Messages of one producer to `graph_data`, in order, and what has become of them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace

from actors.lag_gate import LagGate
from cartoray.errors import Permanent
from cartoray.events import EVENT, BatchLanded, Deferral, Event, MessageRefused, QueryLanded, StepLanded
from cartoray.kafka import Follower, Publisher
from cartoray.messages import Message
from cartoray.queries import SIGNATURE, signature
from cartoray.settings import KafkaSettings
from cartoray.steps import Step, settlements
from cartoray.topics import topics
from cartoray.wire import Origin, RowsHeader, encode_step, query_headers, rows_headers, step_headers

log = logging.getLogger(__name__)
_POLL_S = 0.2
_LOOK_EVERY_S = 0.5
_KINDS = frozenset({"batch_landed", "query_landed", "message_refused", "step_landed"})
_SILENCE_S = 20.0


class WriteRefused(Permanent):
    """Ingestion could not use something that was sent; it is among the dead letters."""


class Streams:
    """All streams of a process: one producer and one reader of `run_events` between them. Any thread may open one."""

    def __init__(self, settings: KafkaSettings, name: str, gate: LagGate) -> None:
        """Raises KafkaUnavailable."""
        self.settings, self.topics, self.gate = settings, topics(settings), gate
        self._open: dict[str, list[Stream]] = {}  # run → its streams
        self._changing = threading.Lock()
        self.broken: Exception | None = None  # what ended the thread that follows
        self._follower = Follower(settings, self.topics.events.name, f"{name}-streams", from_end=True)
        self.publisher = Publisher(settings, f"{name}-streams")
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._follow, name=f"{name}-streams", daemon=True)
        self._thread.start()

    def open(self, key: str, origin: Origin, check: Callable[[], None] = lambda: None) -> Stream:
        """`origin`: of its first message. `check` is called before each message and while something is waited for.

        What it raises comes through.
        """
        stream = Stream(self, key, origin, check)
        with self._changing:
            self._open.setdefault(origin.run_id, []).append(stream)
        return stream

    def forget(self, stream: Stream) -> None:
        with self._changing:
            left = [each for each in self._open.pop(stream.run_id, []) if each is not stream]
            if left:
                self._open[stream.run_id] = left

    def close(self) -> None:
        """Sends what is still here, and ends. Raises KafkaUnavailable."""
        try:
            self.publisher.close()
        finally:
            self._closed.set()
            self._thread.join()
            self._follower.close()

    def _follow(self) -> None:
        try:
            while not self._closed.is_set():
                for message in self._follower.poll(_POLL_S):
                    self._deliver(message)
        except Exception as error:  # noqa: BLE001 - told to whoever waits, who would else wait for ever
            self.broken = error

    def _deliver(self, message: Message) -> None:
        run_id, kind = [*message.key.decode(errors="replace").split("/"), ""][:2]
        with self._changing:  # most are of others: those are not parsed
            streams = list(self._open.get(run_id, ())) if kind in _KINDS else ()
        if streams:
            try:
                event = EVENT.validate_json(message.value)
            except ValueError:  # of a newer release: not of ours
                return
            for stream in streams:
                stream.take(event)


class Stream:
    """All messages have the same key, hence the same partition: each lands after those before it.

    One thread at a time sends. `close` waits for nothing; `flush` does.
    """

    def __init__(self, streams: Streams, key: str, origin: Origin, check: Callable[[], None]) -> None:
        self._streams, self._key, self._origin, self._check = streams, key, origin, check
        self.run_id = origin.run_id
        self.reports: list[Future[tuple[int, int]]] = []  # of the messages sent, 0 … n-1
        self._steps_sent = 0
        self._changed = threading.Condition()
        self._landed: set[int] = set()
        self._answers: dict[int, QueryLanded] = {}
        self._refused: dict[int, str] = {}
        self._told: set[int] = set()  # refusals that were raised
        self._acknowledged = 0  # of the reports: the first so many were looked at
        self._deferrals: list[Deferral] = []
        self._steps: dict[str, StepLanded] = {}

    def close(self) -> None:
        """What is on its way stays so."""
        self._streams.forget(self)

    # ---- what goes out -----------------------------------------------------------------------------------------

    def rows(self, schema: str, constants: dict[str, str | int | bool | None], value: bytes) -> int:
        """Sends a message of rows, as `wire.split` makes them; answers its sequence number."""
        self._streams.gate.admit(self._check)
        header = RowsHeader(**vars(self._next()), schema=schema, constants=constants)
        return self._send(value, rows_headers(header))

    def query(self, value: bytes, *, with_rows: bool = False) -> int:
        """Sends a query, as `queries.encode_query` makes it; answers its sequence number."""
        if with_rows:
            self._streams.gate.admit(self._check)
        headers = query_headers(self._next())
        if self._streams.settings.signing_key is not None:
            key = self._streams.settings.signing_key.get_secret_value()
            headers.append((SIGNATURE, signature(key, headers, value)))
        return self._send(value, headers)

    def _next(self) -> Origin:
        return replace(self._origin, sequence=len(self.reports))

    def _send(self, value: bytes, headers: list[tuple[str, bytes]]) -> int:
        self._check()
        name = self._streams.topics.data.name
        self.reports.append(self._streams.publisher.publish(name, self._key.encode(), value, headers))
        return len(self.reports) - 1

    # ---- what became of it -------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Returns when everything sent so far is in the database. Raises WriteRefused, KafkaUnavailable."""
        sent = len(self.reports)
        for report in self.reports[self._acknowledged : sent]:
            report.result()
        self._acknowledged = sent
        self._wait(lambda: len(self._landed) + len(self._refused) >= sent)

    def answer(self, sequence: int) -> QueryLanded:
        """What query `sequence` did and returned, once it has been run. Raises WriteRefused, KafkaUnavailable."""
        self._wait(lambda: sequence in self._answers or sequence in self._refused)
        if sequence in self._refused:
            raise self._refusal(sequence)
        return self._answers[sequence]

    def settle(self) -> None:
        """Applies relationships whose other end landed after them, as stock's second run would. Raises WriteRefused."""
        self.flush()
        deferrals, self._deferrals = self._deferrals, []
        first = self._steps_sent
        steps = [
            Step(
                run_id=self.run_id,
                update_tag=self._origin.update_tag,
                step_id=f"{self.run_id}/settle/{self._key}/{self._origin.attempt}-{number}",
                account_id=self._key,
                actions=(settle,),
            )
            for number, settle in enumerate(settlements(deferrals), first)
        ]
        self._steps_sent += len(steps)
        for step in steps:
            name = self._streams.topics.data.name
            self._streams.publisher.publish(name, self._key.encode(), encode_step(step), step_headers(step)).result()
        self._wait(lambda: all(step.step_id in self._steps for step in steps))
        for step in steps:
            if reason := self._steps[step.step_id].reason:
                raise WriteRefused(reason)

    def _wait(self, done: Callable[[], bool]) -> None:
        silent_since_s, told = time.monotonic(), False
        with self._changed:
            while not done():
                self._check()
                if self._streams.broken is not None:
                    raise self._streams.broken
                if self._changed.wait(_LOOK_EVERY_S):
                    silent_since_s = time.monotonic()
                elif time.monotonic() - silent_since_s > _SILENCE_S and not told:
                    told = True
                    log.warning("nothing_lands seconds=%g hint=is `cartoray serve` running?", _SILENCE_S)
            if untold := self._refused.keys() - self._told:  # once each: who catches it may go on, as with neo4j
                self._told |= untold
                raise self._refusal(min(untold))

    def _refusal(self, sequence: int) -> WriteRefused:
        return WriteRefused(f"Message {sequence} of {self._origin.job_id} was refused: {self._refused[sequence]}")

    def take(self, event: Event) -> None:
        """An event of this run."""
        with self._changed:
            if self._take(event):
                self._changed.notify_all()

    def _take(self, event: Event) -> bool:
        """Whether it is about this stream."""
        if isinstance(event, StepLanded):
            self._steps[event.step_id] = event
            return True
        if not isinstance(event, BatchLanded | QueryLanded | MessageRefused):
            return False
        if (event.job_id, event.attempt) != (self._origin.job_id, self._origin.attempt):
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
