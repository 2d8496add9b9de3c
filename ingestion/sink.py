"""From `graph_data` to Neo4j: poll, decode, batch, write, report, commit. One thread owns the consumer, one writes.

What data depends on is the order of three steps, the same for rows and for steps, in a hurry or not:

    1  written           in Neo4j, in one transaction
    2  known to the run  its events acknowledged by Kafka
    3  forgotten         its offsets committed

Dying between any two of them repeats work and never loses it, since 1 and 2 may be repeated.

The first thread keeps polling while Neo4j is slow, so that the group knows that this member lives; with a few batches
held the partitions are paused, and Kafka holds the surge.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass

from pydantic import SecretStr

from cartoray.cancels import Cancels
from cartoray.dead_letters import REASON_MAX
from cartoray.errors import GraphUnavailable, UnreadableMessage
from cartoray.events import BatchLanded, Event, MessageRefused, Place, StepLanded, key_of
from cartoray.in_hand import InHand
from cartoray.kafka import GroupConsumer, Publisher, read_at
from cartoray.messages import Message
from cartoray.queries import check_signature, decode_query
from cartoray.settings import Settings, variable
from cartoray.topics import group, topics
from cartoray.wire import decode_step, kind_of, origin
from ingestion.attempts import Attempts
from ingestion.batching import Batch, Batcher, Item, Limits, QueryItem, RowsItem, StepItem
from ingestion.bookkeeper import Bookkeeper
from ingestion.first_sight import FirstSight
from ingestion.landing import Landed, Landing, Outcome
from ingestion.pace import Pace
from ingestion.recovery import backoff_s
from ingestion.rows import decode
from ingestion.seen import Seen
from ingestion.units import kept
from ingestion.writer import Abandoned, Writer

log = logging.getLogger(__name__)

Report = Future[tuple[int, int]]  # done when Kafka has acknowledged a message

_POLL_BUSY_S = 0.01  # the writer idles for at most this long between two batches
_POLL_IDLE_S = 0.2
_ANNOUNCED = 100  # messages at a time that Kafka is told of before they are looked at
_ABANDON_S = 2.0  # for a statement that runs to come back after it was told that nobody waits


@dataclass(frozen=True)
class SinkStatus:
    """What a member is doing. `trouble`: why it waits or retries at this moment, or why it ended."""

    pid: int
    partitions: tuple[int, ...] = ()
    rows_landed: int = 0
    rows_unchanged: int = 0  # of those, the ones that were in the graph already
    rows_recognised: int = 0  # of those, the ones whose values were not even sent to Neo4j
    messages_refused: int = 0
    rows_held: int = 0
    in_flight: int = 0
    draining: bool = False
    trouble: str = ""


@dataclass(frozen=True)
class _UnderWay:
    batch: Batch
    future: Future[None]
    abandon: threading.Event


class Sink:
    """One member of the ingestion pool. `run` blocks until it is stopped or cannot go on; `status` from any thread.

    `on_point(name)` is called in the writer thread after the steps 1 ("after_write") and 2 ("after_report"), for tests
    that kill there.
    """

    def __init__(self, settings: Settings, name: str, on_point: Callable[[str], None] = lambda _: None) -> None:
        self._settings = settings
        self._name = name
        self._on_point = on_point
        self._topics = topics(settings.kafka)
        limits = settings.ingestion
        self._batcher = Batcher(Limits(limits.batch_rows, limits.batch_bytes, limits.batch_age_ms))
        self._pace = Pace(limits.batch_rows, limits.transaction_slow_ms)
        self._in_hand = InHand(limits.deaths_max)
        self._deaths = self._in_hand.deaths
        self._later: deque[Message] = deque()  # that were polled, and not looked at
        self._alone: Place | None = None  # in hand, and nothing else may be
        self._sight = FirstSight()
        self._seen = Seen()
        self._cancels = Cancels(settings.kafka, name)
        self._partitions: set[int] = set()
        self._under_way: _UnderWay | None = None
        self._stopping = threading.Event()  # nobody wants any work any more, not even the present one
        self._draining = False
        self._rows_landed = self._rows_unchanged = self._rows_recognised = self._messages_refused = 0
        self._trouble = ""

    def status(self) -> SinkStatus:
        under_way = self._under_way
        return SinkStatus(
            pid=os.getpid(),
            partitions=tuple(sorted(self._partitions)),
            rows_landed=self._rows_landed,
            rows_unchanged=self._rows_unchanged,
            rows_recognised=self._rows_recognised,
            messages_refused=self._messages_refused,
            rows_held=self._batcher.rows,
            in_flight=len(under_way.batch.items) if under_way else 0,
            draining=self._draining,
            trouble=self._trouble,
        )

    # ---- the life of the member --------------------------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        """Works until `stop`, then finishes what it holds within `ingestion.drain_s`, and leaves the group.

        Raises GraphRefused and GraphUnavailable when Neo4j can never take what is to be written, KafkaUnavailable when
        the clients cannot go on. A Neo4j that is away is waited for.
        """
        self._writer = Writer(self._settings.neo4j, self._name)
        pool = ThreadPoolExecutor(1, thread_name_prefix=f"{self._name}-writer")
        try:
            if self._wait_for_graph(stop):
                self._serve(stop, pool)
        except BaseException as error:
            self._trouble = str(error)
            raise
        finally:
            self._stopping.set()
            pool.shutdown(wait=False, cancel_futures=True)
            self._writer.close()

    def _wait_for_graph(self, stop: threading.Event) -> bool:
        attempt = 0
        while not stop.is_set():
            try:
                self._writer.check()
            except GraphUnavailable as error:
                attempt += 1
                self._trouble = str(error)
                stop.wait(backoff_s(attempt, jitter=1.0))
            else:
                self._trouble = ""
                return True
        return False

    def _serve(self, stop: threading.Event, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._publisher = Publisher(self._settings.kafka, self._name)
        self._books = Bookkeeper(
            self._settings.kafka, self._publisher, fingerprints=self._settings.ingestion.fingerprints
        )
        self._consumer = GroupConsumer(
            self._settings.kafka,
            topic=self._topics.data.name,
            group=group(self._settings.kafka, "ingestion"),
            name=self._name,
            on_assigned=self._on_assigned,
            on_revoked=self._on_revoked,
        )
        self._cancels.start()
        try:
            if self._cancels.wait_until_known(stop):
                self._loop(stop)
        finally:
            self._stopping.set()
            self._cancels.close()
            try:
                self._consumer.close()
            finally:
                self._publisher.close()

    def _loop(self, stop: threading.Event) -> None:
        deadline_s = float("inf")
        while True:
            if stop.is_set() and not self._draining:
                self._draining = True
                deadline_s = time.monotonic() + self._settings.ingestion.drain_s
            self._advance()
            if self._draining and (self._under_way is None or time.monotonic() > deadline_s):
                return
            self._hold_back()
            message = self._consumer.poll(self._poll_s())
            if message is not None and message.partition in self._partitions:
                self._later.append(message)
            while self._later and not self._draining and self._may_take(self._later[0]):
                self._take(self._later.popleft())

    def _poll_s(self) -> float:
        if self._under_way is not None or self._draining:
            return _POLL_BUSY_S
        due_ms = self._batcher.due_in_ms(_now_ms())
        return _POLL_IDLE_S if due_ms is None else min(_POLL_IDLE_S, due_ms / 1000)

    def _hold_back(self) -> None:
        """Takes no more while enough is held, or nothing more is wanted, and goes on after that."""
        if self._draining or self._batcher.full or self._later:
            self._consumer.hold()
        elif self._batcher.has_room:
            self._consumer.go_on()

    # ---- what comes in -----------------------------------------------------------------------------------------

    def _may_take(self, message: Message) -> bool:
        """Not while one is in hand that must be alone, nor one of these beside others."""
        if self._alone is not None:
            return False
        return not self._deaths.is_alone(message.place) or not (self._under_way or len(self._batcher))

    def _take(self, message: Message) -> None:
        """Kafka knows of the message before it is looked at: should this process die of it."""
        place = message.place
        self._in_hand.deliver(place)
        if self._deaths.is_refused(place):
            reason = (
                f"The process that had it in hand died {self._deaths.of(place)} times, the last time of it alone "
                f"({variable('ingestion', 'deaths_max')}). The logs of workers and machine may say why; "
                "`cartoray dlq replay` repeats it."
            )
            _acknowledged(self._refuse(message, reason))
            self._done([place])
            return
        if self._deaths.is_alone(place):
            self._alone = place
            self._deaths.begin([place])
            self._in_hand.commit(self._consumer, [message.partition])
        elif not self._deaths.has_begun(place):
            self._deaths.begin_from(place, _ANNOUNCED)
            self._in_hand.commit(self._consumer, [message.partition])
        try:
            item = _decode(message, self._settings.kafka.signing_key)
        except Exception as error:
            if not isinstance(error, UnreadableMessage):  # a bug: one message must not end a member after the other
                log.exception("decoding_failed partition=%d offset=%d", message.partition, message.offset)
            _acknowledged(self._refuse(message, str(error) or type(error).__name__))
            self._done([place])
        else:
            self._batcher.add(item, _now_ms())

    def _on_assigned(self, partitions: list[int]) -> None:
        self._partitions |= set(partitions)
        self._sight = FirstSight()
        self._in_hand.assigned(self._consumer, partitions)

    def _on_revoked(self, partitions: list[int]) -> None:
        """Lets what is under way come to its end within a deadline, commits what is done, forgets the rest."""
        under_way = self._under_way
        if under_way and any(item.message.partition in partitions for item in under_way.batch.items):
            wait([under_way.future], _ABANDON_S if self._stopping.is_set() else self._settings.ingestion.drain_s)
            if not under_way.future.done():
                under_way.abandon.set()  # rolled back before its commit, so that it cannot overtake the next owner's
                wait([under_way.future], timeout=_ABANDON_S)
            if under_way.future.done() and under_way.future.exception() is None:
                self._complete([item.message.place for item in under_way.batch.items])
        self._partitions -= set(partitions)
        self._batcher.forget(partitions)
        self._later = deque(message for message in self._later if message.partition not in partitions)
        if self._alone is not None and self._alone[0] in partitions:
            self._alone = None
        self._in_hand.revoked(self._consumer, partitions)

    # ---- what goes out -----------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Ends the batch under way if it is done, and starts the next one if one is due."""
        done = self._under_way
        if done is not None:
            if not done.future.done():
                return
            self._under_way = None
            try:
                done.future.result()
            except Abandoned:
                kept = tuple(item for item in done.batch.items if item.message.partition in self._partitions)
                self._batcher.put_back(Batch(kept, done.batch.reason), _now_ms())
                done = None
        self._batcher.resize(self._pace.rows)
        batch = self._batcher.take(_now_ms(), rest=self._draining)
        if batch is not None:
            abandon = threading.Event()
            landed = self._pool.submit(self._land, batch, abandon, self._sight)
            self._under_way = _UnderWay(batch, landed, abandon)
        if done is not None:  # after the next one was started: the writer need not wait for Kafka's answer
            self._done([item.message.place for item in done.batch.items])  # 3

    def _done(self, places: list[Place]) -> None:
        self._complete(places)
        self._in_hand.commit(self._consumer, {partition for partition, _ in places})

    def _complete(self, places: list[Place]) -> None:
        self._in_hand.complete(places)
        if self._alone in places:
            self._alone = None

    def _land(self, batch: Batch, abandon: threading.Event, sight: FirstSight) -> None:
        """Runs in the writer thread. Raises what `Landing` raises, and KafkaUnavailable."""

        wanted = tuple(item for item in batch.items if item.run_id not in self._cancels)
        if len(wanted) < len(batch.items):
            log.info("left_out messages=%d reason=their run was cancelled", len(batch.items) - len(wanted))
            batch = Batch(wanted, batch.reason)
        if not wanted:
            return

        def pause(delay_s: float) -> bool:
            return abandon.wait(delay_s) or self._stopping.is_set()

        landing = Landing(
            self._writer,
            Attempts(self._settings.ingestion.retries_max, pause, self._note),
            self._read,
            lambda: abandon.is_set() or self._stopping.is_set(),
            sight=sight,
            seen=self._seen,
            books=self._books,
            pace=self._pace,
        )
        if batch.step is not None:
            step_landed = landing.step(batch.step.step, _now_ms)  # 1
            self._on_point("after_write")
            reports = [self._publish(step_landed)]
        elif batch.queries:
            answers = landing.queries(batch.queries, _now_ms)  # 1
            self._on_point("after_write")
            reports = []
            for item, answer in zip(batch.queries, answers, strict=True):
                reports += self._refuse(item.message, answer) if isinstance(answer, str) else [self._publish(answer)]
        else:
            outcomes = landing.rows(batch.rows)  # 1
            self._rows_unchanged = self._writer.rows_unchanged
            self._rows_recognised = self._writer.rows_recognised
            self._on_point("after_write")
            reports = [self._publish(event) for event in _events(batch.rows, outcomes, _now_ms())]
            for rows in batch.rows:
                outcome = outcomes[rows.message.place]
                if isinstance(outcome, str):
                    reports += self._refuse(rows.message, outcome)
                else:
                    self._rows_landed += len(rows.rows)
        _acknowledged((*reports, *self._books.count(self._writer.commits)))  # 2
        self._on_point("after_report")

    def _note(self, trouble: str) -> None:
        self._trouble = trouble

    def _read(self, at: Iterable[Place]) -> Iterator[Message]:
        return read_at(self._settings.kafka, self._topics.data.name, at)

    def _publish(self, event: Event) -> Report:
        value = event.model_dump_json().encode()
        return self._publisher.publish(self._topics.events.name, key_of(event).encode(), value)

    def _refuse(self, message: Message, reason: str) -> list[Report]:
        """To the dead letters, bytes as they were; and to the run that it is of, if its headers still say which."""
        reason = reason[:REASON_MAX]
        log.warning("message_refused partition=%d offset=%d reason=%s", message.partition, message.offset, reason)
        self._messages_refused += 1
        reports = [self._publisher.bury(self._topics.dead_letters.name, message, reason)]
        if (event := _refusal(message, reason)) is not None:
            reports.append(self._publish(event))
        return reports


