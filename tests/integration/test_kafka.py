"""What `cartoray.kafka` promises, against a real broker."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from cartoray.deaths import TEXT_MAX
from cartoray.errors import KafkaUnavailable, RowRejected, SettingError
from cartoray.kafka import Admin, Follower, GroupConsumer, GroupLag, Publisher, read_all, read_at
from cartoray.messages import Message
from cartoray.settings import KafkaSettings, Settings
from cartoray.topics import Topic, topics

pytestmark = pytest.mark.stack


@pytest.fixture
def kafka(stack_settings: Settings, request: pytest.FixtureRequest) -> KafkaSettings:
    """Topics of its own for each test."""
    prefix = f"{request.node.name[:40]}-{uuid.uuid4().hex[:6]}."
    settings = stack_settings.kafka.model_copy(update={"topic_prefix": prefix, "data_partitions": 2})
    names = topics(settings)
    Admin(settings).ensure(names)
    return settings


def publish(settings: KafkaSettings, topic: str, count: int, key: bytes = b"k") -> list[tuple[int, int]]:
    publisher = Publisher(settings, "test")
    try:
        futures = [publisher.publish(topic, key, str(n).encode(), [("n", str(n).encode())]) for n in range(count)]
        return [future.result(30) for future in futures]
    finally:
        publisher.close()


def test_topics_are_created_once_and_checked_when_present(kafka: KafkaSettings) -> None:
    names = topics(kafka)
    admin = Admin(kafka)
    admin.ensure(names)
    assert len(admin.partitions(names.data.name)) == 2
    with pytest.raises(SettingError, match=r"cleanup\.policy=compact,delete"):
        admin.ensure([Topic(names.events.name, 1, {"cleanup.policy": "delete"})])
    with pytest.raises(SettingError, match="CARTORAY_KAFKA_MESSAGE_BYTES_MAX"):
        admin.ensure([Topic(names.jobs.name, 1, {"cleanup.policy": "delete", "max.message.bytes": "90000000"})])
    longer = topics(kafka.model_copy(update={"retention_hours": kafka.retention_hours + 1}))
    with pytest.raises(SettingError, match="CARTORAY_KAFKA_RETENTION_HOURS"):
        admin.ensure([longer.data])


def test_a_message_that_was_not_taken_is_told_by_its_report_and_by_the_flush(kafka: KafkaSettings) -> None:
    """Otherwise a run would be called published whose jobs are nowhere."""
    publisher = Publisher(kafka.model_copy(update={"delivery_timeout_s": 1}), "test")
    lost = publisher.publish("no-such-topic", b"k", b"v")
    with pytest.raises(KafkaUnavailable):
        publisher.flush()
    with pytest.raises(KafkaUnavailable):
        lost.result(30)
    publisher.publish(topics(kafka).data.name, b"k", b"v").result(30)
    publisher.close()  # told once


def test_a_message_that_is_too_large_is_refused_before_it_is_sent(kafka: KafkaSettings) -> None:
    publisher = Publisher(kafka, "test")
    with pytest.raises(RowRejected, match="CARTORAY_KAFKA_MESSAGE_BYTES_MAX"):
        publisher.publish(topics(kafka).data.name, b"k", b"v" * 2_000_000)
    publisher.close()
    with pytest.raises(KafkaUnavailable):
        publisher.publish(topics(kafka).data.name, b"k", b"v")


def test_what_was_published_is_read_in_order_with_its_headers(kafka: KafkaSettings) -> None:
    topic = topics(kafka).data.name
    at = publish(kafka, topic, 500)
    read = list(read_all(kafka, topic))
    assert [message.value for message in read] == [str(n).encode() for n in range(500)]
    assert [message.headers["n"] for message in read] == [str(n).encode() for n in range(500)]
    assert [(message.partition, message.offset) for message in read] == at


def test_an_empty_topic_ends_at_once(kafka: KafkaSettings) -> None:
    assert list(read_all(kafka, topics(kafka).dead_letters.name)) == []


def test_a_follower_goes_on_after_it_has_caught_up(kafka: KafkaSettings) -> None:
    topic = topics(kafka).events.name
    publish(kafka, topic, 3)
    follower = Follower(kafka, topic, "test")
    seen: list[Message] = []
    try:
        while not follower.caught_up:
            seen += follower.poll(0.2)
        assert len(seen) == 3
        publish(kafka, topic, 2)
        while len(seen) < 5:
            seen += follower.poll(0.2)
    finally:
        follower.close()


def test_messages_are_read_again_by_their_place_and_one_that_is_gone_is_left_out(kafka: KafkaSettings) -> None:
    topic = topics(kafka).data.name
    at = publish(kafka, topic, 20)
    wanted = [at[7], at[3], (at[0][0], 9_999), at[19]]
    assert [message.value for message in read_at(kafka, topic, wanted)] == [b"7", b"3", b"19"]


def consume(settings: KafkaSettings, until: Callable[[list[Message]], bool], *, commit: bool) -> list[Message]:
    assigned = threading.Event()
    consumer = GroupConsumer(
        settings,
        topic=topics(settings).data.name,
        group=f"{settings.topic_prefix}group",
        name="test",
        on_assigned=lambda _: assigned.set(),
        on_revoked=lambda _: None,
    )
    read: list[Message] = []
    try:
        while not until(read):
            if message := consumer.poll(0.2):
                read.append(message)
        if commit:
            assert consumer.commit({read[-1].partition: read[-1].offset + 1})
    finally:
        consumer.close()
    assert assigned.is_set()
    return read


def test_what_was_not_committed_is_delivered_again(kafka: KafkaSettings) -> None:
    publish(kafka, topics(kafka).data.name, 4)
    first = consume(kafka, lambda read: len(read) == 4, commit=False)
    again = consume(kafka, lambda read: len(read) == 4, commit=True)
    assert [message.value for message in first] == [message.value for message in again]
    publish(kafka, topics(kafka).data.name, 1)
    assert [message.value for message in consume(kafka, lambda read: len(read) == 1, commit=True)] == [b"0"]


def test_a_lag_counts_what_is_not_committed_and_still_there(kafka: KafkaSettings) -> None:
    topic, group = topics(kafka).data.name, f"{kafka.topic_prefix}group"
    lag = GroupLag(kafka, topic, group)

    def drop(until: int) -> None:
        client = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
        for future in client.delete_records([TopicPartition(topic, partition, until)]).values():
            future.result(30)

    assert lag.messages() == 0
    partition = publish(kafka, topic, 5)[0][0]
    assert lag.messages() == 5, "of a group that is not there yet, from the beginning"
    drop(3)
    assert lag.messages() == 2
    consume(kafka, lambda read: len(read) == 2, commit=True)
    assert lag.messages() == 0
    publish(kafka, topic, 4)
    assert lag.messages() == 4
    drop(9)
    assert lag.messages() == 0, "nobody will commit these"
    lag.close()
    away = kafka.model_copy(update={"bootstrap_servers": "127.0.0.1:1", "timeout_s": 0.5})
    with pytest.raises(KafkaUnavailable):
        GroupLag(away, topic, group).messages()


def test_who_gets_a_partition_reads_what_was_committed_besides_its_offset(kafka: KafkaSettings) -> None:
    at = publish(kafka, topics(kafka).data.name, 2)
    text = "7:2," * (TEXT_MAX // 4)
    found: dict[int, tuple[int, str]] = {}

    def consumer(name: str) -> GroupConsumer:
        made = GroupConsumer(
            kafka,
            topic=topics(kafka).data.name,
            group=f"{kafka.topic_prefix}group",
            name=name,
            on_assigned=lambda partitions: found.update(made.committed(partitions)),
            on_revoked=lambda _: None,
        )
        return made

    first = consumer("first")
    while first.poll(0.2) is None:
        pass
    assert not found, "nothing was committed yet"
    partition = at[0][0]
    assert first.commit({partition: 1}, {partition: text})
    first.close()
    second = consumer("second")
    while second.poll(0.2) is None:
        pass
    assert found == {partition: (1, text)}
    second.commit({partition: 2})
    assert second.committed([partition]) == {partition: (2, "")}
    second.close()


def test_what_could_not_be_committed_is_committed_with_the_next_poll(
    kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member of a topic that is idle would otherwise do again what it has done."""
    publish(kafka, topics(kafka).data.name, 2)
    monkeypatch.setattr("cartoray.kafka._COMMIT_AGAIN_S", 0)
    consumer = GroupConsumer(
        kafka,
        topic=topics(kafka).data.name,
        group=f"{kafka.topic_prefix}group",
        name="test",
        on_assigned=lambda _: None,
        on_revoked=lambda _: None,
    )
    read: list[Message] = []
    while len(read) < 2:
        if message := consumer.poll(0.2):
            read.append(message)
    real = consumer._consumer.commit
    answers = iter([KafkaException(KafkaError(KafkaError.REQUEST_TIMED_OUT))])

    def commit(**arguments: object) -> object:
        for error in answers:
            raise error
        return real(**arguments)

    consumer._consumer = _Instead(consumer._consumer, commit)  # type: ignore[assignment]
    assert not consumer.commit({read[-1].partition: read[-1].offset + 1})
    assert consumer.poll(0.2) is None
    consumer.close()
    publish(kafka, topics(kafka).data.name, 1)
    assert len(consume(kafka, bool, commit=True)) == 1


class _Instead:
    """A client of the library with another `commit`."""

    def __init__(self, real: object, commit: Callable[..., object]) -> None:
        self._real, self.commit = real, commit

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)


def test_a_broker_that_is_not_there_is_one_clear_line() -> None:
    settings = KafkaSettings(bootstrap_servers="127.0.0.1:1", timeout_s=1)
    with pytest.raises(KafkaUnavailable, match="CARTORAY_KAFKA_BOOTSTRAP_SERVERS") as raised:
        Admin(settings).check()
    assert "127.0.0.1:1" in str(raised.value)
    assert "\n" not in str(raised.value)
