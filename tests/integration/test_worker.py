"""From a real `intel_jobs` to a real `graph_data`: no job is lost, whatever dies, and none holds up the others.

The cloud is in memory, and a module's operation is its name, so that a test can hold up one module of one account.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from cartography.models.aws.ec2.reservations import EC2ReservationSchema

from actors.modules import Call, Item, NativeModule, Place, Shape, Shaped, Table
from actors.worker import Worker
from cartoray.cancels import publish_cancel
from cartoray.dead_letters import read_dead_letter
from cartoray.errors import CloudDenied
from cartoray.events import EVENT, Event, JobEnded, JobStarted, RunCancelled
from cartoray.jobs import Account, Job
from cartoray.kafka import Admin, GroupConsumer, Publisher, read_all
from cartoray.messages import Message
from cartoray.settings import Settings
from cartoray.topics import Topics, group, topics
from cartoray.wire import decode_rows, rows_header

pytestmark = pytest.mark.stack

Check = Callable[[], None]

ONE, TWO, THREE = "111111111111", "222222222222", "333333333333"
REGIONS = ("eu-west-1", "us-east-1")
PAGES = 3  # of each region; a page has one item, and gives one message of one row
TAG = 1_700_000_000


def shape(items: list[Item], _: Place) -> Shaped:
    return {EC2ReservationSchema: [{"ReservationId": item["id"], "OwnerId": item["owner"]} for item in items]}


def broken(items: list[Item], place: Place) -> Shaped:
    return {EC2ReservationSchema: [{"ReservationId": item["no such key"]} for item in items]}


def fake(name: str, of: Shape = shape) -> NativeModule:
    fetch = Call("fake", name, "Items", page_size=1)
    return NativeModule(name=name, permissions=(), fetch=fetch, shape=of, tables=(Table(EC2ReservationSchema),))


KNOWN = {name: fake(name) for name in ("account", "first", "second", "third")} | {"broken": fake("broken", broken)}


class MemoryCloud:
    """Answers at once, but for those that a test holds up or lets fail: (account, module) → event or exception."""

    default_region = "us-east-1"

    def __init__(self) -> None:
        self.gates: dict[tuple[str, str], threading.Event] = {}
        self.errors: dict[tuple[str, str], Exception] = {}
        self.asked: Counter[tuple[str, str]] = Counter()  # regions that were begun
        self.answered: Counter[tuple[str, str]] = Counter()  # regions that were told to their end

    def regions(self, account: Account, role_name: str | None, check: Check) -> tuple[str, ...]:
        return REGIONS

    def pages(
        self, account: Account, role_name: str | None, region: str | None, call: Call, check: Check
    ) -> Iterator[list[Item]]:
        place = (account.id, call.operation)
        self.asked[place] += 1
        if place in self.errors:
            raise self.errors[place]
        while place in self.gates and not self.gates[place].wait(0.05):
            check()
        for page in range(PAGES):
            check()
            yield [{"id": f"{account.id}/{call.operation}/{region}/{page}", "owner": account.id}]
        self.answered[place] += 1


def wanted(account: str, module: str) -> set[str]:
    return {f"{account}/{module}/{region}/{page}" for region in REGIONS for page in range(PAGES)}


@dataclass(frozen=True)
class Sent:
    """A message on `graph_data`."""

    job_id: str
    attempt: str
    sequence: int
    ids: tuple[str, ...]
    place: tuple[int, int]


class Bench:
    """Topics of its own, a publisher, and what came of it."""

    def __init__(self, settings: Settings, **intel: Any) -> None:
        prefix = f"t{secrets.token_hex(4)}."
        kafka = settings.kafka.model_copy(update={"topic_prefix": prefix, "jobs_partitions": 2, "data_partitions": 2})
        limits = settings.intel.model_copy(update={"jobs_per_actor": 6, "calls_per_actor": 8} | intel)
        self.settings = settings.model_copy(update={"kafka": kafka, "intel": limits})
        self.topics: Topics = topics(kafka)
        Admin(kafka).ensure(self.topics)
        self.publisher = Publisher(kafka, "test")
        self.cloud = MemoryCloud()
        self.errors: list[BaseException] = []  # of members that ended by one

    def publish(self, *jobs: Job | bytes, key: str = ONE) -> list[tuple[int, int]]:
        """Places that Kafka gave them."""
        messages = [
            (job.account.id, job.model_dump_json().encode()) if isinstance(job, Job) else (key, job) for job in jobs
        ]
        futures = [self.publisher.publish(self.topics.jobs.name, key.encode(), value) for key, value in messages]
        return [future.result(30) for future in futures]

    def events(self) -> list[Event]:
        return [EVENT.validate_json(each.value) for each in read_all(self.settings.kafka, self.topics.events.name)]

    def started(self) -> Counter[str]:
        return Counter(event.job_id for event in self.events() if isinstance(event, JobStarted))

    def ended(self) -> dict[str, list[JobEnded]]:
        found = defaultdict(list)
        for event in self.events():
            if isinstance(event, JobEnded):
                found[event.job_id].append(event)
        return dict(found)

    def sent(self) -> list[Sent]:
        found = []
        for message in read_all(self.settings.kafka, self.topics.data.name):
            header = rows_header(message.headers)
            ids = tuple(decode_rows(message.value)["ReservationId"])
            place = (message.partition, message.offset)
            found.append(Sent(header.job_id, header.attempt, header.sequence, ids, place))
        return found

    def dead_letters(self) -> list[Message]:
        return list(read_all(self.settings.kafka, self.topics.dead_letters.name))

    def until(self, enough: Callable[[], bool]) -> None:
        """Returns then. Fails after a minute, or when a member has ended by an error."""
        deadline = time.monotonic() + 60
        while not enough():
            assert not self.errors, self.errors
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def until_ended(self, *jobs: Job) -> dict[str, list[JobEnded]]:
        names = {job.job_id for job in jobs}
        self.until(lambda: names <= self.ended().keys())
        return self.ended()

    def whole(self, *jobs: Job) -> None:
        """Each job ended, and everything that its end announces is in Kafka."""
        ended, sent = self.ended(), self.sent()
        for job in jobs:
            for end in ended[job.job_id]:
                mine = [each for each in sent if (each.job_id, each.attempt) == (job.job_id, end.attempt)]
                assert sorted(each.sequence for each in mine) == list(range(end.messages)), (job.job_id, end)
                if end.outcome == "finished":
                    assert {id_ for each in mine for id_ in each.ids} == wanted(job.account.id, job.module)

    def worker(self, name: str = "intel-0", on_point: Callable[[str], None] = lambda _: None) -> Worker:
        return Worker(self.settings, name, self.cloud, known=KNOWN, on_point=on_point)

    @contextmanager
    def running(self, name: str = "intel-0", on_point: Callable[[str], None] = lambda _: None) -> Iterator[Worker]:
        """A member at work; leaving drains it."""
        worker, stop = self.worker(name, on_point), threading.Event()

        def run() -> None:
            try:
                worker.run(stop)
            except BaseException as error:  # noqa: BLE001 - told in the test's own thread
                self.errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield worker
        finally:
            stop.set()
            thread.join(60)
            assert not thread.is_alive()
        assert not self.errors, self.errors

    @contextmanager
    def landing(self) -> Iterator[None]:
        """What is on `graph_data` counts as landed: its offsets are committed, as ingestion does."""
        ended = threading.Event()

        def run() -> None:
            consumer = GroupConsumer(
                self.settings.kafka,
                topic=self.topics.data.name,
                group=group(self.settings.kafka, "ingestion"),
                name="ingestion-0",
                on_assigned=lambda _: None,
                on_revoked=lambda _: None,
            )
            while not ended.is_set():
                if (message := consumer.poll(0.1)) is not None:
                    consumer.commit({message.partition: message.offset + 1})
            consumer.close()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(30)


def job(module: str, account: str = ONE, *after: str, run: str = "run-1") -> Job:
    return Job(run_id=run, update_tag=TAG, account=Account(id=account), module=module, after=after)


@pytest.fixture
def bench(stack_settings: Settings) -> Iterator[Bench]:
    bench = Bench(stack_settings)
    yield bench
    for gate in bench.cloud.gates.values():
        gate.set()
    bench.publisher.close()


# ---- a job's way -------------------------------------------------------------------------------------------------


def test_a_job_becomes_messages_and_events_and_is_done_once(bench: Bench) -> None:
    jobs = [job("first"), job("second"), job("first", TWO)]
    bench.publish(*jobs)
    with bench.running() as worker:
        bench.until_ended(*jobs)
        bench.until(lambda: not worker.status().jobs)
        assert worker.status().partitions == (0, 1)
        assert (worker.status().jobs_ended, worker.status().rows_published) == (3, 18)
    bench.whole(*jobs)
    started = [event for event in bench.events() if isinstance(event, JobStarted)]
    assert {(event.job_id, event.actor.partition("@")[0]) for event in started} == {
        (each.job_id, "intel-0") for each in jobs
    }
    for end in (end for ends in bench.ended().values() for end in ends):
        assert (end.outcome, end.reason, end.messages, end.rows, end.calls) == ("finished", "", 6, 6, 6)
        assert end.attempt in {event.attempt for event in started if event.job_id == end.job_id}
    with bench.running("intel-1"):  # of the same group: the offsets are committed
        later = [job("third"), job("third", TWO)]
        bench.publish(*later)
        bench.until_ended(*later)
    assert set(bench.started().values()) == {1}
    assert bench.started().keys() == {each.job_id for each in (*jobs, *later)}


def test_a_message_goes_to_its_accounts_partition_in_order(bench: Bench) -> None:
    bench.publish(job("first"), job("first", TWO))
    with bench.running():
        bench.until_ended(job("first"), job("first", TWO))
    by_account = defaultdict(list)
    for each in bench.sent():
        by_account[each.job_id].append((each.place[1], each.sequence))
        assert each.ids[0].split("/")[0] == each.job_id.split("/")[1]
    for places in by_account.values():
        assert [sequence for _, sequence in sorted(places)] == list(range(6))


def test_a_job_publishes_only_when_those_it_must_not_overtake_have_ended(bench: Bench) -> None:
    earlier, later, other = job("first"), job("second", ONE, "account", "first"), job("third", TWO)
    gate = bench.cloud.gates[ONE, "first"] = threading.Event()
    with bench.running():
        bench.publish(earlier, later)
        bench.until(lambda: bench.cloud.answered[ONE, "second"] == len(REGIONS))  # it is asked for meanwhile
        bench.publish(other)
        bench.until_ended(other)  # by now it would be there, if it were not held back
        assert later.job_id not in {each.job_id for each in bench.sent()} | bench.ended().keys()
        gate.set()
        bench.until_ended(earlier, later)
    bench.whole(earlier, later, other)
    place = {each.job_id: each.place for each in bench.sent()}
    first = [each.place[1] for each in bench.sent() if each.job_id == earlier.job_id]
    second = [each.place[1] for each in bench.sent() if each.job_id == later.job_id]
    assert place[earlier.job_id][0] == place[later.job_id][0]
    assert max(first) < min(second)


@pytest.mark.parametrize("other", [job("second", TWO, "first"), job("second", ONE, "first", run="run-2")], ids=str)
def test_a_job_waits_for_none_of_another_account_or_run(bench: Bench, other: Job) -> None:
    gate = bench.cloud.gates[ONE, "first"] = threading.Event()
    with bench.running():
        bench.publish(job("first"), other)
        bench.until_ended(other)
        gate.set()
    bench.whole(other)


def test_more_jobs_than_threads_are_all_done(bench: Bench) -> None:
    accounts = [f"{number:012}" for number in range(1, 11)]
    jobs = [job(module, account) for account in accounts for module in ("account", "first", "second")]
    jobs = [
        each.model_copy(update={"after": ("account", "first")}) if each.module == "second" else each for each in jobs
    ]
    gate = bench.cloud.gates[accounts[0], "account"] = threading.Event()
    with bench.running() as worker:
        bench.publish(*jobs)
        bench.until(lambda: len(worker.status().jobs) > 1)
        gate.set()
        bench.until_ended(*jobs)
        bench.until(lambda: not worker.status().jobs)
        assert worker.status().jobs_ended == len(jobs)
    bench.whole(*jobs)
    assert set(bench.started().values()) == {1}


# ---- what goes wrong ---------------------------------------------------------------------------------------------


def test_a_job_that_fails_says_why_on_one_line_and_the_others_go_on(bench: Bench) -> None:
    failing, behind = job("first"), job("second", ONE, "first")
    bench.cloud.errors[ONE, "first"] = CloudDenied("The role cannot be assumed.\n  Create it.")
    bench.publish(failing, behind, job("first", TWO))
    with bench.running():
        ended = bench.until_ended(failing, behind, job("first", TWO))
    (end,) = ended[failing.job_id]
    assert (end.outcome, end.reason) == ("failed", "The role cannot be assumed. Create it.")
    assert (end.messages, end.rows) == (0, 0)
    assert {ended[each.job_id][0].outcome for each in (behind, job("first", TWO))} == {"finished"}
    bench.whole(behind, job("first", TWO))


def test_a_module_that_is_not_there_fails_its_job_with_the_nearest_names(bench: Bench) -> None:
    bench.publish(job("frist"), job("first"))
    with bench.running():
        ended = bench.until_ended(job("frist"), job("first"))
    (end,) = ended[job("frist").job_id]
    assert end.outcome == "failed"
    assert "'frist'" in end.reason
    assert "first" in end.reason
    bench.whole(job("first"))


def test_a_bug_in_a_module_fails_its_job_alone(bench: Bench) -> None:
    bench.publish(job("broken"), job("first"))
    with bench.running():
        ended = bench.until_ended(job("broken"), job("first"))
    (end,) = ended[job("broken").job_id]
    assert end.outcome == "failed"
    assert "KeyError" in end.reason
    assert "no such key" in end.reason
    bench.whole(job("first"))
    assert bench.started()[job("broken").job_id] == 1


NEWER = job("second").model_dump() | {"version": 2}
FOREIGN = job("second").model_dump() | {"added": "later"}
LONG = job("second").model_dump() | {"added" + "x" * 900_000: 1}  # whose name is part of the reason
SLASH = job("second").model_dump() | {"module": "a/b"}  # which no event can name
NAMELESS = job("second").model_dump() | {"module": ""}
TAG_BEYOND = job("second").model_dump() | {"update_tag": 2**63}


@pytest.mark.parametrize(
    "value",
    [
        b"\xff\xfe garbage",
        b"",
        b"[" * 100_000,
        b'{"run_id": "run-1"}',
        b'{"run_id": 5, "account": {"id": 7}, "module": [1]}',
        json.dumps(NEWER).encode(),
        json.dumps(FOREIGN).encode(),
        json.dumps(LONG).encode(),
        json.dumps(SLASH).encode(),
        json.dumps(NAMELESS).encode(),
        json.dumps(TAG_BEYOND).encode(),
    ],
    ids=[
        *("garbage", "empty", "deep", "no account", "wrong types", "newer", "unknown field"),
        *("long field", "slash", "no module", "tag beyond 64 bits"),
    ],
)
def test_bytes_that_are_no_job_go_to_the_dead_letters_and_hold_nothing_up(bench: Bench, value: bytes) -> None:
    before, behind = job("first"), job("third")
    places = bench.publish(before, value, behind)
    with bench.running() as worker:
        bench.until_ended(before, behind)
        bench.until(lambda: not worker.status().jobs)
    (dead,) = bench.dead_letters()
    letter = read_dead_letter(dead)
    assert (letter.topic, letter.partition, letter.offset) == (bench.topics.jobs.name, *places[1])
    assert letter.reason
    assert (dead.key, dead.value) == (ONE.encode(), value)
    refused = bench.ended().get(job("second").job_id, [])
    said = {json.dumps(NEWER): "version", json.dumps(FOREIGN): "added", json.dumps(LONG): "added"}
    said |= {json.dumps(TAG_BEYOND): "update_tag"}
    if (word := said.get(value.decode("utf-8", "replace"))) is not None:  # its run waits for it
        (end,) = refused
        assert (end.outcome, end.messages) == ("failed", 0)
        assert word in end.reason
    else:
        assert not refused
    with bench.running("intel-1"):  # it was not only stepped over: it is committed
        bench.publish(job("account"))
        bench.until_ended(job("account"))
    assert len(bench.dead_letters()) == 1


def test_a_job_that_takes_too_long_fails_and_names_the_setting(stack_settings: Settings) -> None:
    bench = Bench(stack_settings, job_timeout_s=1)
    bench.cloud.gates[ONE, "first"] = gate = threading.Event()
    bench.publish(job("first"), job("second"), job("third", ONE, "first"))
    with bench.running():
        ended = bench.until_ended(job("first"), job("second"), job("third"))
    gate.set()
    (end,) = ended[job("first").job_id]
    assert end.outcome == "failed"
    assert "CARTORAY_INTEL_JOB_TIMEOUT_S" in end.reason
    assert ended[job("second").job_id][0].outcome == "finished"
    bench.whole(job("second"))
    bench.publisher.close()


# ---- runs that are cancelled ---------------------------------------------------------------------------------------


def test_of_a_cancelled_run_what_is_under_way_ends_and_nothing_more_is_asked_for(bench: Bench) -> None:
    under_way, waiting = job("first"), [job("second", ONE, "first"), *(job("third", f"{n:012}") for n in range(1, 31))]
    other = job("first", TWO, run="run-2")
    for each in (under_way, *waiting[1:], other):  # `second` is asked for, and waits for `first` to publish
        bench.cloud.gates[each.account.id, each.module] = threading.Event()
    bench.publish(under_way, *waiting, other)
    with bench.running() as worker:
        bench.until(lambda: bench.cloud.answered[ONE, "second"] == len(REGIONS))
        bench.until(lambda: len(worker.status().jobs) == 6)
        publish_cancel(bench.settings.kafka, RunCancelled(run_id="run-1", at_ms=1))
        ended = bench.until_ended(under_way, *waiting)
        bench.cloud.gates[TWO, "first"].set()
        bench.until_ended(other)
        bench.until(lambda: not worker.status().jobs)
    assert {ended[each.job_id][0].outcome for each in (under_way, *waiting)} == {"cancelled"}
    started = bench.started()
    assert len(started.keys() - {other.job_id}) < 10, "those that waited have never begun"
    assert bench.cloud.answered.keys() == {(ONE, "second"), (TWO, "first")}
    bench.whole(under_way, *waiting, other)
    assert {each.job_id for each in bench.sent()} == {other.job_id}
    with bench.running("intel-1"):  # who comes later knows of it as well
        bench.publish(job("account"), job("account", TWO, run="run-2"))
        bench.until_ended(job("account"), job("account", TWO, run="run-2"))
    assert bench.ended()[job("account").job_id][0].outcome == "cancelled"
    assert bench.started()[job("account").job_id] == 0
    bench.whole(job("account", TWO, run="run-2"))


def test_what_a_cancelled_job_has_published_it_announces(bench: Bench) -> None:
    gate = bench.cloud.gates[ONE, "first"] = threading.Event()
    pages = bench.cloud.pages

    def all_but_a_page_hang(account: Account, role: str | None, region: str | None, call: Call, check: Check) -> Any:
        if region == REGIONS[0]:
            yield [{"id": "found", "owner": account.id}]
        yield from pages(account, role, region, call, check)

    bench.cloud.pages = all_but_a_page_hang  # type: ignore[method-assign]
    bench.publish(job("first"))
    with bench.running():
        bench.until(lambda: bool(bench.sent()))
        publish_cancel(bench.settings.kafka, RunCancelled(run_id="run-1", at_ms=1))
        (end,) = bench.until_ended(job("first"))[job("first").job_id]
    gate.set()
    assert (end.outcome, end.messages, end.rows) == ("cancelled", 1, 1)
    bench.whole(job("first"))


# ---- what waits for ingestion --------------------------------------------------------------------------------------


def test_rows_wait_while_ingestion_is_too_far_behind_and_go_on_when_it_has_caught_up(stack_settings: Settings) -> None:
    limit = 6
    bench = Bench(stack_settings, lag_messages_max=limit, job_timeout_s=2)
    jobs = [job("first", f"{number:012}") for number in range(1, 6)]  # 30 messages
    bench.publish(*jobs)
    with bench.running() as worker:
        bench.until(lambda: bool(worker.status().trouble))
        assert "CARTORAY_INTEL_LAG_MESSAGES_MAX is 6" in worker.status().trouble
        time.sleep(5)  # more than the jobs' time, and than two measurings
        assert limit <= len(bench.sent()) < 2 * limit
        assert len(worker.status().jobs) >= 4
        assert worker.status().trouble
        bench.publish(b"no job")  # it still takes what comes
        bench.until(lambda: bool(bench.dead_letters()))
        with bench.landing():
            bench.until_ended(*jobs)
        bench.until(lambda: not worker.status().jobs)
        assert not worker.status().trouble
    bench.whole(*jobs)
    assert {end.outcome for ends in bench.ended().values() for end in ends} == {"finished"}
    assert set(bench.started().values()) == {1}
    bench.publisher.close()


def test_a_member_whose_rows_wait_can_be_stopped(stack_settings: Settings) -> None:
    bench = Bench(stack_settings, lag_messages_max=1, drain_s=0.5)
    bench.publish(job("first"))
    with bench.running() as worker:
        bench.until(lambda: bool(worker.status().trouble))
        stopped_s = time.monotonic()
    assert time.monotonic() - stopped_s < 10
    assert not bench.ended()
    with bench.running("intel-1"), bench.landing():
        bench.until_ended(job("first"))
    bench.whole(job("first"))
    bench.publisher.close()


# ---- what dies ---------------------------------------------------------------------------------------------------


class Killed(BaseException):
    pass


def dying_at(point: str) -> Callable[[str], None]:
    def die(name: str) -> None:
        if name == point:
            raise Killed

    return die


@pytest.mark.parametrize("point", ["after_start", "after_extract", "after_acknowledge", "after_end"])
def test_a_death_between_two_steps_repeats_jobs_and_loses_none(bench: Bench, point: str) -> None:
    jobs = [job("first"), job("second", ONE, "first"), job("first", TWO), job("third", TWO), job("third", THREE)]
    bench.publish(*jobs)
    with pytest.raises(Killed):
        bench.worker("intel-0", dying_at(point)).run(threading.Event())
    assert bool(bench.ended()) == (point == "after_end")
    last = [job("account", account) for account in (ONE, TWO, THREE)]
    bench.publish(*last)
    with bench.running("intel-1") as worker:
        bench.until_ended(*jobs, *last)
        bench.until(lambda: not worker.status().jobs)
    again = {event.job_id for event in bench.events() if isinstance(event, JobStarted) and "intel-1@" in event.actor}
    assert again == {each.job_id for each in (*jobs, *last)}, "none had come to its end before"
    bench.whole(*jobs)
    assert {end.outcome for ends in bench.ended().values() for end in ends} == {"finished"}


def test_a_member_that_dies_with_several_jobs_at_once_leaves_nothing_running(bench: Bench) -> None:
    bench.publish(*(job(module, account) for module in ("first", "second") for account in (ONE, TWO, THREE)))
    with pytest.raises(Killed):
        bench.worker("intel-dead", dying_at("after_extract")).run(threading.Event())
    assert "intel-dead-producer" not in {thread.name for thread in threading.enumerate()}


def test_a_member_that_is_stopped_lets_end_what_is_under_way(bench: Bench) -> None:
    gate = bench.cloud.gates[ONE, "first"] = threading.Event()
    bench.publish(job("first"))
    worker, stop = bench.worker(), threading.Event()
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()
    bench.until(lambda: bench.cloud.asked[ONE, "first"] == len(REGIONS))
    stop.set()
    bench.until(lambda: worker.status().draining)
    bench.publish(job("second"))  # it takes no more
    assert thread.is_alive()
    gate.set()
    thread.join(60)
    assert not thread.is_alive()
    assert bench.ended().keys() == {job("first").job_id}
    with bench.running("intel-1"):
        bench.until_ended(job("second"))
    bench.whole(job("first"), job("second"))
    assert set(bench.started().values()) == {1}


def test_what_does_not_end_in_time_is_delivered_again_to_the_next_member(stack_settings: Settings) -> None:
    bench = Bench(stack_settings, drain_s=0.5)
    gate = bench.cloud.gates[ONE, "first"] = threading.Event()
    jobs = [job("first"), job("second", ONE, "first"), job("third")]
    bench.publish(*jobs)
    with bench.running():
        bench.until_ended(job("third"))
        bench.until(lambda: bench.cloud.answered[ONE, "second"] == len(REGIONS))
    assert bench.ended().keys() == {job("third").job_id}
    assert {each.job_id for each in bench.sent()} == {job("third").job_id}, "the end of `first` was no turn of `second`"
    gate.set()
    with bench.running("intel-1"):
        bench.until_ended(*jobs)
    bench.whole(*jobs)
    assert (bench.started()[job("first").job_id], bench.started()[job("second").job_id]) == (2, 2)
    bench.publisher.close()


def test_a_second_member_takes_partitions_over_and_no_job_is_lost(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.worker._CLAIMS_MAX", 12)
    accounts = [f"{number:012}" for number in range(1, 21)]
    jobs = [job("first", account) for account in accounts]
    for account in accounts:
        bench.cloud.gates[account, "first"] = threading.Event()
    with bench.running() as first:
        places = bench.publish(*jobs)
        bench.until(lambda: len(first.status().jobs) + first.status().jobs_waiting == 12)  # it takes no more
        with bench.running("intel-1") as second:
            bench.until(lambda: first.status().partitions != () != second.status().partitions)
            assert sorted(first.status().partitions + second.status().partitions) == [0, 1]
            for gate in bench.cloud.gates.values():
                gate.set()
            bench.until_ended(*jobs)
            more = [job("second", account) for account in accounts]
            bench.publish(*more)
            bench.until_ended(*more)
            bench.until(lambda: not first.status().jobs and not second.status().jobs)
        bench.until(lambda: first.status().partitions == (0, 1))
        # a partition that went while there was too much to do is read again, though there is too little now
        of_partition = {partition: account for (partition, _), account in zip(places, accounts, strict=True)}
        back = [job("third", account) for account in of_partition.values()]
        bench.publish(*back)
        bench.until_ended(*back)
    bench.whole(*jobs, *more, *back)
    assert {bench.started()[each.job_id] for each in (*more, *back)} == {1}


def test_an_urgent_job_starts_before_those_that_were_there_before_and_does_not_wait_for_a_slot(bench: Bench) -> None:
    held = [(f"{number:012}", "first") for number in range(1, 9)]
    for place in held:
        bench.cloud.gates[place] = threading.Event()
    jobs = [job(module, account=account) for account, module in held]
    bench.publish(*jobs, *(job("second", account=account) for account, _ in held))
    with bench.running():
        bench.until(lambda: len(bench.started()) >= 4)
        urgent = job("third", account=THREE).model_copy(update={"priority": "high"})
        bench.publish(urgent)
        bench.until(lambda: urgent.job_id in bench.ended())
        assert not [each for each in jobs if each.job_id in bench.ended()]
        for gate in bench.cloud.gates.values():
            gate.set()
        bench.until(lambda: len(bench.ended()) == 17)
