"""Whatever happens between two syncs: rows that are only recognised leave the graph that writing them leaves."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import neo4j
import pytest
from ingestion_rows import RESERVATION, TAG, instances, messages, run
from ingestion_syncs import Syncs, shared_syncs, write_as_stock
from ingestion_topics import Bench

from cartoray.settings import Settings
from ingestion.fingerprint import PROPERTY

pytestmark = pytest.mark.stack

COUNT = 30


@pytest.fixture(scope="module")
def shared(stack_settings: Settings) -> Iterator[Syncs]:
    with shared_syncs(stack_settings, "hibernationoptions", "seen") as syncs:
        yield syncs


@pytest.fixture
def syncs(shared: Syncs) -> Syncs:
    return shared.start_over(rows())


def rows() -> list[dict[str, Any]]:
    return [dict(row) | {"Architecture": "arm64"} for row in instances(COUNT)]


def test_rows_that_did_not_change_are_recognised_and_others_are_not(syncs: Syncs) -> None:
    assert syncs.sync(rows()) == COUNT
    syncs.check(rows())  # somebody else writes: from here on nothing is relied on, once
    assert syncs.sync(rows()) == 0
    assert syncs.sync(rows()) == COUNT
    changed = rows()
    changed[7] |= {"State": "gone", "Architecture": None}
    assert syncs.sync(changed) == COUNT - 1
    assert syncs.sync([*changed, {"InstanceId": "i-new"}]) == COUNT
    syncs.check([*changed, {"InstanceId": "i-new"}])


CHANGES = {
    "a property": "MATCH (n:AWSEC2Instance) WHERE n.ebsoptimized SET n.state = 'changed'",
    "a property that no row has": "MATCH (n:AWSEC2Instance) SET n.hibernationoptions = 'x'",
    "a property is removed": "MATCH (n:AWSEC2Instance) WHERE n.ebsoptimized REMOVE n.architecture",
    "a label is removed": "MATCH (n:AWSEC2Instance) WHERE n.ebsoptimized REMOVE n:EC2Instance",
    "nodes are deleted": "MATCH (n:AWSEC2Instance) WHERE n.ebsoptimized DETACH DELETE n",
    "relationships are deleted": "MATCH (n:AWSEC2Instance)<-[r:RESOURCE]-() WHERE n.ebsoptimized DELETE r",
    "relationships are another module's": "MATCH (n:AWSEC2Instance)<-[r:RESOURCE]-() SET r._module_name = 'x'",
    "nodes are another account's": """
        MATCH (n:AWSEC2Instance)<-[r:RESOURCE]-(), (a:AWSAccount {id: '222222222222'}) WHERE n.ebsoptimized
        DELETE r MERGE (a)-[:RESOURCE]->(n)""",
}


def test_what_somebody_changed_is_put_right(syncs: Syncs) -> None:
    for what, change in CHANGES.items():
        run(syncs.graph, change)
        assert syncs.sync(rows()) == 0, what
        syncs.check(rows())


def test_what_a_query_of_ours_changed_is_put_right(syncs: Syncs) -> None:
    for what, change in CHANGES.items():
        syncs.query(change)
        assert syncs.sync(rows()) < COUNT, what
        syncs.check(rows())
        syncs.sync(rows())  # stock is somebody else


def test_what_a_query_sets_is_compared_and_the_rest_goes_on_being_recognised(syncs: Syncs) -> None:
    flag = "MATCH (n:AWSEC2Instance) WHERE n.ebsoptimized SET n.hibernationoptions = 'x'"
    for _ in range(2):
        syncs.query(flag)
        assert syncs.sync(rows()) == COUNT // 2
    syncs.query("MATCH (n:AWSEC2Instance) SET n += {seen: true}")  # any property, for all that can be told
    assert syncs.sync(rows()) == 0
    syncs.check(rows())


def test_what_stock_wrote_in_between_is_put_right(syncs: Syncs) -> None:
    write_as_stock(syncs.graph, [row | {"State": "stock's"} for row in rows()], TAG + 100)
    syncs.number += 100
    assert syncs.sync(rows()) == 0
    syncs.check(rows())


def test_two_schemas_that_write_a_node_do_not_rely_on_what_the_other_wrote(syncs: Syncs) -> None:
    run(syncs.graph, "MATCH (n:AWSEC2Instance) SET n:AWSEC2Reservation, n.reservationid = n.id")
    syncs.sync(rows())
    syncs.sync(rows())
    same_ids = [{"ReservationId": row["InstanceId"], "OwnerId": "x"} for row in rows()]
    syncs.bench.publish(messages(RESERVATION, same_ids, tag=TAG + 2, run="run-2", module="other"))
    assert syncs.sync(rows()) == 0


def test_without_fingerprints_nothing_is_written_for_them(stack_settings: Settings, graph: neo4j.Driver) -> None:
    off = stack_settings.ingestion.model_copy(update={"fingerprints": False})
    bench = Bench(stack_settings.model_copy(update={"ingestion": off}))
    with bench.sink() as sink:
        syncs = Syncs(bench, sink, graph)
        assert [syncs.sync(rows()) for _ in range(2)] == [0, 0]
        syncs.close()
    bench.close()
    assert run(graph, f"MATCH (n) WHERE n.{PROPERTY} IS NOT NULL RETURN count(n)") == [[0]]


def test_in_whatever_order_things_happen_stock_finds_nothing_to_change(syncs: Syncs) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    now = rows()
    recognised = 0
    for _ in range(20):
        match chance.choice(["sync", "sync", "rows change", "a query", "somebody"]):
            case "rows change":
                for row in chance.sample(now, 3):
                    row[chance.choice(["State", "Architecture", "Tenancy"])] = chance.choice(["a", "b", None, 1])
            case "a query":
                syncs.query(chance.choice(list(CHANGES.values())))
            case "somebody":
                run(syncs.graph, chance.choice(list(CHANGES.values())))
            case _:
                recognised += syncs.sync(now)
                if chance.random() < 0.5:
                    syncs.check(now)
    syncs.sync(now)
    syncs.check(now)
    syncs.sync(now)
    assert recognised + syncs.sync(now) > 0
