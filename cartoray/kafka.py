"""All that is done with Kafka. Each verb says what may block, what its success means and what it raises.

Only this file and `kafka_client` know confluent-kafka.
"""

from __future__ import annotations

import contextlib
import logging
import operator
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka import Message as _Message
from confluent_kafka.admin import (
    AdminClient,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
    TopicMetadata,
)

from cartoray.dead_letters import dead_letter_headers, without_content
from cartoray.errors import CartorayError, KafkaUnavailable, RowRejected, SettingError
from cartoray.kafka_client import DENIED, Troubles, denied, in_two, new_client, unavailable
from cartoray.messages import Message
from cartoray.settings import KafkaSettings, variable
from cartoray.topics import Topic

log = logging.getLogger(__name__)

_OFFSET: Any = OffsetSpec  # the library's stub has no types for what it makes
_POLL_S = 0.1
_COMMIT_AGAIN_S = 1.0
_OF_GROUP = "Group authorization failed"
_KEY_MAX = 1_000  # bytes, of the key of a dead letter that else was too large


class Admin:
    """Topics and offsets. Calls block until the broker answered, at most `timeout_s` of the settings.

    All raise KafkaUnavailable, and KafkaRefused for a login or a right that Kafka refuses.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        """Raises SettingError for files that cannot be used."""
        self._settings, self._troubles = settings, Troubles(settings)
        self._client = new_client(AdminClient, settings, self._troubles)

    def check(self) -> None:
        """Returns when a broker answered."""
        self._topics()

    def _topics(self, topic: str | None = None) -> dict[str, TopicMetadata]:
        """All that this client may see; or this one."""

        def told() -> KafkaError | None:
            self._client.poll(0)
            return self._troubles.told

        timeout_s = self._settings.timeout_s
        try:
            found = in_two(lambda seconds: self._client.list_topics(topic, timeout=seconds).topics, timeout_s, told)
        except KafkaException as error:
            what = f"does not answer within {timeout_s:g} s"
            raise self._troubles.meaning(error.args[0], what, "DESCRIBE", "its topics") from error
        self._troubles.told = None
        return found

    def ensure(self, wanted: Iterable[Topic]) -> None:
        """Creates the topics that are absent and checks those that are present.

        Raises SettingError for a topic whose settings would lose data, KafkaRefused for one that is absent and that
        this client may not create.
        """
        present = self._topics()
        wanted = list(wanted)
        new = [
            NewTopic(topic.name, topic.partitions, self._settings.replication, config=dict(topic.config))
            for topic in wanted
            if topic.name not in present
        ]
        for name, future in self._client.create_topics(new).items() if new else ():
            try:
                future.result(self._settings.timeout_s)
            except KafkaException as error:
                if error.args[0].code() in DENIED:
                    self.partitions(name)  # one that may not be described looks as if it were absent
                    raise denied(self._settings, "CREATE", f"topic {name}, which is absent") from None
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # another process was faster
                    raise SettingError(f"Topic {name} cannot be created: {error.args[0].str()}.") from None
        created = {topic.topic for topic in new}
        self._check_configs([topic for topic in wanted if topic.name not in created])
        self._wait_for_leaders({topic.name for topic in wanted})

    def _check_configs(self, topics: Sequence[Topic]) -> None:
        resources = {ConfigResource(ResourceType.TOPIC, topic.name): topic for topic in topics}
        for resource, future in self._client.describe_configs(list(resources)).items() if resources else ():
            topic = next(topic for topic in topics if topic.name == resource.name)
            try:
                have = {name: entry.value for name, entry in future.result(self._settings.timeout_s).items()}
            except TimeoutError as error:
                raise unavailable(self._settings, f"does not say how topic {topic.name} is set", error) from error
            except KafkaException as error:
                what, on = f"does not say how topic {topic.name} is set", f"topic {topic.name}"
                raise self._troubles.meaning(error.args[0], what, "DESCRIBE_CONFIGS", on) from error
            policy = set(topic.config["cleanup.policy"].split(","))
            if set(have["cleanup.policy"].split(",")) != policy:
                raise SettingError(
                    f"Topic {topic.name} has cleanup.policy={have['cleanup.policy']}, "
                    f"cartoray needs {topic.config['cleanup.policy']}: change the topic."
                )
            kept, wanted = int(have["retention.ms"]), int(topic.config.get("retention.ms", 0))
            if kept >= 0 and (wanted < 0 or kept < wanted):
                raise SettingError(
                    f"Topic {topic.name} keeps messages for {kept} ms, cartoray needs {wanted} (-1: for ever): raise "
                    f"its retention.ms, or set {variable('kafka', 'retention_hours')} to the longest that a run takes."
                )
            needed = int(topic.config.get("max.message.bytes", 0))
            if int(have["max.message.bytes"]) < needed:
                raise SettingError(
                    f"Topic {topic.name} takes messages of {have['max.message.bytes']} bytes, cartoray sends up to "
                    f"{needed}: raise the topic's max.message.bytes or lower {variable('kafka', 'message_bytes_max')}."
                )

    def _wait_for_leaders(self, names: set[str]) -> None:
        """A topic just created has no leader for some milliseconds."""
        deadline = time.monotonic() + self._settings.timeout_s
        while time.monotonic() < deadline:
            found = self._topics()
            if all(
                name in found and found[name].partitions and all(p.leader >= 0 for p in found[name].partitions.values())
                for name in names
            ):
                return
            time.sleep(0.05)
        raise unavailable(self._settings, f"has no leader for a partition of {', '.join(sorted(names))}")

    def partitions(self, topic: str) -> list[int]:
        """Partition numbers of `topic`; empty when there is no such topic."""
        metadata = self._topics(topic)[topic]
        if metadata.error is not None and metadata.error.code() in DENIED:
            raise denied(self._settings, "DESCRIBE", f"topic {topic}")
        return sorted(metadata.partitions) if metadata.error is None else []

    def end_offsets(self, topic: str) -> dict[int, int]:
        """Partition → log-end offset. A read up to it has seen all that was published before the call."""
        return self._offsets(topic, _OFFSET.latest())

    def begin_offsets(self, topic: str) -> dict[int, int]:
        """Partition → offset of the first message that is still there."""
        return self._offsets(topic, _OFFSET.earliest())

    def _offsets(self, topic: str, spec: OffsetSpec) -> dict[int, int]:
        asked = {TopicPartition(topic, partition): spec for partition in self.partitions(topic)}
        return self._troubles.answer(
            lambda: {
                at.partition: future.result(self._settings.timeout_s).offset
                for at, future in (self._client.list_offsets(asked).items() if asked else ())
            },
            "DESCRIBE",
            f"topic {topic}",
        )


class Publisher:
    """An idempotent producer with a thread of its own for delivery reports."""

    def __init__(self, settings: KafkaSettings, name: str) -> None:
        self._settings, self._troubles = settings, Troubles(settings)
        self._producer = new_client(
            Producer,
            settings,
            self._troubles,
            **{
                "client.id": name,
                "enable.idempotence": True,
                "compression.type": "none",  # rows are compressed inside Arrow already
                "linger.ms": 5,
                "message.max.bytes": settings.message_bytes_max + 200_000,
                "queue.buffering.max.kbytes": 65_536,
                "delivery.timeout.ms": int(settings.delivery_timeout_s * 1000),
            },
        )
        self._closed = threading.Event()
        self._reported = threading.Condition()
        self._unreported = 0  # messages whose delivery report has not come
        self._failed: CartorayError | None = None  # of a message since the last flush
        self._thread = threading.Thread(target=self._serve, name=f"{name}-producer", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(
            KafkaException
        ):  # without it, the first message to a topic waits a second for metadata
            self._producer.list_topics(timeout=self._settings.timeout_s)
        while not self._closed.is_set():
            self._producer.poll(_POLL_S)

    def publish(
        self, topic: str, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]] = ()
    ) -> Future[tuple[int, int]]:
        """Queues a message. The future's result is (partition, offset) once Kafka has acknowledged it.

        Blocks while the local queue (64 MiB) is full: that is Kafka's back-pressure, and ingestion's is in
        `actors.lag_gate`. The future raises KafkaUnavailable when the message was not acknowledged within
        `delivery_timeout_s`, and KafkaRefused when it may not be written. Raises RowRejected for a message that is too
        large, and KafkaUnavailable after `close`.
        """
        future: Future[tuple[int, int]] = Future()

        def delivered(error: KafkaError | None, message: _Message) -> None:
            failed = None if error is None else self._error(error, topic)
            with self._reported:
                self._unreported -= 1
                self._failed = self._failed or failed
                self._reported.notify_all()
            if failed is None:
                self._troubles.told = None
                future.set_result((message.partition() or 0, message.offset() or 0))
            else:
                future.set_exception(failed)

        while not self._closed.is_set():
            try:
                self._producer.produce(topic, key=key, value=value, headers=list(headers), on_delivery=delivered)
            except BufferError:
                self._closed.wait(_POLL_S)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.MSG_SIZE_TOO_LARGE:
                    raise self._error(error.args[0], topic) from error
                setting = variable("kafka", "message_bytes_max")
                raise RowRejected(f"A message of {len(value)} bytes is more than {setting} allows.") from None
            else:
                with self._reported:
                    self._unreported += 1
                return future
        raise unavailable(self._settings, "is no longer published to: this member has ended")

    def _error(self, error: KafkaError, topic: str) -> CartorayError:
        return self._troubles.meaning(error, "did not take a message", "WRITE", f"topic {topic}")

    def bury(self, topic: str, message: Message, reason: str) -> Future[tuple[int, int]]:
        """Queues the dead letter of `message`, without its content if that is too large. Else like `publish`."""
        try:
            return self.publish(topic, message.key, message.value, dead_letter_headers(message, reason))
        except RowRejected:
            return self.publish(topic, message.key[:_KEY_MAX], b"", without_content(message, reason))

    def flush(self) -> None:
        """Returns when every message published since the last flush is acknowledged.

        Raises KafkaUnavailable and KafkaRefused.
        """
        with self._reported:
            # every message is reported within the delivery time-out, be it as failed
            timeout_s = self._settings.delivery_timeout_s + self._settings.timeout_s
            if not self._reported.wait_for(lambda: self._unreported <= 0, timeout_s):
                raise unavailable(self._settings, f"has not acknowledged {self._unreported} messages")
            failed, self._failed = self._failed, None
        if failed is not None:
            raise failed

    def close(self) -> None:
        """Flushes and ends the thread. Raises like `flush`."""
        try:
            self.flush()
        finally:
            self._closed.set()
            self._thread.join()


def _read(raw: _Message) -> Message:
    return Message(
        topic=raw.topic() or "",
        partition=raw.partition() or 0,
        offset=raw.offset() or 0,
        key=_bytes(raw.key()),
        value=_bytes(raw.value()),
        headers=_headers(raw),
    )


# A call written out is one that CPython, once it is warm, no longer looks at for an error beside its answer.
_asked_for_headers = operator.methodcaller("headers")


def _headers(raw: _Message) -> dict[str, bytes]:
    try:
        found: Any = _asked_for_headers(raw)
    except (SystemError, UnicodeDecodeError):
        return {}  # a name is no UTF-8; asked again, the client answers a list with a hole, which ends the process
    return {name: _bytes(value) for name, value in found or ()}


def _bytes(value: str | bytes | None) -> bytes:
    return value.encode() if isinstance(value, str) else value or b""


class GroupConsumer:
    """A member of a consumer group (KIP-848). All calls from one thread; callbacks run inside `poll`.

    `on_assigned(partitions)` and `on_revoked(partitions)` get partition numbers. In `on_revoked` the partitions are
    still this member's: what is committed there counts.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        topic: str,
        group: str,
        name: str,
        on_assigned: Callable[[list[int]], None],
        on_revoked: Callable[[list[int]], None],
    ) -> None:
        """Raises KafkaRefused when Kafka refuses the login; one that is away is waited for by `poll`."""
        self._settings, self._topic, self._group, self._troubles = settings, topic, group, Troubles(settings)
        with contextlib.suppress(KafkaUnavailable):
            Admin(settings).check()
        self._consumer = new_client(
            Consumer,
            settings,
            self._troubles,
            **{
                "group.id": group,
                "client.id": name,
                "group.protocol": "consumer",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "max.poll.interval.ms": 300_000,
                "queued.max.messages.kbytes": 16_384,
                "fetch.message.max.bytes": settings.message_bytes_max + 200_000,
            },
        )
        self._consumer.subscribe(
            [topic],
            on_assign=lambda _, at: on_assigned([partition.partition for partition in at]),
            on_revoke=lambda _, at: self._revoked([partition.partition for partition in at], on_revoked),
        )
        self._paused: set[int] = set()
        self._owed: dict[int, tuple[int, str]] = {}  # partition → offset that could not be committed yet, metadata
        self._commit_again_s = 0.0
        self._error = ""

    def _revoked(self, partitions: list[int], then: Callable[[list[int]], None]) -> None:
        then(partitions)
        # librdkafka remembers the pause: a partition that comes back later would never be read again
        self._resume(self._paused & set(partitions))
        for partition in partitions:
            self._owed.pop(partition, None)

    def poll(self, timeout_s: float) -> Message | None:
        """The next message, or None after `timeout_s`. A broker that is away is waited for: logged, not raised.

        Raises KafkaUnavailable when the client itself cannot go on, KafkaRefused when it may not.
        """
        if self._owed and time.monotonic() > self._commit_again_s:
            self.commit({})
        raw = self._consumer.poll(timeout_s)
        self._troubles.raise_final()
        if raw is None:
            return None
        if (error := raw.error()) is not None:
            self._raise_denial(error)
            if error.fatal() or error.code() == KafkaError._FATAL:
                raise unavailable(self._settings, "ended this consumer", error.str())
            if error.str() != self._error:  # the same is told many times a second
                log.warning("consumer_trouble topic=%s reason=%s", self._topic, error.str())
            self._error = error.str()
            return None
        self._error = ""
        return _read(raw)

    def _raise_denial(self, error: KafkaError) -> None:
        fatal = error.code() == KafkaError._FATAL  # of what, only its text says
        of_group = error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED or (fatal and _OF_GROUP in error.str())
        if of_group or error.code() in DENIED:
            on = f"group {self._group}" if of_group else f"topic {self._topic}"
            raise denied(self._settings, "READ", on)

    def commit(self, offsets: Mapping[int, int], metadata: Mapping[int, str] | None = None) -> bool:
        """Commits partition → next offset, with what `committed` is to answer besides it. Blocks for the answer.

        False when the broker refused because the group moved on, or is away. The offsets are kept and tried again, by
        the next commit or poll, until they succeed or their partition is revoked. Raises KafkaRefused.
        """
        texts = metadata or {}
        self._owed.update({partition: (offset, texts.get(partition, "")) for partition, offset in offsets.items()})
        if not self._owed:
            return True
        at = [TopicPartition(self._topic, partition, *owed) for partition, owed in self._owed.items()]
        try:
            self._consumer.commit(offsets=at, asynchronous=False)
        except KafkaException as error:
            self._raise_denial(error.args[0])
            log.info("commit_failed topic=%s reason=%s", self._topic, error.args[0].str())
            self._commit_again_s = time.monotonic() + _COMMIT_AGAIN_S
            return False
        self._owed.clear()
        return True

    def committed(self, partitions: Iterable[int]) -> dict[int, tuple[int, str]]:
        """Partition → offset and metadata, where something was committed. Blocks for the answer, `timeout_s` at most.

        Raises KafkaUnavailable and KafkaRefused.
        """
        asked = [TopicPartition(self._topic, partition) for partition in partitions]
        found = self._troubles.answer(
            lambda: self._consumer.committed(asked, self._settings.timeout_s), "READ", f"group {self._group}"
        )
        return {at.partition: (at.offset, at.metadata or "") for at in found if at.offset >= 0}

    def hold(self) -> None:
        """Delivers nothing from now on. Partitions that come later are held by the next call; polling must go on."""
        new = [at for at in self._consumer.assignment() if at.partition not in self._paused]
        if new:
            self._consumer.pause(new)
            self._paused |= {at.partition for at in new}

    def go_on(self) -> None:
        """Delivers again what was held."""
        self._resume(set(self._paused))

    def _resume(self, partitions: set[int]) -> None:
        if partitions:
            self._consumer.resume([TopicPartition(self._topic, partition) for partition in partitions])
            self._paused -= partitions

    def close(self) -> None:
        """Leaves the group, so that the others get the partitions at once."""
        self._consumer.close()


