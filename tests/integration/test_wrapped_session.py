"""The session that stands in for neo4j's: Cartography's own functions write through Kafka what they write to Neo4j."""

from __future__ import annotations

import secrets
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import Any

import neo4j
import pytest
from cartography.client.core.tx import (
    load,
    load_matchlinks,
    read_list_of_dicts_tx,
    read_list_of_values_tx,
    read_single_value_tx,
    run_write_query,
)
from cartography.graph.job import GraphJob
from cartography.graph.querybuilder import build_ingestion_query, build_matchlink_query
from cartography.graph.statement import GraphStatement
from cartography.models.aws.ec2.instances import EC2InstanceSchema, EC2InstanceToRoleAssumesMatchLink
from cartography.models.aws.ec2.reservations import EC2ReservationSchema
from cartography.models.aws.ec2.vpc import AWSVpcSchema
from cartography.models.aws.ec2.vpc_cidr import AWSIPv4CidrBlockSchema
from ingestion_rows import snapshot, wipe

from actors.wrapped.schema_queries import cleanup_of, schema_of
from actors.wrapped.session import GraphDriver, GraphSession
from actors.wrapped.stream import WriteRefused
from cartoray import schemas
from cartoray.dead_letters import read_dead_letter
from cartoray.errors import KafkaUnavailable
from cartoray.events import EVENT, QueryLanded
from cartoray.kafka import Admin, Follower, Publisher, read_all
from cartoray.messages import Message
from cartoray.queries import SIGNATURE, Cleanup, Query, decode_query, encode_query
from cartoray.settings import Settings
from cartoray.topics import Topics, topics
from ingestion.sink import Sink

pytestmark = pytest.mark.stack

ACCOUNT, REGION = "111111111111", "eu-west-1"


