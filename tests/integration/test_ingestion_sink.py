"""From a real `graph_data` to a real Neo4j: nothing is lost, whatever dies, and nothing bad stops the rest."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress

import neo4j
import pytest
from ingestion_rows import (
    ACCOUNT,
    INSTANCE,
    OTHER,
    RANGE,
    RESERVATION,
    TAG,
    grouped,
    instances,
    items,
    messages,
    reservations,
    run,
    snapshot,
    wipe,
)
from ingestion_topics import Bench, sequences

from cartoray import wire
from cartoray.cancels import publish_cancel
from cartoray.dead_letters import read_dead_letter
from cartoray.events import BatchLanded, Deferral, MessageRefused, RunCancelled, StepLanded
from cartoray.kafka import read_all
from cartoray.messages import Message
from cartoray.queries import Query, encode_query
from cartoray.settings import Settings
from cartoray.steps import CleanupNodes, DeriveLinks, Settle
from ingestion.sink import Sink
from ingestion.writer import Writer

pytestmark = pytest.mark.stack


@pytest.fixture
def bench(stack_settings: Settings, graph: neo4j.Driver) -> Iterator[Bench]:
    run(graph, "UNWIND $ids AS id MERGE (:AWSAccount {id: id, lastupdated: 0})", ids=[ACCOUNT, OTHER])
    bench = Bench(stack_settings)
    yield bench
    bench.close()


def expected(graph: neo4j.Driver, settings: Settings, *of: Iterable[Message]) -> object:
    """The graph that the messages give when nothing goes wrong; leaves it empty but for the accounts."""
    writer = Writer(settings.neo4j, "test")
    writer.write(grouped(items(*of)))
    writer.close()
    found = snapshot(graph)
    wipe(graph)
    run(graph, "UNWIND $ids AS id MERGE (:AWSAccount {id: id, lastupdated: 0})", ids=[ACCOUNT, OTHER])
    return found


def scene() -> list[Message]:
    return [
        *messages(RESERVATION, reservations(40), per_message=10, module="a"),
        *messages(INSTANCE, instances(60), per_message=10, module="b"),
        *messages(INSTANCE, instances(30, OTHER), account=OTHER, per_message=10, module="c"),
    ]


def test_what_is_published_lands_and_is_reported_once(bench: Bench, graph: neo4j.Driver) -> None:
    want = expected(graph, bench.settings, scene())
    bench.publish(scene())
    with bench.sink() as sink:
        events = bench.until(bench.landed(13))
        while sink.status().in_flight:
            time.sleep(0.05)
        assert sink.status().rows_landed == 130
        assert sink.status().partitions == (0, 1)
    assert set(sequences(events).values()) == {1}
    assert sum(sum(event.rows) for event in events if isinstance(event, BatchLanded)) == 130
    assert snapshot(graph) == want


@pytest.mark.parametrize("point", ["after_write", "after_report"])
def test_a_death_between_two_steps_repeats_work_and_loses_none(bench: Bench, graph: neo4j.Driver, point: str) -> None:
    want = expected(graph, bench.settings, scene())
    bench.publish(scene())

    class Killed(BaseException):
        pass

    def die(name: str) -> None:
        if name == point:
            raise Killed

    first = Sink(bench.settings, "ingestion-0", die)
    with pytest.raises(Killed):
        first.run(threading.Event())
    with bench.sink():
        events = bench.until(bench.landed(13))
    assert snapshot(graph) == want
    assert {count for count in sequences(events).values()} <= {1, 2}


def test_a_second_run_of_a_member_that_drained_finds_nothing_left(bench: Bench) -> None:
    bench.publish(scene())
    with bench.sink():
        bench.until(bench.landed(13))
    with bench.sink() as sink:
        time.sleep(2)
        assert sink.status().rows_landed == 0


def test_two_members_share_the_work_and_the_graph_is_the_same(bench: Bench, graph: neo4j.Driver) -> None:
    want = expected(graph, bench.settings, scene())
    with bench.sink() as first:
        bench.publish(scene())
        with bench.sink() as second:
            deadline = time.monotonic() + 30
            while not (first.status().partitions and second.status().partitions):
                assert time.monotonic() < deadline
                time.sleep(0.1)
            bench.publish(scene())
            bench.until(lambda events: sequences(events).total() >= 20)
        bench.publish(scene())
        bench.until(lambda events: sequences(events).total() >= 39)
    assert snapshot(graph) == want


@pytest.mark.parametrize(
    "kind",
    [
        "garbage",
        "no such schema",
        "an abstract schema",
        "constants of lists",
        "a value that Neo4j refuses",
        "no headers",
    ],
)
def test_a_poison_message_goes_to_the_dead_letters_and_the_others_land(
    bench: Bench, graph: neo4j.Driver, kind: str
) -> None:
    (poison,) = messages(INSTANCE, instances(3), module="poison")
    if kind == "garbage":
        poison = Message("", 0, 0, poison.key, b"\xff" * 50, poison.headers)
    elif kind == "no such schema":
        headers = dict(poison.headers) | {"schema": b"cartography.models.aws.nothing:Nothing"}
        poison = Message("", 0, 0, poison.key, poison.value, headers)
    elif kind == "an abstract schema":
        headers = dict(poison.headers) | {"schema": b"cartography.models.core.nodes:CartographyNodeSchema"}
        poison = Message("", 0, 0, poison.key, poison.value, headers)
    elif kind == "constants of lists":
        headers = dict(poison.headers) | {"constants": b'{"AWS_ID": ["a"], "Region": "us-east-1"}'}
        poison = Message("", 0, 0, poison.key, poison.value, headers)
    elif kind == "no headers":
        poison = Message("", 0, 0, poison.key, poison.value, {})
    else:
        rows = [row | {"Tenancy": ["a", 1]} for row in instances(3)]
        (poison,) = messages(INSTANCE, rows, module="poison")
    good = scene()
    want = expected(graph, bench.settings, good)
    places = bench.publish([*good[:7], poison, *good[7:]])
    with bench.sink():
        events = bench.until(bench.landed(13))
        while not (dead := list(read_all(bench.settings.kafka, bench.topics.dead_letters.name))):
            time.sleep(0.1)
        events = bench.events()
    letter = read_dead_letter(dead[0])
    assert len(dead) == 1
    assert (letter.topic, letter.partition, letter.offset) == (bench.topics.data.name, *places[7])
    assert letter.reason
    assert (dead[0].key, dead[0].value, dict(letter.headers)) == (poison.key, poison.value, dict(poison.headers))
    refused = [event for event in events if isinstance(event, MessageRefused)]
    assert [event.job_id for event in refused] == ([] if kind == "no headers" else [f"run-1/{ACCOUNT}/poison"])
    assert snapshot(graph) == want


def test_a_missing_other_end_is_deferred_and_then_settled(bench: Bench, graph: neo4j.Driver) -> None:
    early, late = (
        list(messages(INSTANCE, instances(30), module="b")),
        list(messages(RESERVATION, reservations(8), module="a")),
    )
    with bench.sink():
        (place,) = bench.publish(early)
        events = bench.until(bench.landed(1))
        deferrals = [deferral for event in events if isinstance(event, BatchLanded) for deferral in event.deferrals]
        assert deferrals == [
            Deferral(partition=place[0], offset=place[1], relationship=number, rows=rows)
            for number, rows in ((1, 30), (2, 15))
        ]
        bench.publish(late)
        gone = Deferral(partition=place[0], offset=10_000, relationship=1, rows=7)
        nowhere = Deferral(partition=77, offset=0, relationship=1, rows=1)
        bench.publish([bench.step(Settle(deferrals=(*deferrals, gone, nowhere)))])
        step = next(
            e for e in bench.until(lambda e: any(isinstance(x, StepLanded) for x in e)) if e.kind == "step_landed"
        )
    assert isinstance(step, StepLanded)
    assert step.reason == ""
    assert step.relationships_settled == 24
    kinds = {entry.relationship: (entry.target_label, entry.rows, entry.sample) for entry in step.unresolved}
    assert kinds["AWSEC2Instance-MEMBER_OF_EC2_RESERVATION->AWSEC2Reservation"] == (
        "AWSEC2Reservation",
        6,
        ("r-8", "r-9"),
    )
    assert kinds["AWSEC2Instance-INSTANCE_PROFILE->AWSInstanceProfile"][1] == 15
    assert [entry.rows for entry in step.unresolved if "no longer in Kafka" in " ".join(entry.sample)] == [7, 1]
    assert run(graph, "MATCH (:AWSEC2Instance)-[r:MEMBER_OF_EC2_RESERVATION]->() RETURN count(r)") == [[24]]


def test_a_cleanup_runs_after_the_data_before_it_and_before_the_data_behind_it(
    bench: Bench, graph: neo4j.Driver
) -> None:
    bench.publish(messages(INSTANCE, instances(10), tag=TAG - 1, module="old"))
    bench.publish(messages(INSTANCE, instances(4), per_message=1, module="new"))
    bench.publish([bench.step(CleanupNodes(schema_path=INSTANCE))])
    bench.publish(messages(INSTANCE, [{"InstanceId": "i-late"}], tag=TAG - 1, module="late"))
    with bench.sink():
        events = bench.until(bench.landed(6))
    (step,) = [event for event in events if isinstance(event, StepLanded)]
    assert (step.nodes_deleted, step.relationships_deleted, step.reason) == (6, 6, "")
    found = run(graph, "MATCH (n:AWSEC2Instance) RETURN n.id ORDER BY n.id")
    assert found == [[f"i-{ACCOUNT}-{number:05}"] for number in range(4)] + [["i-late"]]


def test_of_a_cancelled_run_nothing_lands_and_nothing_is_deleted_any_more(bench: Bench, graph: neo4j.Driver) -> None:
    old = list(messages(INSTANCE, instances(10), tag=TAG - 1, run="old", module="old"))
    with bench.sink() as sink:
        bench.publish(old)
        bench.until(bench.landed(1))
        before = snapshot(graph)
        publish_cancel(bench.settings.kafka, RunCancelled(run_id="run-1", at_ms=1))
        while "run-1" not in sink._cancels:
            time.sleep(0.05)
        header = wire.Origin("run-1", TAG, f"run-1/{ACCOUNT}/query", "attempt-1", 0)
        value = encode_query(Query("MATCH (n:AWSEC2Instance) DETACH DELETE n", {}))
        query = Message("", 0, 0, ACCOUNT.encode(), value, dict(wire.query_headers(header)))
        cleanup = bench.step(CleanupNodes(schema_path=INSTANCE))
        of_it = [*messages(INSTANCE, instances(4), per_message=1, module="new"), query, cleanup]
        bench.publish([*of_it, *old])  # behind these in their partition
        bench.until(lambda events: sequences(events).total() == 2)
    with bench.sink():  # one that comes later knows of it as well
        bench.publish([*of_it, *old])
        bench.until(lambda events: sequences(events).total() == 3)
    assert snapshot(graph) == before
    assert {type(event) for event in bench.events()} == {BatchLanded, RunCancelled}


def test_a_run_does_not_look_for_what_is_stale_among_nodes_that_it_made_itself(
    bench: Bench, graph: neo4j.Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    cleaned: list[str] = []
    delete = Writer.delete
    monkeypatch.setattr(Writer, "delete", lambda self, query, _: cleaned.append(query) or delete(self, query, _))
    bench.publish(messages(INSTANCE, instances(2)))
    bench.publish([bench.step(CleanupNodes(schema_path=INSTANCE), step_id="first")])
    with bench.sink():
        bench.until(lambda events: any(isinstance(event, StepLanded) for event in events))
    assert not cleaned
    bench.publish(messages(INSTANCE, instances(1), tag=TAG + 1, run="run-2"))
    bench.publish([bench.step(CleanupNodes(schema_path=INSTANCE), step_id="second", tag=TAG + 1)])
    with bench.sink():
        bench.until(lambda events: sum(isinstance(event, StepLanded) for event in events) == 2)
    assert cleaned
    assert run(graph, "MATCH (n:AWSEC2Instance) RETURN n.id") == [[f"i-{ACCOUNT}-00000"]]


def test_a_cleanup_that_stock_does_for_all_accounts_at_once_leaves_other_accounts_alone(
    bench: Bench, graph: neo4j.Driver
) -> None:
    """Another account's job may have failed, or not have landed yet."""
    run(
        graph,
        "UNWIND $ids AS id MATCH (a:AWSAccount {id: id}) "
        "CREATE (a)-[:RESOURCE {lastupdated: 0}]->(v:AWSVpc {id: 'vpc-' + id, lastupdated: 0})"
        "-[:BLOCK_ASSOCIATION {lastupdated: 0}]->(:AWSCidrBlock:AWSIpv4CidrBlock {id: 'cidr-' + id, lastupdated: 0})",
        ids=[ACCOUNT, OTHER],
    )
    blocks = "cartography.models.aws.ec2.vpc_cidr:AWSIPv4CidrBlockSchema"
    bench.publish([bench.step(CleanupNodes(schema_path=blocks))])
    with bench.sink():
        events = bench.until(lambda events: any(isinstance(event, StepLanded) for event in events))
    (step,) = [event for event in events if isinstance(event, StepLanded)]
    assert (step.reason, step.relationships_deleted) == ("", 1)
    assert run(graph, "MATCH (v:AWSVpc)-[:BLOCK_ASSOCIATION]->() RETURN v.id") == [[f"vpc-{OTHER}"]]