class Follower:
    """Reads a whole topic, without a group: a view that can be rebuilt at any time.

    From its beginning; or, `from_end`, what is published from now on. `idle_ms`: for which the broker lets a question
    wait while there is nothing; that there is nothing is known so late, what comes is there at once.
    """

    def __init__(
        self, settings: KafkaSettings, topic: str, name: str, *, from_end: bool = False, idle_ms: int = 100
    ) -> None:
        self._settings, self._topic, self._troubles = settings, topic, Troubles(settings)
        self._ends = Admin(settings).end_offsets(topic)
        self._consumer = new_client(
            Consumer,
            settings,
            self._troubles,
            **{
                "group.id": f"{name}-unused",
                "client.id": name,
                "enable.auto.commit": False,
                "fetch.wait.max.ms": idle_ms,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
            },
        )
        with contextlib.suppress(KafkaException):  # without it, the first fetch waits a second for metadata
            self._consumer.list_topics(topic, timeout=settings.timeout_s)
        self._behind = set() if from_end else {partition for partition, end in self._ends.items() if end > 0}
        self._consumer.assign(
            [TopicPartition(topic, at, end if from_end else OFFSET_BEGINNING) for at, end in self._ends.items()]
        )

    @property
    def caught_up(self) -> bool:
        """Everything that was in the topic when this follower was made has been returned."""
        return not self._behind

    def poll(self, timeout_s: float) -> list[Message]:
        """What is there, at the latest after `timeout_s`, possibly nothing.

        Raises KafkaUnavailable when the client cannot go on, KafkaRefused when it may not.
        """
        messages = []
        first = self._consumer.poll(timeout_s)  # `consume` alone would wait for as many as it may return
        self._troubles.raise_final()
        for raw in [first, *self._consumer.consume(1_000, 0)] if first is not None else ():
            partition = raw.partition() or 0
            if (error := raw.error()) is not None:
                if error.code() == KafkaError._PARTITION_EOF:
                    self._behind.discard(partition)
                elif error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:  # its group is unused, and may be denied
                    raise denied(self._settings, "READ", f"topic {self._topic}")
                elif error.fatal():
                    raise unavailable(self._settings, "ended this consumer", error.str())
                continue
            messages.append(_read(raw))
            if (raw.offset() or 0) + 1 >= self._ends.get(partition, 0):
                self._behind.discard(partition)
        return messages

    def close(self) -> None:
        self._consumer.close()