class Bench:
    """Topics of its own and a member of the ingestion pool."""

    def __init__(self, settings: Settings, signing_key: str | None = None) -> None:
        changed = {"topic_prefix": f"w{secrets.token_hex(4)}.", "data_partitions": 2, "signing_key": signing_key}
        kafka = type(settings.kafka).model_validate(settings.kafka.model_dump() | changed)
        self.settings = settings.model_copy(update={"kafka": kafka})
        self.topics: Topics = topics(kafka)
        Admin(kafka).ensure(self.topics)

    @contextmanager
    def serving(self, settings: Settings | None = None) -> Iterator[None]:
        sink, stop = Sink(settings or self.settings, "ingestion-0"), threading.Event()
        thread = threading.Thread(target=sink.run, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(30)
            assert not thread.is_alive()

    def reasons(self) -> list[str]:
        return [read_dead_letter(each).reason for each in read_all(self.settings.kafka, self.topics.dead_letters.name)]


@pytest.fixture
def bench(stack_settings: Settings, graph: neo4j.Driver) -> Bench:
    assert graph
    return Bench(stack_settings)


def play(session: Any, tag: int) -> list[Any]:
    """What modules of Cartography do, one way after the other; answers what they read on the way."""
    session.run("CREATE INDEX IF NOT EXISTS FOR (n:AWSAccount) ON (n.id)")
    session.run(
        "MERGE (a:AWSAccount{id: $id}) SET a.lastupdated = $tag, a.seen = $seen", id=ACCOUNT, tag=tag, seen=SEEN
    )
    kwargs = {"lastupdated": tag, "AWS_ID": ACCOUNT, "Region": REGION}
    vpcs = [{"VpcId": f"vpc-{n}", "State": "available", "IsDefault": n == 0} for n in range(3 if tag == 1 else 2)]
    load(session, AWSVpcSchema(), vpcs, **kwargs)
    blocks = [{"Id": f"vpc-0|10.{n}.0.0/16", "VpcId": "vpc-0", "CidrBlock": f"10.{n}.0.0/16"} for n in range(2)]
    load(session, AWSIPv4CidrBlockSchema(), blocks, **kwargs)
    found = [session.execute_read(read_list_of_values_tx, "MATCH (v:AWSVpc) RETURN v.id ORDER BY v.id")]
    load(session, EC2ReservationSchema(), [{"ReservationId": "r-1"}], **kwargs)
    load(session, EC2InstanceSchema(), [{"InstanceId": f"i-{n}", "ReservationId": "r-1"} for n in range(300)], **kwargs)
    run_write_query(
        session, "UNWIND $ids AS id MERGE (r:AWSRole{id: id, arn: id}) SET r.lastupdated = 1", ids=["a", "b"]
    )
    pairs = [{"instance_id": f"i-{n}", "role_arn": "a" if n % 2 else "b"} for n in range(150)]
    scope = {"_sub_resource_label": "AWSAccount", "_sub_resource_id": ACCOUNT}
    load_matchlinks(session, EC2InstanceToRoleAssumesMatchLink(), pairs, lastupdated=tag, **scope)
    found.append(session.execute_read(read_single_value_tx, "MATCH (:AWSEC2Instance)-[r:ASSUMES]->() RETURN count(r)"))
    parameters = {"UPDATE_TAG": tag, "AWS_ID": ACCOUNT}
    GraphJob.from_node_schema(AWSVpcSchema(), parameters).run(session)
    statement = "MATCH (i:AWSEC2Instance) WHERE i.mark IS NULL WITH i LIMIT $LIMIT_SIZE SET i.mark = $tag"
    GraphStatement(statement, {"tag": tag}, iterative=True, iterationsize=100).run(session)
    found.append(session.run("MATCH (i:AWSEC2Instance) RETURN count(i.mark) AS marks").single()["marks"])
    written = session.execute_write(lambda tx: tx.run("MERGE (x:Extra{id: 1}) RETURN x.id AS id, labels(x)").data())
    found += [written, session.execute_read(read_list_of_dicts_tx, "MATCH (a:AWSAccount) RETURN a.id AS id")]
    with session.begin_transaction() as transaction:
        transaction.run("MATCH (x:Extra) SET x.values = $values", values=[1, 2, 3])
        transaction.commit()
    return found


SEEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@contextmanager
def opened(settings: Settings, name: str = "cartography") -> Iterator[GraphSession]:
    with GraphDriver(settings, name) as driver, driver.session() as session:
        yield session


def test_the_graph_and_what_is_read_are_those_of_neo4js_own_session(bench: Bench, graph: neo4j.Driver) -> None:
    with graph.session() as session:
        read = [play(session, tag) for tag in (1, 2)]
    want = snapshot(graph)
    wipe(graph)
    with bench.serving(), opened(bench.settings) as session:
        assert [play(session, tag) for tag in (1, 2)] == read
    assert snapshot(graph) == want
    assert bench.reasons() == []


def test_what_has_a_schema_travels_by_it_and_the_rest_as_queries(bench: Bench) -> None:
    with bench.serving(), opened(bench.settings) as session:
        play(session, 1)
    messages = list(read_all(bench.settings.kafka, bench.topics.data.name))
    kinds = [message.headers["kind"] for message in messages]
    assert kinds.count(b"rows") == 5
    assert kinds.count(b"query") == 8
    sent = [decode_query(message.value) for message in messages if message.headers["kind"] == b"query"]
    assert not [query.text for query in sent if "UNWIND $DictList" in query.text]
    cleanups = {query.cleanup for query in sent} - {None}
    assert cleanups == {Cleanup("cartography.models.aws.ec2.vpc:AWSVpcSchema", number) for number in range(2)}


def test_indexes_that_rows_do_not_bring_are_made_too(bench: Bench, graph: neo4j.Driver) -> None:
    kwargs = {"lastupdated": 1, "AWS_ID": ACCOUNT, "Region": REGION}
    with bench.serving(), opened(bench.settings) as session:
        session.run(f"CREATE INDEX IF NOT EXISTS FOR (n:Own{(own := secrets.token_hex(4))}) ON (n.id)")
        load(session, AWSVpcSchema(), [{"VpcId": "vpc-1"}], **kwargs)
    with graph.session() as plain:
        assert plain.run("SHOW INDEXES YIELD labelsOrTypes WHERE labelsOrTypes = [$it]", it=f"Own{own}").values()


def test_every_query_of_the_builder_is_known_again() -> None:
    for schema in (AWSVpcSchema(), EC2InstanceSchema(), EC2ReservationSchema()):
        path = schema_of(build_ingestion_query(schema))
        assert path is not None
        assert path.endswith(f":{type(schema).__name__}")
    link = EC2InstanceToRoleAssumesMatchLink()
    assert schema_of(build_matchlink_query(link)) == schemas.path_of(link)
    for schema, cascade in ((AWSVpcSchema(), False), (EC2InstanceSchema(), True), (link, False)):
        path = schemas.path_of(schema)
        for text in schemas.cleanup(path, cascade=cascade):
            cleanup = cleanup_of(text)
            assert cleanup is not None
            assert schemas.cleanup(cleanup.schema, cascade=cleanup.cascade)[cleanup.number] == text
            assert decode_query(encode_query(Query(text, {}, cleanup=cleanup))).text == text
    assert cleanup_of("MATCH (n:AWSVpc) DETACH DELETE n") is None
    assert schema_of("MERGE (i:AWSVpc{id: 1})") is None
    assert schema_of("RETURN 1") is None


def test_what_lands_late_is_related_when_the_session_ends(bench: Bench, graph: neo4j.Driver) -> None:
    kwargs = {"lastupdated": 1, "AWS_ID": ACCOUNT, "Region": REGION}
    with bench.serving(), opened(bench.settings) as session:
        load(session, EC2InstanceSchema(), [{"InstanceId": "i-1", "ReservationId": "r-1"}], **kwargs)
        load(session, EC2ReservationSchema(), [{"ReservationId": "r-1"}], **kwargs)
    with graph.session() as session:
        assert session.run("MATCH (:AWSEC2Instance)-[r]->(:AWSEC2Reservation) RETURN count(r)").single()[0] == 1


def test_rows_with_columns_of_mixed_types_arrive_as_they_are(bench: Bench, graph: neo4j.Driver) -> None:
    query = "UNWIND $DictList AS row MERGE (n:Odd{id: row.id}) SET n.value = row.value, n.deep = row.map.deep"
    rows = [{"id": 1, "value": "a", "map": {"deep": 1}}, {"id": 2, "value": 2, "map": None}, {"id": 3, "value": [True]}]
    with bench.serving(), opened(bench.settings) as session:
        run_write_query(session, query, DictList=rows)
    with graph.session() as session:
        found = session.run("MATCH (n:Odd) RETURN n.value, n.deep ORDER BY n.id").values()
    assert found == [["a", 1], [2, None], [[True], None]]


def test_what_ingestion_refuses_is_raised_with_neo4js_reason_and_the_rest_lands(
    bench: Bench, graph: neo4j.Driver
) -> None:
    with bench.serving(), GraphDriver(bench.settings) as driver, closing(driver.session()) as session:
        session.run("MERGE (n:Before{id: 1})")
        session.run("MERGE (n:Wrong{id: $nowhere})")
        session.run("MERGE (n:Behind{id: 1})")
        with pytest.raises(WriteRefused, match="nowhere"):
            session.flush()
    with graph.session() as plain:
        assert plain.run("MATCH (n) RETURN count(n)").single()[0] == 2
    assert len(bench.reasons()) == 1


def test_a_statement_with_a_limit_is_repeated_until_it_changes_nothing(bench: Bench, graph: neo4j.Driver) -> None:
    statement = "MATCH (n:Old) WITH n LIMIT $LIMIT_SIZE DETACH DELETE n"
    with bench.serving(), opened(bench.settings) as session:
        session.run("UNWIND range(1, 25) AS id CREATE (:Old{id: id})")
        GraphStatement(statement, iterative=True, iterationsize=10).run(session)
    with graph.session() as plain:
        assert plain.run("MATCH (n) RETURN count(n)").single()[0] == 0
    events = [
        EVENT.validate_json(message.value) for message in read_all(bench.settings.kafka, bench.topics.events.name)
    ]
    counted = [dict(event.counters) for event in events if isinstance(event, QueryLanded)]
    assert {"nodes_deleted": 25} in counted


def test_what_is_stale_is_kept_when_it_is_withheld(bench: Bench, graph: neo4j.Driver) -> None:
    kwargs = {"AWS_ID": ACCOUNT, "Region": REGION}
    with bench.serving(), opened(bench.settings) as session:
        load(session, AWSVpcSchema(), [{"VpcId": "v-1"}], lastupdated=1, **kwargs)
        session.withholds = lambda: True
        GraphJob.from_node_schema(AWSVpcSchema(), {"UPDATE_TAG": 2, "AWS_ID": ACCOUNT}).run(session)
    with graph.session() as plain:
        assert plain.run("MATCH (n:AWSVpc) RETURN count(n)").single()[0] == 1


def test_a_session_that_can_no_longer_follow_says_so_instead_of_waiting_for_ever(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> list[Message]:
        raise KafkaUnavailable("the client ended")

    with GraphDriver(bench.settings) as driver, closing(driver.session()) as session:
        monkeypatch.setattr(Follower, "poll", gone)
        session.run("MERGE (n:Never{id: 1})")  # nobody serves
        with pytest.raises(KafkaUnavailable, match="the client ended"):
            session.flush()


def test_rows_wait_while_ingestion_is_too_far_behind_and_other_queries_do_not(bench: Bench) -> None:
    limited = bench.settings.model_copy(
        update={"intel": bench.settings.intel.model_copy(update={"lag_messages_max": 1})}
    )
    reservations = [{"ReservationId": "r-1"}]
    unwind = "UNWIND $DictList AS row MERGE (n:Odd{id: row.id})"

    def write(session: GraphSession) -> None:
        load(session, EC2ReservationSchema(), reservations, lastupdated=1, AWS_ID=ACCOUNT, Region=REGION)
        session.run("MERGE (n:Small{id: 1})")
        GraphJob.from_node_schema(AWSVpcSchema(), {"UPDATE_TAG": 1, "AWS_ID": ACCOUNT}).run(session)
        passed.set()
        run_write_query(session, unwind, DictList=[{"id": 1}])
        load(session, EC2ReservationSchema(), reservations, lastupdated=2, AWS_ID=ACCOUNT, Region=REGION)

    passed = threading.Event()
    with GraphDriver(limited) as driver, closing(driver.session()) as session:
        thread = threading.Thread(target=write, args=(session,), daemon=True)
        thread.start()
        assert passed.wait(30)
        thread.join(3)  # more than a measuring, and until Kafka has what was sent before
        assert thread.is_alive()
        kinds = Counter(message.headers["kind"] for message in read_all(limited.kafka, bench.topics.data.name))
        assert kinds[b"rows"] == 1
        with bench.serving():
            thread.join(30)
            assert not thread.is_alive()
            session.flush()
    assert bench.reasons() == []


@pytest.mark.parametrize("wrong", ["unsigned", "another key", "altered"])
def test_with_a_signing_key_only_queries_of_who_has_it_are_run(
    stack_settings: Settings, graph: neo4j.Driver, wrong: str
) -> None:
    bench = Bench(stack_settings, signing_key="only-we-know")
    keys = {"unsigned": None, "another key": "guessed", "altered": "only-we-know"}
    other = bench.settings.kafka.model_copy(
        update={"signing_key": Bench(stack_settings, keys[wrong]).settings.kafka.signing_key}
    )
    if wrong == "altered":
        with GraphDriver(bench.settings, "other") as driver:
            driver.session().run("MERGE (n:Harmless{id: 1})")
        (message,) = read_all(bench.settings.kafka, bench.topics.data.name)
        assert SIGNATURE in message.headers
        headers = dict(message.headers) | {"tag": b"9"}
        publisher = Publisher(bench.settings.kafka, "test")
        publisher.publish(bench.topics.data.name, message.key, message.value, list(headers.items())).result()
        publisher.close()
    else:
        with GraphDriver(bench.settings.model_copy(update={"kafka": other})) as stranger:
            stranger.session().run("MERGE (n:Evil{id: 1})")
    with bench.serving(), opened(bench.settings) as session:
        session.run("MERGE (n:Good{id: 1})")
        session.flush()
        while not bench.reasons():
            pass
    assert ["CARTORAY_KAFKA_SIGNING_KEY" in reason for reason in bench.reasons()] == [True]
    with graph.session() as plain:
        labels = set(plain.run("MATCH (n) RETURN labels(n)[0]").value())
    assert labels == ({"Good", "Harmless"} if wrong == "altered" else {"Good"})
