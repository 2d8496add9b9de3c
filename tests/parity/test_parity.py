"""cartoray's graph is stock Cartography's: every node, every relationship, every property.

Both sync the same simulated AWS, stock with its own command into one Neo4j, cartoray with its own through Kafka and
Ray into another. Stock runs twice each time, because its first run misses relationships to what it loads later.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import boto3
import neo4j
import pytest
from parity import stock, surroundings
from parity.graph import TIMESTAMPS, Graph, compare, expected_patterns, scope_of, snapshot
from support.commands import Done, cartoray, environment, serving
from support.databases import empty, open_graph

from actors.modules import NativeModule, modules
from cartoray.settings import Neo4jSettings, Settings
from cartoray.stack.simulated_aws import SimulatedAws, start_simulated_aws

# the first test waits for all syncs, most of the time for stock's
pytestmark = [pytest.mark.stack, pytest.mark.ray, pytest.mark.timeout(900)]

MODULES = ("ec2:instance", "ec2:vpc", "ec2:subnet", "ec2:security_group", "ec2:network_interface", "ec2:volumes")
LEFT_REGION = "eu-west-1"
COMPARED: Sequence[NativeModule] = [modules()[name] for name in ("account", *MODULES)]
SCOPE = scope_of(COMPARED)
# Relationships that the modules may make, but not here: the simulated AWS has no snapshots, and no interfaces of
# load balancers.
NOT_SIMULATED = {
    ("AWSEBSSnapshot", "CREATED_FROM", "AWSEBSVolume"),
    ("AWSLoadBalancer", "NETWORK_INTERFACE", "AWSNetworkInterface"),
    ("AWSLoadBalancer", "PART_OF_SUBNET", "AWSEC2Subnet"),
    ("AWSLoadBalancerV2", "NETWORK_INTERFACE", "AWSNetworkInterface"),
    ("AWSLoadBalancerV2", "PART_OF_SUBNET", "AWSEC2Subnet"),
}


@dataclass(frozen=True)
class Pair:
    """Both graphs after both have synced the same inventory, and how cartoray's sync ended."""

    stock: Graph
    cartoray: Graph
    done: Done


@dataclass(frozen=True)
class Syncs:
    """One after the other, into the same graphs."""

    first: Pair  # graphs without inventory
    unchanged: Pair  # only cartoray synced again
    opted_out: Pair  # one account has left one region
    changed: Pair  # it is back, and things were deleted, changed and added
    changes: Sequence[Mapping[str, str]]
    graph: neo4j.Driver
    update_tag: int


class Bench:
    """Syncs both graphs."""

    def __init__(self, aws: SimulatedAws, settings: Settings, stock_neo4j: Neo4jSettings, folder: Path) -> None:
        self.aws, self.stock_neo4j, self.folder = aws, stock_neo4j, folder
        self.graph, self.stock_graph = open_graph(settings.neo4j), open_graph(stock_neo4j)
        prefixed = settings.kafka.model_copy(update={"topic_prefix": "parity."})
        self.environment = environment(settings.model_copy(update={"kafka": prefixed}), aws)
        self.names = organization(aws)
        self.update_tag = 1_000

    def sync(self, *, stock_runs: int = 2) -> Pair:
        for _ in range(stock_runs):
            self.update_tag += 1
            stock.sync(
                self.stock_neo4j,
                self.aws,
                accounts=self.names,
                modules=MODULES,
                regions=self.aws.regions,
                update_tag=self.update_tag,
                folder=self.folder,
            )
        scope = ["--scope", ",".join(MODULES)]
        regions = [word for region in self.aws.regions for word in ("--region", region)]
        done = cartoray(
            *("sync", "--provider", "aws", "--organization", *scope, *regions, "--json"),
            environment=self.environment,
            folder=self.folder,
        ).expect(0)
        with self.stock_graph.session() as stock_session, self.graph.session() as session:
            return Pair(
                snapshot(stock_session, SCOPE, self.update_tag),
                snapshot(session, SCOPE, done.result["update_tag"]),
                done,
            )


def organization(aws: SimulatedAws) -> dict[str, str]:
    """Account → name, asked of AWS and not of cartoray."""
    session = boto3.Session("testing", "testing", region_name=aws.regions[0])
    answer = session.client("organizations", endpoint_url=aws.endpoint_url).list_accounts()
    return {account["Id"]: account["Name"] for account in answer["Accounts"]}