def test_a_step_that_cannot_be_done_says_why_and_holds_nothing_up(bench: Bench) -> None:
    bench.publish(
        [
            bench.step(CleanupNodes(schema_path="cartography.models.aws.nothing:Nothing"), step_id="a"),
            bench.step(DeriveLinks(schema_path=RANGE), step_id="b"),
            Message("", 0, 0, ACCOUNT.encode(), b"not a step", bench.step(Settle(deferrals=()), step_id="c").headers),
        ]
    )
    with bench.sink():
        events = bench.until(lambda events: len(events) >= 3)
    reasons = {event.step_id: event.reason for event in events if isinstance(event, StepLanded)}
    assert "has no schema" in reasons["a"]
    assert "not among the links" in reasons["b"]
    assert "Not a step" in reasons["c"]


class Proxy:
    """A door in front of Neo4j that can be shut, as a network or a server that is away does."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self.shut = False
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.shut:
                client.close()
                continue
            server = socket.create_connection(self._target)
            self._open |= {client, server}
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close_door(self) -> None:
        self.shut = True
        for end in self._open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def close(self) -> None:
        self.close_door()
        self._listener.close()


def test_a_neo4j_that_goes_away_is_waited_for_and_nothing_is_refused(bench: Bench, graph: neo4j.Driver) -> None:
    want = expected(graph, bench.settings, scene())
    host, port = bench.settings.neo4j.uri.rsplit("/", 1)[1].split(":")
    proxy = Proxy(host, int(port))
    away = bench.settings.neo4j.model_copy(update={"uri": f"bolt://127.0.0.1:{proxy.port}", "timeout_s": 1})
    bench.settings = bench.settings.model_copy(update={"neo4j": away})
    once = iter([proxy.close_door])
    with bench.sink(lambda name: next(once, lambda: None)() if name == "after_write" else None) as sink:
        bench.publish(scene()[:4])
        bench.until(lambda events: bool(sequences(events)))
        bench.publish(scene()[4:])
        deadline = time.monotonic() + 20
        while "Driver.Unreachable" not in sink.status().trouble:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(2)
        assert sink.status().partitions == (0, 1)  # still a member, still polling
        assert snapshot(graph) != want
        proxy.shut = False
        bench.until(bench.landed(13), timeout_s=60)
        assert sink.status().trouble == ""
    proxy.close()
    assert snapshot(graph) == want
    assert list(read_all(bench.settings.kafka, bench.topics.dead_letters.name)) == []


def test_a_message_larger_than_a_batch_lands_in_parts(bench: Bench, graph: neo4j.Driver) -> None:
    big = list(messages(INSTANCE, instances(95), per_message=95))
    want = expected(graph, bench.settings, big)
    small = bench.settings.ingestion.model_copy(update={"batch_rows": 20})
    bench.settings = bench.settings.model_copy(update={"ingestion": small})
    bench.publish(big)
    with bench.sink():
        (event,) = (e for e in bench.until(bench.landed(1)) if isinstance(e, BatchLanded))
    assert event.rows == (95,)
    assert sum(deferral.rows for deferral in event.deferrals if deferral.relationship == 1) == 95
    assert snapshot(graph) == want
