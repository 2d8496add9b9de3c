"""Whatever data says is a value, and no part of it is ever in the text of a query. The driver tells what it sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import neo4j
import pyarrow as pa
import pytest
from ingestion_rows import ACCOUNT, INSTANCE, RESERVATION, SECURITY_GROUP, TAG, VOLUME, messages, run
from ingestion_topics import Bench

from cartoray import schemas, wire
from cartoray.events import BatchLanded, Event, MessageRefused, StepLanded
from cartoray.settings import Settings
from cartoray.steps import Analyse, CleanupNodes, DeriveLinks, MarkSynced
from ingestion.statements import statements

pytestmark = pytest.mark.stack

MARK = "h0stile"  # in everything that is planted
CYPHER = (
    f"{MARK}'}}) DETACH DELETE n //",
    f'{MARK}"` {{id: 1}}) MATCH (n) DETACH DELETE n //',
    f"{MARK}\x00\n*/ $lastupdated item.id {{0}} %s \\u0027) DETACH DELETE n /* \\",
)
LINK = "cartography.models.aws.s3.notification:S3BucketToSNSTopicRel"


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """The text of every query that goes to Neo4j in this process."""
    found: set[str] = set()
    for kind in (neo4j.Session, neo4j.Transaction, neo4j.ManagedTransaction):
        send = kind.run

        def note(self: Any, query: Any, *arguments: Any, send: Any = send, **named: Any) -> Any:
            found.add(str(query))
            return send(self, query, *arguments, **named)

        monkeypatch.setattr(kind, "run", note)
    yield found


@pytest.fixture
def bench(stack_settings: Settings, graph: neo4j.Driver) -> Iterator[Bench]:
    bench = Bench(stack_settings)
    yield bench
    bench.close()


def row(schema: str, number: int, text: str) -> dict[str, Any]:
    """Hostile in every field; its id is another in each row."""
    fields = schemas.fields(schema)
    lists = {fields[each.list_at] for each in statements(schema).relationships if each.list_at is not None}
    return {name: [text] if name in lists else f"{text} {number}" for name in fields}


def everything_ended(messages_sent: int, steps_sent: int) -> Any:
    def ended(events: list[Event]) -> bool:
        done = sum(len(event.sequences) for event in events if isinstance(event, BatchLanded))
        done += sum(isinstance(event, MessageRefused) for event in events)
        return done >= messages_sent and sum(isinstance(event, StepLanded) for event in events) >= steps_sent

    return ended


def test_values_ids_accounts_and_regions_are_never_in_the_text_of_a_query(
    bench: Bench, graph: neo4j.Driver, texts: set[str]
) -> None:
    run(graph, "UNWIND $ids AS id CREATE (:AWSAccount {id: id, lastupdated: 0})", ids=list(CYPHER))
    sent = [
        message
        for place, text in enumerate(CYPHER)
        for schema in (RESERVATION, INSTANCE, SECURITY_GROUP, VOLUME)
        for message in messages(
            schema,
            [row(schema, number, text) for number in range(2)],
            account=text,
            region=text,
            run=f"run-{place}",
            module=schema.rpartition(":")[2],
        )
    ]
    for message in sent:  # a job's id has its account in it, between slashes
        message.headers["job"] = message.headers["run"] + b"/account/" + message.headers["schema"].rpartition(b":")[2]
    steps = [
        bench.step(*actions, step_id=f"{number}-{place}", account=text, tag=TAG + 1, run=f"run-{place}")
        for place, text in enumerate(CYPHER)
        for number, actions in enumerate(
            (
                [CleanupNodes(schema_path=VOLUME)],
                [CleanupNodes(schema_path=VOLUME, of=text)],
                [CleanupNodes(schema_path=LINK, of=f"AWSS3Bucket WITH part MATCH (n) DETACH DELETE n // {text}")],
                [CleanupNodes(schema_path=f"cartography.models.aws.ec2.volumes:{text}")],
                [MarkSynced(label=text)],
                [DeriveLinks(schema_path=text)],
                [Analyse(path=f"cartography.analysis:{text}")],
            )
        )
    ]
    with bench.sink():
        bench.publish([*sent, *steps])
        events = bench.until(everything_ended(len(sent), len(steps)), timeout_s=120)
    assert texts and not [text for text in texts if MARK in text]
    assert not [event for event in events if isinstance(event, MessageRefused)]
    # and they are in the graph as they were, on the nodes of hostile accounts
    found = run(graph, "MATCH (a:AWSAccount)-[:RESOURCE]->(i:AWSEC2Instance) RETURN a.id, i.region, i.state, i.id")
    assert {(account, region) for account, region, _, _ in found} == {(text, text) for text in CYPHER}
    assert {instance for *_, instance in found} == {f"{text} {number}" for text in CYPHER for number in range(2)}
    reasons = {event.step_id: event.reason for event in events if isinstance(event, StepLanded)}
    for place in range(len(CYPHER)):
        refused = [bool(reasons[f"{number}-{place}"]) for number in range(7)]
        assert refused == [False, True, True, True, False, True, True], reasons


def test_the_name_of_a_column_becomes_no_property_and_no_part_of_a_query(
    bench: Bench, graph: neo4j.Driver, texts: set[str]
) -> None:
    (message,) = messages(VOLUME, [{"VolumeId": "vol-1", "Arn": "arn:vol-1"}])
    table = pa.table({name: ["x"] for name in (*schemas.fields(VOLUME), f"{MARK}` = 1 DETACH DELETE n //")})
    (value,) = wire.split(table, 900_000)
    with bench.sink():
        bench.publish([type(message)("", 0, 0, ACCOUNT.encode(), value, message.headers)])
        events = bench.until(everything_ended(1, 0))
    assert not [text for text in texts if MARK in text]
    assert [type(event) for event in events] == [BatchLanded]
    ((names,),) = run(graph, "MATCH (v:AWSEBSVolume) RETURN keys(v)")
    assert "volumeid" in names and not any(MARK in name for name in names)