@pytest.fixture(scope="module")
def simulated_aws() -> Iterator[SimulatedAws]:
    """One of its own: what can be removed is removed by the first mutation, and other tests have theirs."""
    with start_simulated_aws(accounts=3, regions=("us-east-1", LEFT_REGION), size=6) as aws:
        yield aws


@pytest.fixture(scope="module")
def syncs(
    stack_settings: Settings,
    stock_neo4j: Neo4jSettings,
    simulated_aws: SimulatedAws,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Syncs]:
    bench = Bench(simulated_aws, stack_settings, stock_neo4j, tmp_path_factory.mktemp("parity"))
    for driver in (bench.graph, bench.stock_graph):
        empty(driver)
        surroundings.plant(driver, simulated_aws)
    with serving(bench.environment, bench.folder) as workers:
        first = bench.sync()
        unchanged = bench.sync(stock_runs=0)
        simulated_aws.faults(opt_in_required=[{"account": simulated_aws.accounts[1], "region": LEFT_REGION}])
        try:
            opted_out = bench.sync(stock_runs=1)
        finally:
            simulated_aws.faults(opt_in_required=[])
        changes = simulated_aws.mutate(seed=os.getpid())
        print(f"the simulated AWS made {len(changes)} changes, with seed {os.getpid()}")
        for driver in (bench.graph, bench.stock_graph):
            surroundings.unplant(driver, simulated_aws)
        changed = bench.sync()
        assert workers.stop() == 0
    tag = changed.done.result["update_tag"]
    unchanged = Pair(first.stock, unchanged.cartoray, unchanged.done)
    yield Syncs(first, unchanged, opted_out, changed, changes, bench.graph, tag)
    bench.graph.close()
    bench.stock_graph.close()


def report(differences: Sequence[str]) -> str:
    return "\n".join([f"{len(differences)} differences", *differences[:50]])


def test_after_one_sync_the_graph_is_the_one_that_stock_needs_two_for(syncs: Syncs) -> None:
    differences = compare(syncs.first.stock, syncs.first.cartoray)
    assert not differences, report(differences)


def test_a_sync_without_changes_changes_nothing(syncs: Syncs) -> None:
    differences = compare(syncs.unchanged.stock, syncs.unchanged.cartoray)
    assert not differences, report(differences)
    assert syncs.unchanged.done.result["nodes_deleted"] == 0


def test_a_region_that_an_account_has_left_is_empty_for_both(syncs: Syncs) -> None:
    differences = compare(syncs.opted_out.stock, syncs.opted_out.cartoray)
    assert not differences, report(differences)
    assert len(syncs.opted_out.cartoray.nodes) < len(syncs.first.cartoray.nodes)
    assert list(syncs.opted_out.done.result["skipped_regions"].values()) == [[LEFT_REGION]]


def test_after_things_were_deleted_changed_and_added_the_graphs_are_the_same_again(syncs: Syncs) -> None:
    differences = compare(syncs.changed.stock, syncs.changed.cartoray)
    assert not differences, report(differences)


def test_what_was_removed_from_aws_is_gone_and_what_came_is_there(syncs: Syncs) -> None:
    """Of both graphs at once this would be missed by comparing them."""
    kinds = {"instance": "AWSEC2Instance", "volume": "AWSEBSVolume", "interface": "AWSNetworkInterface"}
    kinds |= {"subnet": "AWSEC2Subnet", "group": "AWSEC2SecurityGroup", "vpc": "AWSVpc"}
    before, after = ({str(one) for one in pair.cartoray.nodes} for pair in (syncs.first, syncs.changed))
    seen = set()
    for change in syncs.changes:
        if change["kind"] in kinds:
            node = f"{kinds[change['kind']]} {change['id']!r}"
            seen.add((change["kind"], change["verb"]))
            assert (node in after) == (change["verb"] != "removed"), change
            assert (node in before) == (change["verb"] != "added"), change
    assert {(kind, "removed") for kind in kinds} <= seen
    assert {("instance", "added"), ("instance", "changed"), ("group", "added"), ("volume", "changed")} <= seen


