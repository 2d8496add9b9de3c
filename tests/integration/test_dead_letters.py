"""`cartoray dlq`: what could not be used is kept as it was, says why, and can be sent again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.commands import cartoray, environment

from cartoray.dead_letters import dead_letter_headers
from cartoray.kafka import Admin, Publisher, read_all
from cartoray.messages import Message
from cartoray.settings import Settings
from cartoray.stack.simulated_aws import SimulatedAws
from cartoray.topics import Topics, topics

pytestmark = pytest.mark.stack

REASON = "Not a valid Arrow IPC stream: [red]no[/red] schema"


@dataclass(frozen=True)
class Refused:
    """A message on `graph_data` that was refused, and how to ask cartoray about it."""

    settings: Settings
    names: Topics
    message: Message
    letter: str
    variables: dict[str, str]


@pytest.fixture(scope="module")
def refused(stack_settings: Settings, simulated_aws: SimulatedAws) -> Iterator[Refused]:
    kafka = stack_settings.kafka.model_copy(update={"topic_prefix": "dlq."})
    settings = stack_settings.model_copy(update={"kafka": kafka})
    names = topics(kafka)
    Admin(kafka).ensure([names.data, names.dead_letters])
    publisher = Publisher(kafka, "test")
    headers = {"kind": b"rows", "run": b"run-1"}
    partition, offset = publisher.publish(names.data.name, b"111111111111", b"\xff\x00", list(headers.items())).result()
    message = Message(names.data.name, partition, offset, b"111111111111", b"\xff\x00", headers)
    at = publisher.publish(names.dead_letters.name, message.key, message.value, dead_letter_headers(message, REASON))
    letter = "{}:{}".format(*at.result())
    publisher.publish(names.dead_letters.name, b"x", b"not one of ours").result()
    publisher.close()
    yield Refused(settings, names, message, letter, environment(settings, simulated_aws))


def test_it_lists_where_each_came_from_and_why(refused: Refused, tmp_path: Path) -> None:
    done = cartoray("dlq", "list", "--json", environment=refused.variables, folder=tmp_path).expect(0)
    (found,) = done.result
    assert (found["letter"], found["reason"]) == (refused.letter, REASON)
    assert (found["topic"], found["partition"]) == (refused.message.topic, refused.message.partition)
    assert "Not a dead letter" in done.errors  # what somebody else put there is told, and hides nothing
    table = cartoray("dlq", "list", environment=refused.variables, folder=tmp_path).expect(0).output
    assert refused.letter in table
    assert "[red]no[/red]" in table


def test_it_shows_one_with_its_headers_and_bytes(refused: Refused, tmp_path: Path) -> None:
    shown = cartoray("dlq", "show", refused.letter, environment=refused.variables, folder=tmp_path).expect(0).output
    for part in (REASON, "run-1", r"b'\xff\x00'"):
        assert part in shown


def test_it_sends_one_again_as_it_was(refused: Refused, tmp_path: Path) -> None:
    cartoray("dlq", "replay", refused.letter, environment=refused.variables, folder=tmp_path).expect(0)
    found = list(read_all(refused.settings.kafka, refused.names.data.name))
    assert len(found) == 2
    assert all((one.key, one.value, one.headers) == (b"111111111111", b"\xff\x00", found[0].headers) for one in found)
    assert found[1].offset > refused.message.offset


@pytest.mark.parametrize("arguments", [("show", "9:9"), ("replay", "9:9"), ("replay",), ("replay", "0:0", "--all")])
def test_a_letter_that_is_not_there_or_not_named_is_a_usage_error(
    refused: Refused, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    done = cartoray("dlq", *arguments, environment=refused.variables, folder=tmp_path).expect(2)
    lines = [line for line in done.errors.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
