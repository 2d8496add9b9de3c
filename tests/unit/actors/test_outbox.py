"""A job publishes behind those that it must not overtake, whatever way they end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.outbox import Outbox, Report
from cartoray.wire import RowsHeader


class Over(Exception):
    """What `check` raises when nobody wants the job any more."""


class Kafka:
    """What was sent, in order."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, bytes]] = []

    def send(self, header: RowsHeader, value: bytes) -> Report:
        self.sent.append((header.sequence, value))
        report: Report = Future()
        report.set_result((0, len(self.sent)))
        return report


def header(sequence: int) -> RowsHeader:
    return RowsHeader("run", 1, "run/1/job", "attempt", sequence, "schema", {})


def over() -> None:
    raise Over


def nothing() -> None:
    pass


def outbox(kafka: Kafka, *earlier: Future[None], check: Callable[[], None] = nothing, limit: int = 1_000) -> Outbox:
    return Outbox(kafka.send, earlier, check, limit)


def test_without_an_earlier_job_everything_is_sent_at_once() -> None:
    kafka = Kafka()
    box = outbox(kafka)
    for sequence in range(3):
        box.publish(header(sequence), b"x")
        assert len(kafka.sent) == len(box.reports) == sequence + 1
    box.release()
    assert [report.result() for report in box.reports] == [(0, 1), (0, 2), (0, 3)]


def test_nothing_is_sent_before_all_earlier_jobs_have_ended() -> None:
    kafka, first, second = Kafka(), Future[None](), Future[None]()
    box = outbox(kafka, first, second)
    box.publish(header(0), b"a")
    first.set_result(None)
    box.publish(header(1), b"b")
    assert (kafka.sent, box.reports) == ([], [])
    second.set_result(None)
    box.publish(header(2), b"c")
    assert kafka.sent == [(0, b"a"), (1, b"b"), (2, b"c")]


def test_an_earlier_job_that_failed_has_ended_as_well() -> None:
    kafka, earlier = Kafka(), Future[None]()
    box = outbox(kafka, earlier)
    box.publish(header(0), b"a")
    earlier.set_exception(RuntimeError("a bug"))
    box.release()
    assert kafka.sent == [(0, b"a")]


@given(st.lists(st.binary(max_size=20), max_size=30), st.integers(0, 30))
def test_messages_keep_their_order_whenever_the_earlier_job_ends(values: list[bytes], ends_after: int) -> None:
    kafka, earlier = Kafka(), Future[None]()
    box = outbox(kafka, earlier)
    for sequence, value in enumerate(values):
        if sequence == ends_after:
            assert kafka.sent == []
            earlier.set_result(None)
        box.publish(header(sequence), value)
    if not earlier.done():
        assert kafka.sent == []
        earlier.set_result(None)
    box.release()
    assert kafka.sent == list(enumerate(values))
    assert len(box.reports) == len(values)


class Waiting:
    """A thread that does something with an outbox; `looked` is set when it has waited and looked around."""

    def __init__(self) -> None:
        self.looked, self.ended = threading.Event(), threading.Event()
        self.over = False
        self.raised: BaseException | None = None

    def check(self) -> None:
        self.looked.set()
        if self.over:
            raise Over

    def start(self, work: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except Over as error:
                self.raised = error
            self.ended.set()

        thread = threading.Thread(target=run)
        thread.start()
        return thread


def test_who_holds_too_much_waits_until_it_may_publish() -> None:
    kafka, earlier, waiting = Kafka(), Future[None](), Waiting()
    box = outbox(kafka, earlier, check=waiting.check, limit=10)
    box.publish(header(0), b"12345")
    box.publish(header(1), b"67890")
    assert not waiting.looked.is_set(), "ten bytes are not too much"
    thread = waiting.start(lambda: box.publish(header(2), b"x"))
    assert waiting.looked.wait(30)
    assert not waiting.ended.is_set()
    assert kafka.sent == []
    earlier.set_result(None)
    thread.join(30)
    assert waiting.ended.is_set()
    assert [sequence for sequence, _ in kafka.sent] == [0, 1, 2]


@pytest.mark.parametrize("held", ["too much", "little"])
def test_a_job_that_nobody_wants_stops_waiting_and_sends_nothing(held: str) -> None:
    kafka, earlier, waiting = Kafka(), Future[None](), Waiting()
    box = outbox(kafka, earlier, check=waiting.check, limit=0 if held == "too much" else 100)

    def publish() -> None:
        box.publish(header(0), b"x")
        box.release()

    thread = waiting.start(publish)
    assert waiting.looked.wait(30)
    waiting.over = True
    thread.join(30)
    assert isinstance(waiting.raised, Over)
    assert kafka.sent == []


@pytest.mark.parametrize("how", ["publish", "release"])
def test_a_job_that_nobody_wants_does_not_take_the_end_of_an_abandoned_one_for_its_turn(how: str) -> None:
    kafka, earlier = Kafka(), Future[None]()
    wanted = [True]
    box = outbox(kafka, earlier, check=lambda: None if wanted[0] else over())
    box.publish(header(0), b"x")
    wanted[0] = False
    assert earlier.cancel()
    with pytest.raises(Over):
        box.publish(header(1), b"y") if how == "publish" else box.release()
    assert (kafka.sent, box.reports) == ([], [])