def _acknowledged(reports: Iterable[Report]) -> None:
    """Returns when Kafka has them all. Raises KafkaUnavailable."""
    for report in reports:
        report.result()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _decode(message: Message, signing_key: SecretStr | None) -> Item:
    """Raises UnreadableMessage."""
    match kind_of(message.headers):
        case "rows":
            return decode(message)
        case "step":
            return StepItem(message, decode_step(message.value))
        case "query":
            if signing_key is not None:
                check_signature(signing_key.get_secret_value(), message.headers, message.value)
            item = QueryItem(message, origin(message.headers), decode_query(message.value))
            kept(item)  # by now, what cannot be bound to its account is refused alone
            return item


def _refusal(message: Message, reason: str) -> Event | None:
    headers = {name: value.decode("utf-8", "replace") for name, value in message.headers.items()}
    run_id = headers.get("run")
    if not run_id:
        return None
    with suppress(ValueError):  # a job of that name there cannot be
        return _told(run_id, headers, reason)
    return None


def _told(run_id: str, headers: dict[str, str], reason: str) -> Event | None:
    if "step" in headers:
        return StepLanded(run_id=run_id, step_id=headers["step"], at_ms=_now_ms(), reason=reason)
    if headers.get("job") and headers.get("attempt") and headers.get("sequence", "").isdecimal():
        return MessageRefused(
            run_id=run_id,
            job_id=headers["job"],
            attempt=headers["attempt"],
            sequence=int(headers["sequence"]),
            reason=reason,
        )
    return None


def _events(items: Iterable[RowsItem], outcomes: Mapping[Place, Outcome], at_ms: int) -> Iterator[BatchLanded]:
    """One per job and attempt of a batch, without what was refused."""
    landed: dict[tuple[str, str, str], list[tuple[RowsItem, Landed]]] = {}
    for item in items:
        if not isinstance(outcome := outcomes[item.message.place], str):
            header = item.header
            landed.setdefault((header.run_id, header.job_id, header.attempt), []).append((item, outcome))
    for (run_id, job_id, attempt), members in landed.items():
        members.sort(key=lambda member: member[0].header.sequence)
        yield BatchLanded(
            run_id=run_id,
            job_id=job_id,
            attempt=attempt,
            sequences=tuple(item.header.sequence for item, _ in members),
            rows=tuple(len(item.rows) for item, _ in members),
            at_ms=at_ms,
            deferrals=tuple(deferral for _, outcome in members for deferral in outcome.deferrals),
            untouched=tuple(item.message.place for item, outcome in members if outcome.untouched),
        )
