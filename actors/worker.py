"""From `intel_jobs` to `graph_data`: one member of the intel pool. One thread owns the consumer, one each a job.

A job goes this way, and dying between any two steps repeats it and loses nothing:

    1  started           its run is told
    2  extracted         pages of all regions at once; every message published, but none before the jobs that this one
                         must not overtake have ended (they stand earlier in the same partition). Or, for a wrapped
                         module, Cartography's own code was run, its writes published. Rows wait while ingestion is too
                         far behind
    3  acknowledged      Kafka has all its messages
    4  ended             its run is told how many there were, and Kafka has that as well
    5  forgotten         its offset committed, as soon as those before it are
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial

from pydantic import ValidationError

from actors.cloud import Cloud
from actors.extraction import Extracted, Extraction
from actors.lag_gate import LagGate
from actors.modules import NativeModule, modules
from actors.outbox import Outbox, Report
from actors.transforms import load_transforms
from actors.turns import Turns, slots
from actors.wrapped.job import WrappedJob
from actors.wrapped.process import TRACEBACK_MAX, run_in_process
from actors.wrapped.session import GraphDriver
from cartoray.cancels import Cancels
from cartoray.dead_letters import REASON_MAX
from cartoray.errors import (
    CartorayError,
    JobTimedOut,
    KafkaRefused,
    KafkaUnavailable,
    UnknownModule,
    UnreadableMessage,
)
from cartoray.events import Event, JobEnded, JobStarted, Place, key_of
from cartoray.in_hand import InHand
from cartoray.jobs import Job, job_id
from cartoray.kafka import GroupConsumer, Publisher
from cartoray.messages import Message
from cartoray.planning import unknown_module
from cartoray.redaction import redaction
from cartoray.settings import Settings, variable
from cartoray.topics import group, topics
from cartoray.wire import RowsHeader, rows_headers

log = logging.getLogger(__name__)

_SEEN_MAX = 10_000  # jobs that ended here
_CLAIMS_MAX = 2_000  # jobs taken and not ended; so many are looked at for one that is urgent, or another account's
_POLL_BUSY_S = 0.02  # an ended job waits at most so long for its commit
_POLL_IDLE_S = 0.2
_REVOKED_S = 5.0  # for jobs to end before their partitions go; most do, and those that do not are repeated elsewhere
_WAITING_MAX = 4  # for each call that is under way, so many threads: most wait where an account is asked too often
_ABANDON_S = 2.0  # for a job to notice that nobody waits for it


class Abandoned(Exception):
    """Nobody here wants the job any more: it will be delivered again, to whoever has its partition."""


class Cancelled(Exception):
    """The job's run was: it ends where it is, and its run is told."""


@dataclass(frozen=True)
class WorkerStatus:
    """What a member is doing. `jobs`: account and module of those under way, and for how many seconds; `jobs_waiting`
    were taken, and have not begun.

    `trouble`: why they wait at this moment.
    """

    pid: int
    partitions: tuple[int, ...] = ()
    jobs: tuple[tuple[str, str, float], ...] = ()
    jobs_waiting: int = 0
    jobs_ended: int = 0
    rows_published: int = 0
    draining: bool = False
    trouble: str = ""


@dataclass
class _Claim:
    """A job that this member has taken; `earlier` ones must not be overtaken by its data."""

    message: Message
    job: Job
    earlier: list[Future[None]]
    began_s: float = 0.0
    future: Future[None] = field(default_factory=Future)  # done when the job has ended
    abandon: threading.Event = field(default_factory=threading.Event)


