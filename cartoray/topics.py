"""The topics of cartoray: names, keys, partitions, retention. Everything durable outside of Neo4j is in these."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cartoray.settings import KafkaSettings


@dataclass(frozen=True)
class Topic:
    """A topic as it should be: `config` holds only what cartoray's correctness or its users' disks depend on."""

    name: str
    partitions: int
    config: Mapping[str, str]


@dataclass(frozen=True)
class Topics:
    """The topics, in the order in which a row passes them."""

    jobs: Topic  # key: account, so that one actor holds an account's credentials, clients and rate limiter
    data: Topic  # key: account; order inside a partition puts cleanup after its data without a lock
    events: Topic  # key: the fact, so that compaction drops what was told twice
    cancels: Topic  # key: the run; see `cartoray.cancels`
    ledger: Topic  # key: who counts; see `ingestion.ledger`
    dead_letters: Topic  # key: that of the message

    def __iter__(self) -> Iterator[Topic]:
        return iter((self.jobs, self.data, self.events, self.cancels, self.ledger, self.dead_letters))


def topics(settings: KafkaSettings) -> Topics:
    retention = str(settings.retention_hours * 3_600_000)
    keep = {"cleanup.policy": "delete", "retention.ms": retention}
    name = f"{settings.topic_prefix}{{}}".format
    return Topics(
        jobs=Topic(name("intel_jobs"), settings.jobs_partitions, keep),
        data=Topic(
            name("graph_data"),
            settings.data_partitions,
            # the values are compressed by Arrow; headers and keys are added to them, hence the room above the limit
            keep | {"max.message.bytes": str(settings.message_bytes_max + 100_000)},
        ),
        events=Topic(
            name("run_events"),
            8,
            {
                "cleanup.policy": "compact,delete",
                "retention.ms": retention,
                "max.message.bytes": str(settings.message_bytes_max + 200_000),  # a plan of 10,000 accounts has 500 KB
            },
        ),
        # 1 partition, since every worker reads all of it when it starts
        cancels=Topic(name("run_cancels"), 1, {"cleanup.policy": "compact,delete", "retention.ms": retention}),
        ledger=Topic(
            name("graph_ledger"),
            1,  # since it is read in order
            # the newest record of each member is kept for ever, and little else, since all is read when a run begins
            {"cleanup.policy": "compact", "segment.ms": "600000", "min.cleanable.dirty.ratio": "0.1"},
        ),
        dead_letters=Topic(
            name("dead_letters"),
            4,
            keep | {"retention.ms": "-1", "max.message.bytes": str(settings.message_bytes_max + 200_000)},
        ),
    )


def group(settings: KafkaSettings, pool: str) -> str:
    """The consumer group of a pool: `cartoray.intel`, `cartoray.ingestion`."""
    return f"{settings.topic_prefix}cartoray.{pool}"
