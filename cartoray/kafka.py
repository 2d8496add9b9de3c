"""The only file that knows confluent-kafka. Each verb says what may block, what its success means and what it raises.

Clients are made by the process that uses them, never at import: librdkafka's threads do not survive a fork.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

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
from cartoray.errors import KafkaUnavailable, RowRejected, SettingError
from cartoray.messages import Message
from cartoray.settings import KafkaSettings, variable
from cartoray.topics import Topic

log = logging.getLogger(__name__)
T = TypeVar("T")

_OFFSET: Any = OffsetSpec  # the library's stub has no types for what it makes
_POLL_S = 0.1
_COMMIT_AGAIN_S = 1.0
_KEY_MAX = 1_000  # bytes, of the key of a dead letter that else was too large
_NOT_YET = frozenset(  # of a leader or coordinator that has just been elected, and does not know it
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    }
)


def _unavailable(settings: KafkaSettings, what: str, error: object = "") -> KafkaUnavailable:
    detail = f" ({error})" if error else ""
    return KafkaUnavailable(
        f"Kafka at {settings.bootstrap_servers} {what}{detail}. Start it with `cartoray up`, "
        f"or set {variable('kafka', 'bootstrap_servers')} to the brokers you have."
    )


def _client(settings: KafkaSettings, **more: Any) -> dict[str, Any]:
    # librdkafka's own log lines on stderr would tear the progress display; errors reach the callers as exceptions
    return {
        "bootstrap.servers": settings.bootstrap_servers,
        "log_level": 0,
        "socket.keepalive.enable": True,
        **_security(settings),
        **more,
    }


def _security(settings: KafkaSettings) -> dict[str, Any]:
    """What librdkafka takes of TLS and of the login; what is not set is left to it."""
    by_token = settings.sasl_mechanism == "OAUTHBEARER"
    entries = {
        "security.protocol": settings.security_protocol,
        "sasl.mechanism": settings.sasl_mechanism,
        "sasl.username": settings.sasl_username,
        "sasl.password": settings.sasl_password.get_secret_value(),
        "sasl.oauthbearer.method": "oidc" if by_token else "",
        "sasl.oauthbearer.token.endpoint.url": settings.oauth_token_url,
        "sasl.oauthbearer.client.id": settings.oauth_client_id,
        "sasl.oauthbearer.client.secret": settings.oauth_client_secret.get_secret_value(),
        "sasl.oauthbearer.scope": settings.oauth_scope,
        "https.ca.location": settings.oauth_ca_location,
        "ssl.ca.location": settings.ssl_ca_location,
        "ssl.certificate.location": settings.ssl_certificate_location,
        "ssl.key.location": settings.ssl_key_location,
        "ssl.key.password": settings.ssl_key_password.get_secret_value(),
    }
    return {name: value for name, value in entries.items() if value}


def _answer(settings: KafkaSettings, ask: Callable[[], T]) -> T:
    """Asks again while it is too early. Raises KafkaUnavailable."""
    deadline = time.monotonic() + settings.timeout_s
    while True:
        try:
            return ask()
        except TimeoutError as error:
            raise _unavailable(settings, "does not answer", error) from error
        except KafkaException as error:
            if error.args[0].code() not in _NOT_YET or time.monotonic() > deadline:
                raise _unavailable(settings, "does not answer", error.args[0].str()) from error
            time.sleep(_POLL_S)


class Admin:
    """Topics and offsets. Calls block until the broker answered, at most `timeout_s` of the settings."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._client = AdminClient(_client(settings))

    def check(self) -> None:
        """Returns when a broker answered. Raises KafkaUnavailable."""
        self._topics()

    def _topics(self) -> dict[str, TopicMetadata]:
        try:
            return self._client.list_topics(timeout=self._settings.timeout_s).topics
        except KafkaException as error:
            raise _unavailable(self._settings, f"does not answer within {self._settings.timeout_s:g} s") from error

    def ensure(self, wanted: Iterable[Topic]) -> None:
        """Creates the topics that are absent and checks those that are present.

        Raises KafkaUnavailable, or SettingError for a topic whose settings would lose data.
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
            except (KafkaException, TimeoutError) as error:
                raise _unavailable(self._settings, f"does not say how topic {topic.name} is set", error) from error
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
        raise _unavailable(self._settings, f"has no leader for a partition of {', '.join(sorted(names))}")

    def partitions(self, topic: str) -> list[int]:
        """Partition numbers of `topic`; empty when there is no such topic."""
        try:
            metadata = self._client.list_topics(topic, timeout=self._settings.timeout_s).topics[topic]
        except KafkaException as error:
            raise _unavailable(self._settings, "does not answer", error) from error
        return sorted(metadata.partitions) if metadata.error is None else []

    def end_offsets(self, topic: str) -> dict[int, int]:
        """Partition → log-end offset. A read up to it has seen all that was published before the call."""
        return self._offsets(topic, _OFFSET.latest())

    def begin_offsets(self, topic: str) -> dict[int, int]:
        """Partition → offset of the first message that is still there."""
        return self._offsets(topic, _OFFSET.earliest())

    def _offsets(self, topic: str, spec: OffsetSpec) -> dict[int, int]:
        asked = {TopicPartition(topic, partition): spec for partition in self.partitions(topic)}
        return _answer(
            self._settings,
            lambda: {
                at.partition: future.result(self._settings.timeout_s).offset
                for at, future in (self._client.list_offsets(asked).items() if asked else ())
            },
        )


class Publisher:
    """An idempotent producer with a thread of its own for delivery reports."""

    def __init__(self, settings: KafkaSettings, name: str) -> None:
        self._settings = settings
        self._producer = Producer(
            _client(
                settings,
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
        )
        self._closed = threading.Event()
        self._reported = threading.Condition()
        self._unreported = 0  # messages whose delivery report has not come
        self._failed: KafkaUnavailable | None = None  # of a message since the last flush
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
        `delivery_timeout_s`. Raises RowRejected for a message that is too large, and KafkaUnavailable after `close`.
        """
        future: Future[tuple[int, int]] = Future()

        def delivered(error: KafkaError | None, message: _Message) -> None:
            failed = None if error is None else _unavailable(self._settings, "did not take a message", error.str())
            with self._reported:
                self._unreported -= 1
                self._failed = self._failed or failed
                self._reported.notify_all()
            if failed is None:
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
                    raise _unavailable(self._settings, "did not take a message", error.args[0].str()) from error
                setting = variable("kafka", "message_bytes_max")
                raise RowRejected(f"A message of {len(value)} bytes is more than {setting} allows.") from None
            else:
                with self._reported:
                    self._unreported += 1
                return future
        raise _unavailable(self._settings, "is no longer published to: this member has ended")

    def bury(self, topic: str, message: Message, reason: str) -> Future[tuple[int, int]]:
        """Queues the dead letter of `message`, without its content if that is too large. Else like `publish`."""
        try:
            return self.publish(topic, message.key, message.value, dead_letter_headers(message, reason))
        except RowRejected:
            return self.publish(topic, message.key[:_KEY_MAX], b"", without_content(message, reason))

    def flush(self) -> None:
        """Returns when every message published since the last flush is acknowledged. Raises KafkaUnavailable."""
        with self._reported:
            # every message is reported within the delivery time-out, be it as failed
            timeout_s = self._settings.delivery_timeout_s + self._settings.timeout_s
            if not self._reported.wait_for(lambda: self._unreported <= 0, timeout_s):
                raise _unavailable(self._settings, f"has not acknowledged {self._unreported} messages")
            failed, self._failed = self._failed, None
        if failed is not None:
            raise failed

    def close(self) -> None:
        """Flushes and ends the thread. Raises KafkaUnavailable like `flush`."""
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


