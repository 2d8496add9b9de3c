"""What each part of cartoray may do in Kafka: the least that it needs, and the one place where that is written.

Docs, `cartoray acls` and the tests follow from it. Kafka grants DESCRIBE with READ and with WRITE; a producer of an
idempotent kind needs no right on the cluster since Kafka 3.0; nothing of cartoray's uses transactions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from cartoray.settings import KafkaSettings
from cartoray.topics import group, topics

Service = Literal["orchestrator", "driver", "intel", "ingestion", "dlq", "cartography"]
Operation = Literal["READ", "WRITE", "DESCRIBE", "DESCRIBE_CONFIGS"]
SERVICES: tuple[Service, ...] = get_args(Service)
MEANT: Mapping[Service, str] = {
    "orchestrator": "cartoray sync, status, runs and cancel",
    "driver": "cartoray serve",
    "intel": "actors that call the cloud's APIs",
    "ingestion": "actors that write to Neo4j",
    "dlq": "cartoray dlq",
    "cartography": "cartoray cartography",
}


@dataclass(frozen=True, order=True)
class Acl:
    """One operation on one topic or group, by its whole name."""

    resource: Literal["TOPIC", "GROUP"]
    name: str
    operation: Operation


def acls(settings: KafkaSettings) -> dict[Service, tuple[Acl, ...]]:
    """For each service all that it needs, and nothing that another of its rights implies."""
    names = topics(settings)
    jobs, data, events, cancels, ledger, dead = (topic.name for topic in names)
    intel, ingestion = group(settings, "intel"), group(settings, "ingestion")

    def of_topics(*operations_of: tuple[Operation, str]) -> tuple[Acl, ...]:
        return tuple(Acl("TOPIC", name, operation) for operation, name in operations_of)

    # whoever begins something looks whether the topics are there, and set so that they lose nothing
    looks: tuple[Operation, ...] = ("DESCRIBE_CONFIGS",)
    checks = of_topics(*((operation, topic.name) for topic in names for operation in looks))
    return {
        "orchestrator": (
            *of_topics(("WRITE", jobs), ("WRITE", events), ("READ", events), ("WRITE", cancels)),
            *of_topics(("DESCRIBE", data), ("DESCRIBE", ledger), ("DESCRIBE", dead)),
            *checks,
        ),
        "driver": (
            *of_topics(("WRITE", jobs), ("WRITE", data), ("WRITE", events), ("READ", events)),
            *of_topics(("DESCRIBE", cancels), ("DESCRIBE", ledger), ("DESCRIBE", dead)),
            *checks,
            *(Acl("GROUP", name, "DESCRIBE") for name in (intel, ingestion)),  # how far they are behind
        ),
        "intel": (
            *of_topics(("READ", jobs), ("WRITE", data), ("WRITE", events), ("READ", events), ("WRITE", dead)),
            *of_topics(("READ", cancels)),
            Acl("GROUP", intel, "READ"),
            Acl("GROUP", ingestion, "DESCRIBE"),  # rows wait while it is too far behind
        ),
        "ingestion": (
            *of_topics(("READ", data), ("WRITE", events), ("WRITE", dead), ("READ", ledger), ("WRITE", ledger)),
            *of_topics(("READ", cancels)),
            Acl("GROUP", ingestion, "READ"),
        ),
        "dlq": of_topics(("READ", dead), ("WRITE", jobs), ("WRITE", data)),
        "cartography": (
            *of_topics(("WRITE", data), ("READ", events)),
            *of_topics(("DESCRIBE", jobs), ("DESCRIBE", cancels), ("DESCRIBE", ledger), ("DESCRIBE", dead)),
            *checks,
            Acl("GROUP", ingestion, "DESCRIBE"),
        ),
    }
