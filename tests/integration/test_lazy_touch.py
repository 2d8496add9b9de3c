"""Nodes that did not change keep their `lastupdated`, and a cleanup still deletes what stock's would, and no more."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from ingestion_rows import ACCOUNT, INSTANCE, OTHER, instances, messages, run, snapshot
from ingestion_syncs import Rows, Syncs, shared_syncs, write_as_stock
from ingestion_topics import Bench

from cartoray.jobs import Touch
from cartoray.settings import Settings
from ingestion.seen import Seen
from ingestion.statements import LAZY_RUNS

pytestmark = pytest.mark.stack

COUNT = 30
IDS = "MATCH (:AWSAccount {id: $account})-[:RESOURCE]->(n:AWSEC2Instance) RETURN n.id ORDER BY n.id"


@pytest.fixture(scope="module")
def shared(stack_settings: Settings) -> Iterator[Syncs]:
    with shared_syncs(stack_settings, LAZY_RUNS) as syncs:
        yield syncs


@pytest.fixture
def syncs(shared: Syncs) -> Syncs:
    return shared.start_over(rows())


def rows() -> list[dict[str, Any]]:
    return [dict(row) for row in instances(COUNT)]


def ids(syncs: Syncs, account: str = ACCOUNT) -> set[str]:
    return {id_ for (id_,) in run(syncs.graph, IDS, account=account)}


def test_what_did_not_change_stays_as_it_is(syncs: Syncs) -> None:
    before = snapshot(syncs.graph)
    assert syncs.sync(rows(), "lazy") == COUNT
    assert snapshot(syncs.graph) == before
    changed = rows()
    changed[7] |= {"State": "gone", "Architecture": None}
    assert syncs.sync([*changed, {"InstanceId": "i-new"}], "lazy") == COUNT - 1
    (touched,) = run(syncs.graph, "MATCH (n:AWSEC2Instance {lastupdated: $tag}) RETURN collect(n.id)", tag=syncs.tag)[0]
    assert set(touched) == {changed[7]["InstanceId"], "i-new"}
    expected = snapshot(syncs.graph, "lastupdated")
    write_as_stock(syncs.graph, [*changed, {"InstanceId": "i-new"}], syncs.tag)
    assert snapshot(syncs.graph, "lastupdated") == expected


def test_a_cleanup_deletes_what_is_not_there_any_more(syncs: Syncs) -> None:
    syncs.sync(rows(), "lazy")
    assert (syncs.cleanup().nodes_deleted, len(ids(syncs))) == (0, COUNT)
    syncs.sync(rows()[3:], "lazy")
    landed = syncs.cleanup()
    assert (landed.nodes_deleted, landed.reason) == (3, "")
    assert ids(syncs) == {row["InstanceId"] for row in rows()[3:]}
    syncs.sync(rows(), "always")  # and the next one that goes by `lastupdated` finds everything
    assert (syncs.cleanup().nodes_deleted, len(ids(syncs))) == (0, COUNT)


def test_a_member_that_did_not_see_the_rows_reads_them_again(syncs: Syncs) -> None:
    syncs.sync(rows()[3:], "lazy")
    syncs.sink._seen = Seen()  # as of a member that takes over
    assert syncs.cleanup().nodes_deleted == 3
    assert ids(syncs) == {row["InstanceId"] for row in rows()[3:]}


def test_nothing_is_deleted_when_it_cannot_be_told_what_is_there(syncs: Syncs) -> None:
    syncs.sync(rows()[3:], "lazy")
    landed = syncs.cleanup(untouched=[(0, 10**6), (99, 1)])
    assert landed.reason.startswith("2 messages that tell which nodes are still there are no longer in Kafka")
    assert "CARTORAY_KAFKA_RETENTION_HOURS" in landed.reason
    assert len(ids(syncs)) == COUNT


def test_what_two_accounts_have_is_touched_so_that_neither_deletes_it(syncs: Syncs) -> None:
    shared_by_both = rows()[:10]
    for _ in range(3):
        syncs.sync(shared_by_both, account=OTHER)
        syncs.sync(rows())  # the nodes have the fingerprints of these rows
    syncs.number += 1
    syncs.publish(rows(), "lazy")
    syncs.publish(rows()[:1], "lazy", account=OTHER)
    assert syncs.cleanup(OTHER).nodes_deleted == 0
    assert len(ids(syncs)) == COUNT
    assert syncs.cleanup().nodes_deleted == 0
    assert ids(syncs, OTHER) == {rows()[0]["InstanceId"]}


def test_a_run_that_was_overtaken_deletes_nothing_that_the_newer_one_left_untouched(syncs: Syncs) -> None:
    syncs.sync(rows()[:5])
    older = syncs.number
    assert syncs.sync(rows(), "lazy") == COUNT
    assert syncs.cleanup(number=older).nodes_deleted == 0
    assert len(ids(syncs)) == COUNT
    syncs.sync(rows()[:5])
    assert syncs.cleanup().nodes_deleted == COUNT - 5


def test_a_message_that_was_written_in_parts_is_seen_as_a_whole(stack_settings: Settings, shared: Syncs) -> None:
    small = stack_settings.ingestion.model_copy(update={"batch_rows": 3})
    bench = Bench(stack_settings.model_copy(update={"ingestion": small}))
    with bench.sink() as sink:
        syncs = Syncs(bench, sink, shared.graph)
        syncs.number = shared.number  # its tags go on from there
        for _ in range(2):
            syncs.sync(rows())
        assert syncs.sync(rows(), "lazy") == COUNT
        assert (syncs.cleanup().nodes_deleted, len(ids(syncs))) == (0, COUNT)
        syncs.close()
    bench.close()


def test_rows_that_come_in_one_batch_are_touched_as_their_runs_ask_for(syncs: Syncs) -> None:
    syncs.number += 1
    lazy, always = rows()[:10], rows()[10:]
    parts: tuple[tuple[Touch, Rows], ...] = (("lazy", lazy), ("always", always))
    mixed = [
        next(messages(INSTANCE, some, tag=syncs.tag, run=syncs.run_id, module=touch, touch=touch))
        for touch, some in parts
    ]
    syncs.bench.publish(mixed)
    syncs._until(lambda: sum(sum(event.rows) for event in syncs._batches()) == COUNT)
    (touched,) = run(syncs.graph, "MATCH (n:AWSEC2Instance {lastupdated: $tag}) RETURN collect(n.id)", tag=syncs.tag)[0]
    assert set(touched) == {row["InstanceId"] for row in always}
    assert syncs.cleanup().nodes_deleted == 0


def test_whatever_changes_the_graph_holds_what_the_last_sync_found(syncs: Syncs) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    there = {row["InstanceId"]: row for row in rows()}
    recognised = 0
    for _ in range(12):
        for id_ in chance.sample(sorted(there), min(len(there), chance.randrange(4))):
            if chance.random() < 0.5:
                del there[id_]
            else:
                there[id_] = there[id_] | {"State": chance.choice(["a", "b", None])}
        for row in chance.sample(rows(), chance.randrange(3)):
            there.setdefault(row["InstanceId"], row)
        if chance.random() < 0.2:
            run(syncs.graph, "MATCH (n:AWSEC2Instance) WHERE rand() < 0.3 SET n.state = 'somebody'")
        recognised += syncs.sync(list(there.values()), chance.choice(["lazy", "lazy", "always"]))
        syncs.cleanup()
        assert ids(syncs) == there.keys()
    syncs.sync(list(there.values()), "lazy")
    ours = snapshot(syncs.graph, "lastupdated")
    write_as_stock(syncs.graph, list(there.values()), syncs.tag)
    assert snapshot(syncs.graph, "lastupdated") == ours
    assert recognised > 0
