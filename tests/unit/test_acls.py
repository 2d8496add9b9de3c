"""The rights in Kafka are written once: what the docs and the command say is what the code declares."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cartoray.acls import SERVICES, acls
from cartoray.cli.acls import commands, read_principals
from cartoray.cli.main import app
from cartoray.errors import UsageError
from cartoray.settings import KafkaSettings

DOCS = Path(__file__).parents[2] / "docs/operations/security.md"
KAFKA = KafkaSettings(bootstrap_servers="kafka-1:9093", replication=3)


def test_the_docs_have_what_the_command_prints() -> None:
    assert "\n".join(commands(KAFKA, read_principals([]))) in DOCS.read_text()


def test_who_takes_over_a_service_cannot_do_what_another_does() -> None:
    may = {service: {(acl.operation, acl.name) for acl in of} for service, of in acls(KAFKA).items()}
    writers = {topic: {service for service in SERVICES if ("WRITE", topic) in may[service]} for topic in _topics()}
    assert writers == {
        "intel_jobs": {"orchestrator", "driver", "dlq"},
        "graph_data": {"driver", "intel", "dlq", "cartography"},
        "run_events": {"orchestrator", "driver", "intel", "ingestion"},
        "run_cancels": {"orchestrator"},
        "graph_ledger": {"ingestion"},
        "dead_letters": {"intel", "ingestion"},
    }
    assert {service for service in SERVICES if ("READ", "graph_data") in may[service]} == {"ingestion"}
    assert {acl.operation for of in acls(KAFKA).values() for acl in of if acl.resource == "GROUP"} == {
        "READ",
        "DESCRIBE",
    }


def _topics() -> list[str]:
    return ["intel_jobs", "graph_data", "run_events", "run_cancels", "graph_ledger", "dead_letters"]


def test_every_name_has_the_prefix() -> None:
    prefixed = acls(KAFKA.model_copy(update={"topic_prefix": "ours."}))
    assert all(acl.name.startswith("ours.") for of in prefixed.values() for acl in of)


def test_the_command_names_principals_as_it_is_told_and_needs_no_kafka(tmp_path: Path) -> None:
    environment = {"CARTORAY_KAFKA_BOOTSTRAP_SERVERS": "nowhere:1", "CARTORAY_CONFIG": ""}
    arguments = ["acls", "--principal", "User:all of us", "--principal", "intel=User:CN=intel,O=x"]
    text = CliRunner().invoke(app, arguments, env=environment, catch_exceptions=False).stdout
    principals = set(re.findall(r"--allow-principal ('[^']*'|\S+)", text))
    assert principals == {"'User:all of us'", "User:CN=intel,O=x"}
    found = json.loads(CliRunner().invoke(app, [*arguments, "--json"], env=environment).stdout)
    assert {entry["principal"] for entry in found["acls"] if entry["service"] == "intel"} == {"User:CN=intel,O=x"}
    assert len(found["acls"]) == sum(map(len, acls(KafkaSettings()).values()))
    assert [topic["name"] for topic in found["topics"]] == _topics()


@pytest.mark.parametrize("text", ["intel", "intel=", "nobody=User:x", "Group:x"])
def test_a_principal_of_another_form_is_refused_with_what_it_takes(text: str) -> None:
    with pytest.raises(UsageError, match="it takes User:NAME, or SERVICE=User:NAME with one of orchestrator, driver"):
        read_principals([text])
