"""What the writer leaves in a real Neo4j is what stock Cartography leaves there, but complete after one pass."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone

import neo4j
import pytest
import pytz
from cartography.client.core.tx import load, load_matchlinks
from cartography.intel.aws.resourcegroupstaggingapi import _build_ingest_tag_query
from ingestion_rows import (
    ACCOUNT,
    ASSUMES,
    INBOUND,
    INSTANCE,
    OTHER,
    RANGE,
    REGION,
    RESERVATION,
    RULE,
    SECURITY_GROUP,
    TAG,
    VOLUME,
    Row,
    grouped,
    instances,
    items,
    messages,
    ranges,
    reservations,
    rules,
    run,
    security_groups,
    snapshot,
    volumes,
    wipe,
)

from cartoray import schemas
from cartoray.errors import GraphRefused, GraphUnavailable
from cartoray.queries import Query
from cartoray.settings import Neo4jSettings, Settings
from ingestion.derivations import derivation
from ingestion.statements import cleanups, statements
from ingestion.writer import Abandoned, WriteFailed, Writer

pytestmark = pytest.mark.stack

SCENE: list[tuple[str, list[Row]]] = [  # a schema whose other ends come later stands first on purpose
    (INSTANCE, instances(40)),
    (RESERVATION, reservations(14)),
    (SECURITY_GROUP, security_groups(12)),
    (RULE, rules(9)),
    (INBOUND, rules(9)),
    (RANGE, ranges(9)),
    (VOLUME, volumes(30)),
]


@pytest.fixture
def writer(stack_settings: Settings) -> Iterator[Writer]:
    writer = Writer(stack_settings.neo4j, "test")
    yield writer
    writer.close()


def stock(graph: neo4j.Driver, schema: str, rows: list[Row], tag: int = TAG, account: str = ACCOUNT) -> None:
    constants = {"lastupdated": tag, "AWS_ID": account, "Region": REGION}
    with graph.session() as session:
        load(session, schemas.node_schema(schema), [dict(row) for row in rows], **constants)


def accounts(graph: neo4j.Driver) -> None:
    run(graph, "UNWIND $ids AS id MERGE (:AWSAccount {id: id, lastupdated: 0})", ids=[ACCOUNT, OTHER])


def drop_schema(graph: neo4j.Driver) -> None:
    for (name,) in run(graph, "SHOW CONSTRAINTS YIELD name"):
        run(graph, f"DROP CONSTRAINT `{name}`")
    for (name,) in run(graph, "SHOW INDEXES YIELD name, type WHERE type <> 'LOOKUP' RETURN name"):
        run(graph, f"DROP INDEX `{name}`")


def test_one_pass_gives_what_stock_gives_after_two(graph: neo4j.Driver, writer: Writer) -> None:
    accounts(graph)
    for _ in range(2):
        for schema, rows in SCENE:
            stock(graph, schema, rows)
    expected = snapshot(graph)
    wipe(graph)
    accounts(graph)

    missing = writer.write(grouped(items(*(messages(schema, rows) for schema, rows in SCENE)))).missing

    assert snapshot(graph) == expected
    absent = {(entry.item.header.schema, entry.relationship): entry.rows for entry in missing}
    assert absent == {(INSTANCE, 2): 20, (SECURITY_GROUP, 1): 12, (SECURITY_GROUP, 2): 1}


def test_every_schema_alone_gives_what_stock_gives(graph: neo4j.Driver, writer: Writer) -> None:
    for schema, rows in SCENE:
        wipe(graph)
        accounts(graph)
        stock(graph, schema, rows)
        stock(graph, schema, rows)
        expected = snapshot(graph)
        wipe(graph)
        accounts(graph)
        writer.write(grouped(items(messages(schema, rows, per_message=4))))
        assert snapshot(graph) == expected, schema


def test_writing_again_changes_nothing(graph: neo4j.Driver, writer: Writer) -> None:
    accounts(graph)
    batch = items(*(messages(schema, rows) for schema, rows in SCENE))
    writer.write(grouped(batch))
    first = snapshot(graph), run(graph, "MATCH (n) RETURN n.id, n.firstseen ORDER BY elementId(n)")
    writer.write(grouped(batch))
    assert (snapshot(graph), run(graph, "MATCH (n) RETURN n.id, n.firstseen ORDER BY elementId(n)")) == first


def test_rows_that_did_not_change_are_only_touched(graph: neo4j.Driver, writer: Writer) -> None:
    accounts(graph)
    writer.write(grouped(items(messages(INSTANCE, instances(20)))))
    writer = again(writer)
    rows = [row | ({"State": "gone"} if number == 3 else {}) for number, row in enumerate(instances(20))]
    writer.write(grouped(items(messages(INSTANCE, rows, tag=TAG + 1))))
    assert writer.rows_unchanged == 19
    ours = snapshot(graph)
    stock(graph, INSTANCE, rows, tag=TAG + 1)
    assert snapshot(graph) == ours


def test_what_changed_is_written_as_stock_writes_it(graph: neo4j.Driver, writer: Writer) -> None:
    """Values that come, change, go, and change their type; one row of which nearly all is new; and a new one."""
    accounts(graph)
    writer.write(grouped(items(messages(INSTANCE, instances(20)))))
    writer = again(writer)
    rows = [dict(row) for row in instances(21)]
    rows[0] |= {"State": "stopping", "EbsOptimized": None}
    rows[1] |= {"LaunchTimeUnix": "never", "ImageId": "ami-1", "LaunchTime": datetime(2026, 1, 2, tzinfo=UTC)}
    rows[2] |= {name: f"{name}!" for name in schemas.fields(INSTANCE) if name not in ("InstanceId", "LaunchTime")}
    rows[3] |= {"Tenancy": ["a", "b"], "Platform": 1.5}
    writer.write(grouped(items(messages(INSTANCE, rows, tag=TAG + 1))))
    assert writer.rows_unchanged == 16
    ours = snapshot(graph)
    wipe(graph)
    accounts(graph)
    stock(graph, INSTANCE, rows, tag=TAG + 1)
    assert snapshot(graph) == ours


VALUES = [
    2**63 - 1,
    -(2**63),
    0.1,
    -0.0,
    float("nan"),
    float("inf"),
    True,
    "",
    "\u0000 ü \U0001f600",
    [],
    ["a", ""],
    [1, 2],
    [1.5, 2.0],
    [True, False],
    datetime(2026, 1, 2, 3, 4, 5, 678_900, tzinfo=UTC),
    datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=-5, minutes=-30))),
    pytz.timezone("Europe/Berlin").localize(datetime(2026, 7, 2)),
    datetime(2026, 1, 2),
    None,
]


def test_values_have_the_types_that_stock_gives_them(graph: neo4j.Driver, writer: Writer) -> None:
    """Written as new nodes, over other values, and over themselves."""
    typed = "MATCH (n:AWSEC2Instance) RETURN n.id, valueType(n.tenancy), n.tenancy ORDER BY n.id"
    rows = [{"InstanceId": f"i-{at:02}", "Tenancy": value} for at, value in enumerate(VALUES)]
    others = [row | {"Tenancy": VALUES[at - 1]} for at, row in enumerate(rows)]
    accounts(graph)
    stock(graph, INSTANCE, rows, tag=TAG)
    want = repr(run(graph, typed))
    wipe(graph)
    accounts(graph)
    for number, table in enumerate((rows, others, rows, rows)):
        # one value a message, since beside others of its column it may travel in another way
        writer.write(
            grouped(items(*(messages(INSTANCE, [row], tag=TAG + number, offset=at) for at, row in enumerate(table))))
        )
        writer = again(writer)
        if table is rows:
            assert repr(run(graph, typed)) == want, number


def test_what_another_schema_changed_is_put_right(graph: neo4j.Driver, writer: Writer) -> None:
    accounts(graph)
    writer.write(grouped(items(messages(INSTANCE, instances(4)))))
    run(graph, "MATCH (n:AWSEC2Instance) SET n.state = 'changed', n._module_version = '0.1' REMOVE n:ComputeInstance")
    writer = again(writer)
    writer.write(grouped(items(messages(INSTANCE, instances(4)))))
    assert writer.rows_unchanged == 0
    assert run(graph, "MATCH (n:ComputeInstance) WHERE n.state <> 'changed' RETURN count(n)") == [[4]]


def test_of_several_rows_of_an_id_the_last_one_wins_even_if_it_was_there(graph: neo4j.Driver, writer: Writer) -> None:
    accounts(graph)
    states = ["pending", "running", "pending"]
    rows = [{"InstanceId": "i-1", "State": state} for state in states]
    for count in (1, 3):
        writer = again(writer)
        writer.write(grouped(items(messages(INSTANCE, rows[:count]))))
        assert run(graph, "MATCH (n:AWSEC2Instance) RETURN n.state") == [["pending"]]


def again(writer: Writer) -> Writer:
    """As a new process, which does not remember that all rows were new a moment ago."""
    writer._compare_after.clear()
    return writer


def test_a_field_that_is_gone_is_removed_as_stock_does(graph: neo4j.Driver, writer: Writer) -> None:
    accounts(graph)
    writer.write(grouped(items(messages(INSTANCE, instances(2)))))
    writer.write(grouped(items(messages(INSTANCE, [{"InstanceId": f"i-{ACCOUNT}-00001"}]))))
    assert run(graph, "MATCH (n:AWSEC2Instance {id: $id}) RETURN n.state", id=f"i-{ACCOUNT}-00001") == [[None]]


def test_regions_accounts_and_runs_share_a_batch_and_the_later_row_wins(graph: neo4j.Driver, writer: Writer) -> None:
    accounts(graph)
    row = {"InstanceId": "i-1", "State": "running"}
    batch = items(
        messages(INSTANCE, [row], region="eu-west-1"),
        messages(INSTANCE, [{"InstanceId": "i-2"}], account=OTHER, region="eu-west-2", tag=TAG + 5),
        messages(INSTANCE, [row | {"State": "stopped"}], region="eu-west-3", tag=TAG + 1),
        messages(INSTANCE, [row | {"State": "pending"}], region="eu-west-1"),
    )
    writer.write(grouped(batch))
    found = run(
        graph,
        "MATCH (n:AWSEC2Instance)<-[:RESOURCE]-(a) RETURN n.id, n.region, n.state, n.lastupdated, a.id ORDER BY n.id",
    )
    assert found == [
        ["i-1", "eu-west-1", "pending", TAG + 1, ACCOUNT],
        ["i-2", "eu-west-2", None, TAG + 5, OTHER],
    ]


def test_lastupdated_never_goes_back(graph: neo4j.Driver, writer: Writer) -> None:
    accounts(graph)
    for tag in (TAG, TAG - 10):
        writer.write(grouped(items(messages(INSTANCE, instances(3), tag=tag))))
    assert run(graph, "MATCH (n:AWSEC2Instance)<-[r:RESOURCE]-() RETURN DISTINCT n.lastupdated, r.lastupdated") == [
        [TAG, TAG]
    ]


def test_writers_of_two_accounts_make_a_shared_node_once(graph: neo4j.Driver, stack_settings: Settings) -> None:
    accounts(graph)
    barrier = threading.Barrier(4)
    failures: list[str] = []

    def work(number: int) -> None:
        writer = Writer(stack_settings.neo4j, f"test-{number}")
        writer.ensure(RANGE, statements(RANGE).indexes)
        rows = [{"RangeId": f"10.0.{part}.0/24", "RuleId": None} for part in range(200)]
        barrier.wait()
        for _ in range(3):
            try:
                writer.write(grouped(items(messages(RANGE, rows, account=(ACCOUNT, OTHER)[number % 2]))))
                break
            except WriteFailed as error:  # a deadlock is allowed: it is tried again
                failures.append(error.failure.code)
        writer.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert run(graph, "MATCH (n:AWSIpRange) RETURN count(n)") == [[200]]
    assert run(graph, "MATCH (:AWSIpRange)<-[r:RESOURCE]-(a) RETURN a.id, count(r) ORDER BY a.id") == [
        [ACCOUNT, 200],
        [OTHER, 200],
    ]
    assert set(failures) <= {"Neo.TransientError.Transaction.DeadlockDetected"}


# ---- cleanup -------------------------------------------------------------------------------------------------------


def clean(writer: Writer, schema: str, tag: int, account: str = ACCOUNT) -> tuple[int, int]:
    nodes = relationships = 0
    for query in cleanups(schema).queries:
        done = writer.delete(query, {"AWS_ID": account, "UPDATE_TAG": tag, "LIMIT_SIZE": 1_000})
        nodes, relationships = nodes + done.nodes, relationships + done.relationships
    return nodes, relationships


def test_cleanup_deletes_what_is_older_than_its_run_and_nothing_newer(graph: neo4j.Driver, writer: Writer) -> None:
    accounts(graph)
    writer.write(grouped(items(messages(INSTANCE, instances(6), tag=TAG))))
    writer.write(grouped(items(messages(INSTANCE, instances(4), tag=TAG + 1))))
    writer.write(grouped(items(messages(INSTANCE, instances(2), tag=TAG + 2))))
    writer.write(grouped(items(messages(INSTANCE, instances(3, OTHER), account=OTHER, tag=TAG))))
    assert clean(writer, INSTANCE, TAG + 1) == (2, 2)
    assert run(graph, "MATCH (n:AWSEC2Instance) RETURN count(n)") == [[7]]
    assert run(graph, "MATCH (n) WHERE n._cartoray_lock IS NOT NULL RETURN count(n)") == [[0]]


def test_cleanup_deletes_relationships_that_are_gone(graph: neo4j.Driver, writer: Writer) -> None:
    accounts(graph)
    writer.write(grouped(items(messages(RESERVATION, reservations(2)), messages(INSTANCE, instances(3)))))
    moved = [row | {"ReservationId": "r-1"} for row in instances(3)]
    both = items(messages(RESERVATION, reservations(2), tag=TAG + 1), messages(INSTANCE, moved, tag=TAG + 1))
    writer.write(grouped(both))
    assert clean(writer, INSTANCE, TAG + 1) == (0, 3)
    assert run(graph, "MATCH (:AWSEC2Instance)-[]->(r:AWSEC2Reservation) RETURN DISTINCT r.id") == [["r-1"]]


@pytest.mark.parametrize("shared", ["node", "relationship"])
def test_what_another_transaction_refreshes_during_a_cleanup_survives(
    graph: neo4j.Driver, writer: Writer, shared: str
) -> None:
    accounts(graph)
    writer.write(grouped(items(messages(RANGE, [{"RangeId": "0.0.0.0/0"}], tag=TAG))))
    if shared == "node":
        refresh, query = "MATCH (n:AWSIpRange) SET n.lastupdated = $tag", cleanups(RANGE).queries[0]
    else:
        refresh, query = "MATCH (:AWSIpRange)<-[n:RESOURCE]-() SET n.lastupdated = $tag", cleanups(RANGE).queries[1]
    done: list[tuple[int, int]] = []

    def cleanup() -> None:
        result = writer.delete(query, {"AWS_ID": ACCOUNT, "UPDATE_TAG": TAG + 1, "LIMIT_SIZE": 10})
        done.append((result.nodes, result.relationships))

    with graph.session() as session, session.begin_transaction() as other:
        other.run(refresh, tag=TAG + 1).consume()  # holds the lock; nobody else sees the new value yet
        thread = threading.Thread(target=cleanup)
        thread.start()
        thread.join(1.0)
        assert thread.is_alive(), "the cleanup must have seen the old value, and wait for the lock"
        other.commit()
    thread.join(10)
    assert done == [(0, 0)]
    assert run(graph, "MATCH (n:AWSIpRange)<-[r:RESOURCE]-() RETURN count(*), n._cartoray_lock, r._cartoray_lock") == [
        [1, None, None]
    ]


def test_derived_links_are_stocks(graph: neo4j.Driver, writer: Writer) -> None:
    accounts(graph)
    writer.write(grouped(items(messages(INSTANCE, instances(6)))))
    run(
        graph,
        """UNWIND range(0, 3) AS k MERGE (p:AWSInstanceProfile {id: 'p' + k}) MERGE (r:AWSRole {arn: 'role-' + k % 2})
        MERGE (p)-[:ASSOCIATED_WITH]->(r) WITH p, k
        MATCH (i:AWSEC2Instance) WHERE i.iaminstanceprofile ENDS WITH 'p' + k MERGE (i)-[:INSTANCE_PROFILE]->(p)""",
    )
    found = derivation(ASSUMES)
    scope = {"_sub_resource_label": "AWSAccount", "_sub_resource_id": ACCOUNT}
    assert writer.link(found.link, {"lastupdated": TAG, **scope}) == 3
    ours = snapshot(graph)
    run(graph, "MATCH ()-[r:ASSUMES]->() DELETE r")
    pairs = run(
        graph,
        "MATCH (i:AWSEC2Instance)-[:INSTANCE_PROFILE]->()-[:ASSOCIATED_WITH]->(r) RETURN i.id, r.arn",
    )
    with graph.session() as session:
        rows = [{"instance_id": instance, "role_arn": role} for instance, role in pairs]
        load_matchlinks(session, schemas.matchlink_schema(ASSUMES), rows, lastupdated=TAG, **scope)
    assert snapshot(graph) == ours

    run(graph, "MATCH (i:AWSEC2Instance {id: $id})-[r:INSTANCE_PROFILE]->() DELETE r", id=f"i-{ACCOUNT}-00001")
    assert writer.link(found.link, {"lastupdated": TAG + 1, **scope}) == 0
    done = writer.delete(found.cleanup, {"UPDATE_TAG": TAG + 1, "LIMIT_SIZE": 10, **scope})
    assert (done.nodes, done.relationships) == (0, 1)


# ---- indexes -------------------------------------------------------------------------------------------------------


def unique_labels(graph: neo4j.Driver) -> list[str]:
    return sorted(labels[0] for (labels,) in run(graph, "SHOW CONSTRAINTS YIELD labelsOrTypes"))


def test_an_index_of_stocks_becomes_a_constraint_and_stock_goes_on(
    graph: neo4j.Driver, stack_settings: Settings
) -> None:
    drop_schema(graph)
    accounts(graph)
    stock(graph, RANGE, ranges(3))
    assert unique_labels(graph) == []
    writer = Writer(stack_settings.neo4j, "test")
    writer.write(grouped(items(messages(RANGE, ranges(3)))))
    writer.close()
    assert unique_labels(graph) == ["AWSIpRange"]
    stock(graph, RANGE, ranges(3))  # its CREATE INDEX IF NOT EXISTS must not fail on our constraint
    assert unique_labels(graph) == ["AWSIpRange"]


def test_duplicates_keep_their_index_and_are_named(
    graph: neo4j.Driver, stack_settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    drop_schema(graph)
    accounts(graph)
    run(graph, "CREATE (:AWSIpRange {id: 'twice'}), (:AWSIpRange {id: 'twice'})")
    stock(graph, RANGE, ranges(3))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):  # a new process does not try again
            writer = Writer(stack_settings.neo4j, "test")
            writer.write(grouped(items(messages(RANGE, ranges(3)))))
            writer.close()
    assert unique_labels(graph) == []
    named = [record.getMessage() for record in caplog.records if "duplicate_nodes" in record.getMessage()]
    assert len(named) == 1
    assert "label=AWSIpRange" in named[0]
    assert run(graph, "SHOW INDEXES YIELD labelsOrTypes, properties WHERE labelsOrTypes = ['AWSIpRange'] "
                      "AND properties = ['id'] RETURN count(*)") == [[1]]  # fmt: skip
    run(graph, "DROP INDEX cartoray_duplicates_AWSIpRange")


def test_members_that_start_together_agree_on_the_constraints(graph: neo4j.Driver, stack_settings: Settings) -> None:
    drop_schema(graph)
    stock(graph, RANGE, ranges(3))
    stock(graph, INSTANCE, instances(3))
    writers = [Writer(stack_settings.neo4j, f"test-{number}") for number in range(4)]
    errors: list[BaseException] = []

    def start(writer: Writer) -> None:
        try:
            for schema in (RANGE, INSTANCE, VOLUME):
                for _ in range(10):
                    try:
                        writer.ensure(schema, statements(schema).indexes)
                        break
                    except WriteFailed as error:
                        if not error.failure.code.startswith("Neo.TransientError."):
                            raise
        except BaseException as error:  # noqa: BLE001 - shown by the assertion
            errors.append(error)

    threads = [threading.Thread(target=start, args=(writer,)) for writer in writers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for writer in writers:
        writer.close()
    assert errors == []
    assert unique_labels(graph) == ["AWSEBSVolume", "AWSEC2Instance", "AWSIpRange"]


# ---- trouble -------------------------------------------------------------------------------------------------------


def test_an_abandoned_batch_leaves_nothing(graph: neo4j.Driver, writer: Writer) -> None:
    answers = iter([False, False, True])
    with pytest.raises(Abandoned):
        writer.write(grouped(items(messages(INSTANCE, instances(3)))), lambda: next(answers))
    assert run(graph, "MATCH (n:AWSEC2Instance) RETURN count(n)") == [[0]]


def test_a_neo4j_that_is_not_there_is_named_with_the_remedy() -> None:
    writer = Writer(Neo4jSettings(uri="bolt://127.0.0.1:1", timeout_s=1), "test")
    with pytest.raises(GraphUnavailable, match=r"cartoray up.*CARTORAY_NEO4J_URI"):
        writer.check()
    writer.close()


@pytest.mark.parametrize(
    ("change", "named"),
    [({"password": "wrong"}, "CARTORAY_NEO4J_PASSWORD"), ({"database": "absent"}, "CARTORAY_NEO4J_DATABASE")],
)
def test_a_refusal_names_the_setting(stack_settings: Settings, change: dict[str, str], named: str) -> None:
    values = stack_settings.neo4j.model_dump() | change
    writer = Writer(Neo4jSettings.model_validate(values), "test")
    with pytest.raises(GraphRefused, match=named):
        writer.check()
    writer.close()


def test_writers_that_merge_the_same_nodes_by_queries_of_cartographys_make_each_once(
    stack_settings: Settings, graph: neo4j.Driver
) -> None:
    """Without a constraint, two that do not see each other's nodes yet both make them."""
    text = _build_ingest_tag_query("ec2:vpc")
    tags = [{"Key": "team", "Value": str(number)} for number in range(40)]
    run(graph, "UNWIND range(0, 3) AS n CREATE (:AWSAccount {id: toString(n)})-[:RESOURCE]->(:AWSVpc {id: 'vpc'})")
    together = threading.Barrier(4)

    def merge(number: int) -> None:
        parameters = {"TagData": [{"resource_id": "vpc", "Tags": tags}], "UpdateTag": 1, "Region": "us-east-1"}
        query = Query(text, {**parameters, "Account": str(number)})
        writer = Writer(stack_settings.neo4j, f"test-{number}")
        together.wait(30)
        for attempt in range(20):
            try:
                writer.query(query)
                break
            except WriteFailed as error:  # one that waits for another in a circle is tried again, as in a member
                assert attempt < 19, error
                time.sleep(0.1)
        writer.close()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(merge, range(4)))
    assert run(graph, "MATCH (t:AWSTag) RETURN count(t)") == [[40]]
    assert run(graph, "MATCH (:AWSVpc)-[r:TAGGED]->() RETURN count(r)") == [[160]]