@pytest.mark.parametrize("stage", ["first", "changed"])
def test_the_graphs_that_were_compared_hold_all_that_the_modules_can_make(syncs: Syncs, stage: str) -> None:
    pair: Pair = getattr(syncs, stage)
    for graph in (pair.stock, pair.cartoray):
        tables = {table.schema().label for module in COMPARED for table in module.tables}
        assert tables <= graph.labels
        assert expected_patterns(COMPARED) - graph.patterns == NOT_SIMULATED
        assert len(graph.nodes) > 500
        assert len(graph.relationships) > 1_500


def test_accounts_share_nodes(syncs: Syncs) -> None:
    """Otherwise writers that meet on one node would not have been compared."""
    for graph in (syncs.first.cartoray, syncs.changed.cartoray):
        everywhere = [edge for edge in graph.relationships if str(edge.end) == "AWSIpRange '0.0.0.0/0'"]
        assert len(everywhere) == 3


def test_links_derived_from_the_graph_come_and_go(syncs: Syncs) -> None:
    """Of two accounts with an instance profile at first, one at last."""
    for pair, accounts in ((syncs.first, 2), (syncs.changed, 1)):
        roles = {edge.end for edge in pair.cartoray.relationships if edge.type == "ASSUMES"}
        assert len(roles) == accounts


def test_nothing_is_left_out_but_timestamps_and_what_stock_takes_from_the_organization(syncs: Syncs) -> None:
    for label, names in (syncs.first.stock.left_out | syncs.changed.stock.left_out).items():
        assert names <= TIMESTAMPS | (SCOPE.ignored["AWSAccount"] if label == "AWSAccount" else frozenset())
    assert SCOPE.ignored["AWSAccount"] == {
        *("arn", "email", "state", "status", "joined_method", "joined_timestamp", "org_id", "_ont_status"),
    }
    for graph in (syncs.first.cartoray, syncs.changed.cartoray):
        assert graph.outside == {}  # nothing of its own beside the inventory
        assert graph.left_out["AWSAccount"] == TIMESTAMPS


def test_each_sync_says_that_it_is_complete_and_what_it_did(syncs: Syncs) -> None:
    for pair in (syncs.first, syncs.unchanged, syncs.opted_out, syncs.changed):
        result = pair.done.result
        assert result["state"] == "complete"
        assert result["jobs"]["landed"] == result["jobs"]["total"] == 3 * 7
        assert result["failures"] == []
        # instances of the last account, which has no instance profiles, and of regions where they run on no cluster
        assert {entry["target_label"] for entry in result["unresolved"]} <= {"AWSInstanceProfile", "AWSEKSCluster"}
    assert syncs.changed.done.result["nodes_deleted"] > 0


@pytest.mark.parametrize(
    ("plant", "found"),
    [
        ("MATCH (n:AWSVpc) WITH n LIMIT 1 SET n.state = 'planted'", "state is 'planted'"),
        ("MATCH (n:AWSEC2Instance) WITH n LIMIT 1 SET n:Planted", "label Planted is extra"),
        ("MATCH (n:AWSEC2Subnet) WITH n LIMIT 1 REMOVE n:Subnet", "label Subnet is missing"),
        ("MATCH (:AWSEC2Instance)-[r:ASSUMES]->() WITH r LIMIT 1 DELETE r", " is missing"),
        ("MATCH (n:AWSEBSVolume) WITH n LIMIT 1 SET n.size = toFloat(n.size)", "expected int"),
        ("MATCH (n:AWSIpRange{id: '0.0.0.0/0'})<-[r:RESOURCE]-() WITH r LIMIT 1 SET r.planted = 1", "planted is int 1"),
        (
            "MATCH (n:AWSIpRange{id: '0.0.0.0/0'})<-[:RESOURCE]-(a) WITH n, a LIMIT 1 CREATE (n)<-[:RESOURCE]-(a)",
            "is there 2 times",
        ),
        ("CREATE (:AWSVpc{id: 'planted'})", "AWSVpc 'planted' is extra"),
    ],
)
def test_a_difference_planted_in_the_database_is_found(syncs: Syncs, plant: str, found: str) -> None:
    with syncs.graph.session() as session, session.begin_transaction() as transaction:
        assert transaction.run(plant).consume().counters.contains_updates
        planted = snapshot(transaction, SCOPE, syncs.update_tag)
        transaction.rollback()
        differences = compare(syncs.changed.stock, planted)
        assert len(differences) == 1
        assert found in differences[0]
        assert compare(syncs.changed.stock, snapshot(session, SCOPE, syncs.update_tag)) == []