class GroupLag:
    """How far a consumer group is behind; it does not become a member. All calls from one thread."""

    def __init__(self, settings: KafkaSettings, topic: str, group: str) -> None:
        self._settings, self._topic, self._group, self._troubles = settings, topic, group, Troubles(settings)
        self._admin = Admin(settings)
        self.partitions = 0  # of the topic, when it was measured last
        # the admin client has a call for this, and dies by it when the group's coordinator moves: librdkafka's #5040
        more = {"group.id": group, "enable.auto.commit": False}
        self._consumer = new_client(Consumer, settings, self._troubles, **more)

    def messages(self) -> int:
        """How many lie ahead of what the group has committed, or of the beginning where it has not.

        Those that the topic has dropped meanwhile do not count: nobody will commit them. Blocks for a handful of
        answers. Raises KafkaUnavailable and KafkaRefused.
        """
        begins = self._admin.begin_offsets(self._topic)
        if self._denial() is not None:
            raise denied(self._settings, "DESCRIBE", f"group {self._group}")
        asked, on = partial(self._committed, begins), f"group {self._group}"
        committed = self._troubles.answer(asked, "DESCRIBE", on)
        ends = self._admin.end_offsets(self._topic)
        self.partitions = len(ends)
        return sum(max(0, end - max(begins.get(at, 0), committed.get(at, 0))) for at, end in ends.items())

    def _committed(self, partitions: Iterable[int]) -> dict[int, int]:
        """Negative where nothing was."""
        asked = [TopicPartition(self._topic, partition) for partition in partitions]
        found = in_two(lambda seconds: self._consumer.committed(asked, seconds), self._settings.timeout_s, self._denial)
        for at in found:
            if at.error is not None:
                raise KafkaException(at.error)
        return {at.partition: at.offset for at in found}

    def _denial(self) -> KafkaError | None:
        """Whether the group is denied, which is told once. There is nothing to read, but troubles would heap up."""
        raw = self._consumer.poll(0)
        error = raw.error() if raw is not None else None
        return error if error is not None and error.code() in DENIED else None

    def close(self) -> None:
        self._consumer.close()