def _headers(raw: _Message) -> dict[str, bytes]:
    try:
        found: Any = raw.headers()  # the stub has a type that cannot be unpacked
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
        self._settings, self._topic = settings, topic
        self._consumer = Consumer(
            _client(
                settings,
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

        Raises KafkaUnavailable when the client itself cannot go on.
        """
        if self._owed and time.monotonic() > self._commit_again_s:
            self.commit({})
        raw = self._consumer.poll(timeout_s)
        if raw is None:
            return None
        if (error := raw.error()) is not None:
            if error.fatal():
                raise _unavailable(self._settings, "ended this consumer", error.str())
            if error.str() != self._error:  # the same is told many times a second
                log.warning("consumer_trouble topic=%s reason=%s", self._topic, error.str())
            self._error = error.str()
            return None
        self._error = ""
        return _read(raw)

    def commit(self, offsets: Mapping[int, int], metadata: Mapping[int, str] | None = None) -> bool:
        """Commits partition → next offset, with what `committed` is to answer besides it. Blocks for the answer.

        False when the broker refused because the group moved on, or is away. The offsets are kept and tried again, by
        the next commit or poll, until they succeed or their partition is revoked.
        """
        texts = metadata or {}
        self._owed.update({partition: (offset, texts.get(partition, "")) for partition, offset in offsets.items()})
        if not self._owed:
            return True
        at = [TopicPartition(self._topic, partition, *owed) for partition, owed in self._owed.items()]
        try:
            self._consumer.commit(offsets=at, asynchronous=False)
        except KafkaException as error:
            log.info("commit_failed topic=%s reason=%s", self._topic, error.args[0].str())
            self._commit_again_s = time.monotonic() + _COMMIT_AGAIN_S
            return False
        self._owed.clear()
        return True

    def committed(self, partitions: Iterable[int]) -> dict[int, tuple[int, str]]:
        """Partition → offset and metadata, where something was committed. Blocks for the answer, `timeout_s` at most.

        Raises KafkaUnavailable.
        """
        asked = [TopicPartition(self._topic, partition) for partition in partitions]
        found = _answer(self._settings, lambda: self._consumer.committed(asked, self._settings.timeout_s))
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
        self._settings = settings
        self._ends = Admin(settings).end_offsets(topic)
        self._consumer = Consumer(
            _client(
                settings,
                **{
                    "group.id": f"{name}-unused",
                    "client.id": name,
                    "enable.auto.commit": False,
                    "fetch.wait.max.ms": idle_ms,
                    "enable.partition.eof": True,
                    "auto.offset.reset": "earliest",
                },
            )
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

        Raises KafkaUnavailable when the client cannot go on.
        """
        messages = []
        first = self._consumer.poll(timeout_s)  # `consume` alone would wait for as many as it may return
        for raw in [first, *self._consumer.consume(1_000, 0)] if first is not None else ():
            partition = raw.partition() or 0
            if (error := raw.error()) is not None:
                if error.code() == KafkaError._PARTITION_EOF:
                    self._behind.discard(partition)
                elif error.fatal():
                    raise _unavailable(self._settings, "ended this consumer", error.str())
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
        self._settings, self._topic = settings, topic
        self._admin = Admin(settings)
        self.partitions = 0  # of the topic, when it was measured last
        # the admin client has a call for this, and dies by it when the group's coordinator moves: librdkafka's #5040
        self._consumer = Consumer(_client(settings, **{"group.id": group, "enable.auto.commit": False}))

    def messages(self) -> int:
        """How many lie ahead of what the group has committed, or of the beginning where it has not.

        Those that the topic has dropped meanwhile do not count: nobody will commit them. Blocks for a handful of
        answers. Raises KafkaUnavailable.
        """
        begins = self._admin.begin_offsets(self._topic)
        self._consumer.poll(0)  # there is nothing to read, but troubles of the connection would heap up
        committed = _answer(self._settings, lambda: self._committed(begins))
        ends = self._admin.end_offsets(self._topic)
        self.partitions = len(ends)
        return sum(max(0, end - max(begins.get(at, 0), committed.get(at, 0))) for at, end in ends.items())

    def _committed(self, partitions: Iterable[int]) -> dict[int, int]:
        """Negative where nothing was."""
        asked = [TopicPartition(self._topic, partition) for partition in partitions]
        found = self._consumer.committed(asked, self._settings.timeout_s)
        for at in found:
            if at.error is not None:
                raise KafkaException(at.error)
        return {at.partition: at.offset for at in found}

    def close(self) -> None:
        self._consumer.close()


def read_all(settings: KafkaSettings, topic: str, name: str = "cartoray-read") -> Iterator[Message]:
    """Every message of the topic up to its present end. Raises KafkaUnavailable when it does not arrive in time."""
    follower = Follower(settings, topic, name)
    deadline = time.monotonic() + settings.timeout_s
    try:
        while not follower.caught_up:
            messages = follower.poll(_POLL_S)
            if messages:
                deadline = time.monotonic() + settings.timeout_s
            elif time.monotonic() > deadline:
                raise _unavailable(settings, f"sends no more of topic {topic}")
            yield from messages
    finally:
        follower.close()


def read_at(settings: KafkaSettings, topic: str, at: Iterable[tuple[int, int]]) -> Iterator[Message]:
    """The messages at (partition, offset), in the order given. A message that is no longer there is left out.

    Blocks up to `timeout_s` per message. Raises KafkaUnavailable.
    """
    there = set(Admin(settings).partitions(topic))
    consumer = Consumer(
        _client(
            settings,
            **{
                "group.id": "cartoray-read-at-unused",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 10,  # each new position waits for the fetch at the last one, by default 500
                "auto.offset.reset": "earliest",
            },
        )
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
                if time.monotonic() > deadline:
                    raise _unavailable(settings, f"does not send {topic}[{partition}]@{offset}")
    finally:
        consumer.close()
