"""Messages as releases have written them, byte for byte: `tests/data/messages-<format version>.json`.

    PYTHONPATH=tests python -m support.golden

adds what the file of the present version has not, and changes nothing that it has: what has been on a topic stays as it
was, and `tests/unit/test_golden.py` holds that it is still read.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from support import samples

from cartoray import wire
from cartoray.cluster.coordinator import read_event
from cartoray.dead_letters import read_dead_letter
from cartoray.jobs import FORMAT_VERSION, Job
from cartoray.messages import Message
from cartoray.queries import check_signature, decode_query
from ingestion.ledger import Ledger

FOLDER = Path(__file__).parents[1] / "data"


def chosen() -> Iterator[tuple[str, Message]]:
    """One message of each kind, by name."""
    for schema, message in zip(("vpc", "security group", "matchlink"), _rows(), strict=True):
        yield f"rows of a {schema}", message
    for name, step in zip(("cleanup", "all actions"), samples.step_messages(), strict=True):
        yield f"step: {name}", step
    for name, query in zip(("merge", "all types", "repeated", "cleanup"), samples.query_messages(), strict=True):
        yield f"query: {name}", query
    jobs = list(samples.job_messages())
    for name, job in (
        ("native", jobs[0]),
        ("wrapped", jobs[6]),
        ("of all accounts", jobs[-2]),
        ("a provider", jobs[-1]),
    ):
        yield f"job: {name}", job
    for event, message in zip(samples.events(), samples.event_messages(), strict=True):
        yield f"event: {event.kind}", message
    for name, record in zip(("base", "written"), samples.ledger_messages(), strict=True):
        yield f"ledger: {name}", record
    yield from (("dead letter", letter) for letter in samples.dead_letter_messages())


def _rows() -> Iterator[Message]:
    wanted = [samples.VPC, samples.SECURITY_GROUP, samples.ASSUMES]
    for schema in wanted:
        yield next(each for each in samples.rows_messages((4,)) if each.headers["schema"].decode() == schema)


def meaning(message: Message) -> str:  # noqa: PLR0911 - one for each kind
    """What it says, as text: equal if and only if it says the same."""
    match message.topic:
        case "intel_jobs":
            return _said(Job.model_validate_json(message.value))
        case "run_events":
            return _said(read_event(message))
        case "graph_ledger":
            ledger = Ledger()
            ledger.read([(message.key, message.value)])
            return " ".join(f"{name} {_said(each)}" for name, each in (*ledger._bases.items(), *ledger._others.items()))
        case "dead_letters":
            return repr(read_dead_letter(message))
    match wire.kind_of(message.headers):
        case "rows":
            return repr((wire.rows_header(message.headers), dict(wire.decode_rows(message.value))))
        case "step":
            return _said(wire.decode_step(message.value))
        case "query":
            check_signature(samples.SIGNING_KEY, message.headers, message.value)
            query = decode_query(message.value)
            text = "Cartography's" if query.cleanup else query.text
            return repr((wire.origin(message.headers), text, query.parameters, query.repeat, query.cleanup))


def _said(model: BaseModel) -> str:
    """Without what is as it is by default: a field that is added later says nothing about older messages."""
    return f"{type(model).__name__} {model.model_dump_json(exclude_defaults=True)}"


def read(path: Path) -> dict[str, tuple[Message, str]]:
    """Name → message, and what it meant when it was written."""
    return {name: (_message(entry), entry["means"]) for name, entry in json.loads(path.read_text()).items()}


def _message(entry: dict[str, Any]) -> Message:
    headers = {name: base64.b64decode(value) for name, value in entry["headers"].items()}
    key, value = base64.b64decode(entry["key"]), base64.b64decode(entry["value"])
    return Message(entry["topic"], entry["partition"], entry["offset"], key, value, headers)


def write(path: Path) -> None:
    """Adds to the file."""
    before: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    found = {
        name: {
            "topic": message.topic,
            "partition": message.partition,
            "offset": message.offset,
            "key": base64.b64encode(message.key).decode(),
            "headers": {header: base64.b64encode(value).decode() for header, value in message.headers.items()},
            "value": base64.b64encode(message.value).decode(),
            "means": meaning(message),
        }
        for name, message in chosen()
    }
    path.write_text(json.dumps({**found, **before}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    write(FOLDER / f"messages-{FORMAT_VERSION}.json")