def read_all(settings: KafkaSettings, topic: str, name: str = "cartoray-read") -> Iterator[Message]:
    """Every message of the topic up to its present end.

    Raises KafkaUnavailable when it does not arrive in time, and KafkaRefused.
    """
    follower = Follower(settings, topic, name)
    deadline = time.monotonic() + settings.timeout_s
    try:
        while not follower.caught_up:
            messages = follower.poll(_POLL_S)
            if messages:
                deadline = time.monotonic() + settings.timeout_s
            elif time.monotonic() > deadline:
                raise unavailable(settings, f"sends no more of topic {topic}")
            yield from messages
    finally:
        follower.close()


def read_at(settings: KafkaSettings, topic: str, at: Iterable[tuple[int, int]]) -> Iterator[Message]:
    """The messages at (partition, offset), in the order given. A message that is no longer there is left out.

    Blocks up to `timeout_s` per message. Raises KafkaUnavailable and KafkaRefused.
    """
    there = set(Admin(settings).partitions(topic))
    consumer = new_client(
        Consumer,
        settings,
        Troubles(settings),
        **{
            "group.id": "cartoray-read-at-unused",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 10,  # each new position waits for the fetch at the last one, by default 500
            "auto.offset.reset": "earliest",
        },
    )
    try:
        for partition, offset in at:
            if partition not in there:
                continue
            consumer.assign([TopicPartition(topic, partition, offset)])
            deadline = time.monotonic() + settings.timeout_s
            while True:
                raw = consumer.poll(_POLL_S)
                if raw is not None and raw.error() is None:
                    if raw.partition() == partition and raw.offset() == offset:
                        yield _read(raw)
                    break
                error = raw.error() if raw is not None else None
                if error is not None and error.code() == KafkaError._PARTITION_EOF:
                    break
                if error is not None and error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                    raise denied(settings, "READ", f"topic {topic}")
                if time.monotonic() > deadline:
                    raise unavailable(settings, f"does not send {topic}[{partition}]@{offset}")
    finally:
        consumer.close()