class Worker:
    """`run` blocks until it is stopped or cannot go on; `status` from any thread.

    `on_point(name)` is called in a job's thread after the steps 1 to 4 ("after_start", "after_extract",
    "after_acknowledge", "after_end"), for tests that kill there.
    """

    def __init__(
        self,
        settings: Settings,
        name: str,
        cloud: Cloud,
        *,
        known: Mapping[str, NativeModule] | None = None,
        on_point: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._settings, self._name, self._cloud = settings, name, cloud
        self._known = modules() if known is None else known
        self._on_point = on_point
        self._hide = redaction(settings)
        self._topics = topics(settings.kafka)
        # people read it: which actor, on which machine, in which process
        self._actor = f"{name}@{socket.gethostname()}:{os.getpid()}"
        self._gate = LagGate(settings)
        self._cancels = Cancels(settings.kafka, name)
        self._in_hand = InHand(settings.intel.deaths_max)
        self._deaths = self._in_hand.deaths
        self._partitions: set[int] = set()
        self._claims: dict[Place, _Claim] = {}  # jobs that have not ended, in order of delivery
        self._taken: dict[str, _Claim] = {}  # the same by job
        self._stopping = False  # what is under way has had its time
        self._draining = False
        self._seen: OrderedDict[str, None] = OrderedDict()  # jobs that ended here: two coordinators may release one
        self._making = threading.Lock()
        self._graph_driver: GraphDriver | None = None
        self._broken: BaseException | None = None  # what a job could not be brought to its end for
        self._jobs_ended = self._rows_published = 0

    def status(self) -> WorkerStatus:
        now_s = time.monotonic()
        claims = list(self._claims.values())
        running = [claim for claim in claims if claim.future.running()]
        return WorkerStatus(
            pid=os.getpid(),
            partitions=tuple(sorted(self._partitions)),
            jobs=tuple((claim.job.account.id, claim.job.module, round(now_s - claim.began_s, 1)) for claim in running),
            jobs_waiting=len(claims) - len(running),
            jobs_ended=self._jobs_ended,
            rows_published=self._rows_published,
            draining=self._draining,
            trouble=self._gate.trouble if claims else "",
        )

    # ---- the life of the member --------------------------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        """Works until `stop`, then finishes what is under way within `intel.drain_s`, and leaves the group.

        Raises KafkaUnavailable when the clients cannot go on, and KafkaRefused. A Kafka that is away for a while is
        waited for.
        """
        load_transforms()  # before there are jobs, whose threads would all wait for it
        limits = self._settings.intel
        at_once = slots(limits.jobs_per_actor)
        self._turns: Turns[Place] = Turns(at_once)
        self._jobs = ThreadPoolExecutor(at_once.all + at_once.urgent, thread_name_prefix="job")
        threads = limits.calls_per_actor * _WAITING_MAX
        self._calls = ThreadPoolExecutor(threads, thread_name_prefix="call")
        self._publisher = Publisher(self._settings.kafka, self._name)
        self._consumer = GroupConsumer(
            self._settings.kafka,
            topic=self._topics.jobs.name,
            group=group(self._settings.kafka, "intel"),
            name=self._name,
            on_assigned=self._on_assigned,
            on_revoked=self._on_revoked,
        )
        self._gate.start()
        self._cancels.start()
        try:
            if self._cancels.wait_until_known(stop):
                self._loop(stop)
        finally:
            self._stopping = True
            self._abandon(list(self._claims.values()))
            for pool in (self._jobs, self._calls):
                pool.shutdown(wait=False, cancel_futures=True)
            self._gate.close()
            self._cancels.close()
            try:
                self._consumer.close()
            finally:
                self._publisher.close()
                if self._graph_driver is not None:
                    self._graph_driver.close()

    def _loop(self, stop: threading.Event) -> None:
        deadline_s = float("inf")
        while True:
            if stop.is_set() and not self._draining:
                self._draining = True
                deadline_s = time.monotonic() + self._settings.intel.drain_s
            self._collect()
            if self._broken is not None:
                raise self._broken
            if self._draining and (not self._turns.running or time.monotonic() > deadline_s):
                return
            self._start()
            self._hold_back()
            message = self._consumer.poll(_POLL_BUSY_S if self._claims else _POLL_IDLE_S)
            if message is not None and not self._draining and message.partition in self._partitions:
                self._take(message)

    def _hold_back(self) -> None:
        """Takes no more while it has many, and goes on with half of them."""
        if self._draining or len(self._claims) >= _CLAIMS_MAX:
            self._consumer.hold()
        elif len(self._claims) <= _CLAIMS_MAX // 2:
            self._consumer.go_on()

    def _start(self) -> None:
        """Jobs whose turn it is. Kafka has their names before they begin: should this process die of one of them."""
        places = []
        while not self._draining and (place := self._turns.take()) is not None:
            places.append(place)
        if not places:
            return
        self._deaths.begin(places)
        self._in_hand.commit(self._consumer, {partition for partition, _ in places})
        for place in places:
            self._claims[place].began_s = time.monotonic()
            self._jobs.submit(self._run, self._claims[place])

    # ---- what comes in -----------------------------------------------------------------------------------------

    def _take(self, message: Message) -> None:
        self._in_hand.deliver(message.place)
        try:
            job = _decode(message)
        except UnreadableMessage as error:
            self._refuse(message, str(error))
            return
        if job.job_id in self._seen or job.job_id in self._taken:
            log.info("job_repeated job=%s", job.job_id)
            self._done([message.place])
            return
        if self._deaths.is_refused(message.place):
            self._refuse(
                message,
                f"Its worker's process died {self._deaths.of(message.place)} times while it was under way, the last "
                f"time alone ({variable('intel', 'deaths_max')}). The logs of workers and machine may say of what; "
                "`cartoray dlq replay` repeats it.",
            )
            return
        before = (job_id(job.run_id, job.account.id, module) for module in job.after)
        claim = _Claim(message, job, [self._taken[each].future for each in before if each in self._taken])
        self._claims[message.place] = self._taken[job.job_id] = claim
        self._turns.add(
            message.place,
            run=job.run_id,
            account=job.account.id,
            urgent=job.priority == "high",
            alone=self._deaths.is_alone(message.place),
        )

    def _forget(self, place: Place) -> _Claim | None:
        claim = self._claims.pop(place, None)
        if claim is not None:
            del self._taken[claim.job.job_id]
            self._turns.ended(place)
        return claim

    def _refuse(self, message: Message, reason: str) -> None:
        """To the dead letters; and to its run, if the job still says which: a run must not wait for it for ever."""
        reason = reason[:REASON_MAX]
        log.warning("job_refused partition=%d offset=%d reason=%s", message.partition, message.offset, reason)
        reports = [self._publisher.bury(self._topics.dead_letters.name, message, reason)]
        if (event := _refusal(message, reason)) is not None:
            reports.append(self._publish(event))
        for report in reports:
            report.result()
        self._done([message.place])

    def _on_assigned(self, partitions: list[int]) -> None:
        self._partitions |= set(partitions)
        self._in_hand.assigned(self._consumer, partitions)

    def _on_revoked(self, partitions: list[int]) -> None:
        """Gives jobs a moment to end, commits what is done, and forgets the rest."""
        going = [claim for claim in self._claims.values() if claim.message.partition in partitions]
        if not self._stopping:
            wait([claim.future for claim in going if claim.future.running()], _REVOKED_S)
        self._abandon([claim for claim in going if not claim.future.done()])
        self._collect()
        for claim in going:
            self._forget(claim.message.place)
        self._partitions -= set(partitions)
        self._in_hand.revoked(self._consumer, partitions)

    def _abandon(self, claims: list[_Claim]) -> None:
        for claim in reversed(claims):  # the later first: none may take the end of an earlier one for its turn
            claim.abandon.set()
        for claim in claims:
            claim.future.cancel()
            if claim.future.cancelled():
                claim.future.set_running_or_notify_cancel()  # so that it counts as done for who waits
        wait([claim.future for claim in claims], _ABANDON_S)

    # ---- what goes out -----------------------------------------------------------------------------------------

    def _collect(self) -> None:
        """Jobs that have ended: step 5. Does not raise, since librdkafka would lose an error of `_on_revoked`."""
        ended = [place for place in self._turns.running if self._claims[place].future.done()]
        done: list[Place] = []
        for claim in filter(None, map(self._forget, ended)):
            error = CancelledError() if claim.future.cancelled() else claim.future.exception()
            if error is None:
                self._jobs_ended += 1
                self._seen[claim.job.job_id] = None
                if len(self._seen) > _SEEN_MAX:
                    self._seen.popitem(last=False)
                done.append(claim.message.place)
            elif not claim.abandon.is_set():  # else its partition goes, or this member does
                self._broken = error
        if done:
            self._done(done)

    def _done(self, places: list[Place]) -> None:
        self._in_hand.complete(places)
        self._in_hand.commit(self._consumer, {partition for partition, _ in places})

    def _run(self, claim: _Claim) -> None:
        """In a thread of the job's own."""
        if claim.future.cancelled() or not claim.future.set_running_or_notify_cancel():
            return
        try:
            self._work(claim.job, secrets.token_hex(6), claim.abandon, claim.earlier)
        except BaseException as error:  # noqa: BLE001 - whoever collects it decides
            claim.future.set_exception(error)
        else:
            claim.future.set_result(None)

    def _work(self, job: Job, attempt: str, abandon: threading.Event, earlier: list[Future[None]]) -> None:
        """Runs in a job's thread. Raises Abandoned and KafkaUnavailable; whatever else happens is the job's end.

        Of a run that was cancelled before, only the end is told.
        """
        limits = self._settings.intel
        began_s, counted_from_s = time.monotonic(), self._gate.clock_s()

        def check() -> None:
            if abandon.is_set():
                raise Abandoned
            if job.run_id in self._cancels:
                raise Cancelled
            if self._gate.clock_s() - counted_from_s > limits.job_timeout_s:
                setting = variable("intel", "job_timeout_s")
                raise JobTimedOut(f"It took more than {limits.job_timeout_s:g} s ({setting}).")

        if abandon.is_set():
            raise Abandoned
        name = {"run_id": job.run_id, "job_id": job.job_id, "attempt": attempt}
        if job.run_id not in self._cancels:
            self._publish(JobStarted(**name, actor=self._actor, at_ms=_now_ms()))  # 1
        self._on_point("after_start")
        found, acknowledged = self._extract(job, attempt, earlier, check)  # 2
        self._on_point("after_extract")
        messages = acknowledged()  # 3
        self._on_point("after_acknowledge")
        event = JobEnded(
            **name,
            outcome=found.outcome,
            messages=messages,
            rows=found.rows,
            calls=found.calls,
            duration_ms=int((time.monotonic() - began_s) * 1000),
            at_ms=_now_ms(),
            reason=self._hide(" ".join(found.reason.split()))[:REASON_MAX],
            traceback=self._hide(found.traceback),
            skipped_regions=tuple(sorted(found.skipped_regions)),
        )
        self._publish(event).result()  # 4
        self._rows_published += found.rows
        log.info(
            "job_ended job=%s outcome=%s rows=%d calls=%d ms=%d reason=%s",
            *(job.job_id, event.outcome, event.rows, event.calls, event.duration_ms, event.reason),
        )
        self._on_point("after_end")

    def _extract(
        self, job: Job, attempt: str, earlier: list[Future[None]], check: Callable[[], None]
    ) -> tuple[Extracted, Callable[[], int]]:
        """What was found, and how to wait for the messages that were sent: it answers how many they are."""
        found = Extracted()

        def acknowledged() -> int:
            return 0

        try:
            check()
            if job.provider != "aws":
                outcome = run_in_process(self._settings, job, attempt, check)
                found = Extracted(rows=outcome.rows, broken=outcome.broken, traceback=outcome.traceback)
                return found, lambda: outcome.messages
            if job.wrapped:
                wrapped = WrappedJob(job, attempt=attempt, cloud=self._cloud, graph=self._graph(), check=check)
                found, acknowledged = wrapped.found, wrapped.acknowledged
                wrapped.run()
                return found, acknowledged
            if job.module not in self._known:
                raise UnknownModule(unknown_module(job.module, self._known))
            outbox = Outbox(partial(self._send, job, check), earlier, check)
            acknowledged = outbox.acknowledged
            extraction = Extraction(
                job,
                self._known[job.module],
                attempt=attempt,
                cloud=self._cloud,
                calls=self._calls,
                check=check,
                bytes_max=self._settings.kafka.message_bytes_max,
            )
            found = extraction.found
            extraction.run(outbox.publish)
            outbox.release()
        except (Abandoned, KafkaRefused, KafkaUnavailable):
            raise
        except Cancelled:
            found.cancelled = True
        except CartorayError as error:
            found.broken = str(error)
        except Exception as error:  # a bug, or an answer of a form that nobody expected: this job's alone
            log.exception("job_failed job=%s", job.job_id)
            found.broken = f"{type(error).__name__}: {error}"
            found.traceback = traceback.format_exc()[-TRACEBACK_MAX:]
        return found, acknowledged

    def _graph(self) -> GraphDriver:
        """What sessions of wrapped modules share; made for the first of them."""
        with self._making:
            if self._graph_driver is None:
                self._graph_driver = GraphDriver(self._settings, self._name, self._gate)
            return self._graph_driver

    def _send(self, job: Job, check: Callable[[], None], header: RowsHeader, value: bytes) -> Report:
        self._gate.admit(check)
        return self._publisher.publish(self._topics.data.name, job.account.id.encode(), value, rows_headers(header))

    def _publish(self, event: Event) -> Report:
        value = event.model_dump_json().encode()
        return self._publisher.publish(self._topics.events.name, key_of(event).encode(), value)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _decode(message: Message) -> Job:
    """Raises UnreadableMessage."""
    try:
        return Job.model_validate_json(message.value)
    except ValidationError as error:
        raise UnreadableMessage(f"Not a job that this release knows: {_first(error)}.") from None


def _first(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in found["loc"])
    return f"{place}: {found['msg']}" if place else found["msg"]


def _refusal(message: Message, reason: str) -> JobEnded | None:
    """The end of a job that could not be read, if it says whose it is."""
    try:
        job = json.loads(message.value)
        run_id = job["run_id"]
        return JobEnded(
            run_id=run_id,
            job_id=job_id(run_id, job["account"]["id"], job["module"]),
            attempt="refused",
            outcome="failed",
            messages=0,
            rows=0,
            calls=0,
            duration_ms=0,
            at_ms=_now_ms(),
            reason=reason,
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
