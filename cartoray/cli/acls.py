"""`cartoray acls`: what an administrator of Kafka runs, so that each part of cartoray may do what it needs to."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Annotated

import typer

from cartoray.acls import MEANT, SERVICES, Acl, Service, acls
from cartoray.cli.common import JsonOption, settings
from cartoray.errors import UsageError
from cartoray.settings import KafkaSettings
from cartoray.topics import topics


def register(app: typer.Typer) -> None:
    app.command("acls")(acls_command)


def acls_command(
    principal: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[SERVICE=]User:NAME",
            help=f"who a service is, or all services are; repeatable; none: User:cartoray-SERVICE. "
            f"Services: {', '.join(SERVICES)}",
        ),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """The topics and the least rights that cartoray needs in Kafka, as commands for an administrator of Kafka's.

    Asks no Kafka: names, partitions and replicas are those of the settings. The commands may be run again.
    """
    kafka = settings().kafka
    principals = read_principals(principal or [])
    if json_:
        print(json.dumps(as_dict(kafka, principals)))
        return
    print("\n".join(commands(kafka, principals)))


def read_principals(given: list[str]) -> dict[Service, str]:
    """Raises UsageError."""
    found: dict[Service, str] = {service: f"User:cartoray-{service}" for service in SERVICES}
    for text in given:
        before, _, after = text.partition("=")
        chosen = [service for service in SERVICES if service == before]
        name = after if chosen else text
        if not name.startswith("User:"):
            raise UsageError(
                f"--principal is {text!r}; it takes User:NAME, or SERVICE=User:NAME with one of {', '.join(SERVICES)}."
            )
        found |= dict.fromkeys(chosen or SERVICES, name)
    return found


def as_dict(kafka: KafkaSettings, principals: Mapping[Service, str]) -> dict[str, object]:
    return {
        "topics": [
            {
                "name": topic.name,
                "partitions": topic.partitions,
                "replication": kafka.replication,
                "config": dict(topic.config),
            }
            for topic in topics(kafka)
        ],
        "acls": [
            {"service": service, "principal": principals[service], **vars(acl)}
            for service, needed in acls(kafka).items()
            for acl in needed
        ],
    }


def commands(kafka: KafkaSettings, principals: Mapping[Service, str]) -> Iterator[str]:
    """Lines for a shell, with comments; Kafka's own tools are on its path, and log in by `admin.properties`."""
    yield f'KAFKA="--bootstrap-server {kafka.bootstrap_servers} --command-config admin.properties"'
    yield "# topics"
    for topic in topics(kafka):
        config = " ".join(f"--config {name}={value}" for name, value in topic.config.items())
        yield (
            f"kafka-topics.sh $KAFKA --create --if-not-exists --topic {topic.name} --partitions {topic.partitions} "
            f"--replication-factor {kafka.replication} {config}"
        )
    for service, needed in acls(kafka).items():
        yield f"# {service}: {MEANT[service]}"
        for line in _granted(needed):
            yield f"kafka-acls.sh $KAFKA --add --allow-principal {shlex.quote(principals[service])} {line}"


def _granted(needed: tuple[Acl, ...]) -> Iterator[str]:
    """One line for all topics, or groups, on which the operations are the same."""
    operations: dict[tuple[str, str], list[str]] = {}
    for acl in needed:
        operations.setdefault((acl.resource, acl.name), []).append(acl.operation)
    names: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (resource, name), found in operations.items():
        names.setdefault((resource, tuple(sorted(found))), []).append(name)
    for (resource, of), on in sorted(names.items()):
        asked = " ".join(f"--operation {operation.title().replace('_', '')}" for operation in of)
        yield f"{asked} {' '.join(f'--{resource.lower()} {name}' for name in on)}"
