"""The comparison finds every kind of difference between two graphs, and nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import neo4j.time
import pytest
from cartography.models.core.nodes import CartographyNodeSchema
from parity.graph import Graph, Identity, Scope, canonical, compare, expected_patterns, from_records, scope_of

from actors.modules import modules

SCOPE = Scope(
    {"Vpc": frozenset({"Vpc", "Network"}), "Rule": frozenset({"Rule"}), "Inbound": frozenset({"Inbound", "Rule"})},
    ignored={"Vpc": frozenset({"secret"})},
)
TAG = 200
Records = list[list[Any]]


def world() -> tuple[Records, Records]:
    nodes: Records = [
        ["n1", ["Vpc", "Network"], {"id": "vpc-1", "size": 1, "on": True, "tags": ["a", "b"], "lastupdated": TAG}],
        ["n2", ["Rule"], {"id": "rule-1", "lastupdated": TAG, "firstseen": 5}],
        ["n3", ["Inbound", "Rule"], {"id": "rule-2", "lastupdated": TAG, "firstseen": 5}],
        ["n4", ["Unknown"], {"id": "x"}],
    ]
    relationships: Records = [
        ["n1", "HAS", "n2", {"weight": 1, "lastupdated": TAG}],
        ["n1", "HAS", "n3", {"weight": 2, "lastupdated": TAG}],
        ["n4", "HAS", "n1", {}],
    ]
    return nodes, relationships


def graph(records: tuple[Records, Records], tag: int = TAG) -> Graph:
    return from_records(*records, SCOPE, tag)


def node_goes(nodes: Records, relationships: Records) -> None:
    del nodes[1], relationships[0]


def relationship_turns(_: Records, relationships: Records) -> None:
    relationships[0][0], relationships[0][2] = relationships[0][2], relationships[0][0]


def relationship_moves(_: Records, relationships: Records) -> None:
    relationships[0][2] = "n3"


RULE_1, VPC_1 = "node Rule 'rule-1'", "node Vpc 'vpc-1'"
HAS_1, HAS_2 = (f"relationship (Vpc 'vpc-1')-[HAS]->({end})" for end in ("Rule 'rule-1'", "Inbound 'rule-2'"))
Plant = Callable[[Records, Records], object]
PLANTS: list[tuple[str, Plant, list[str]]] = [
    ("a missing node", node_goes, [f"{RULE_1} is missing", f"{HAS_1} is missing"]),
    ("an extra node", lambda n, r: n.append(["n9", ["Rule"], {"id": "9"}]), ["node Rule '9' is extra"]),
    ("a node twice", lambda n, r: n.append(["n9", *n[1][1:]]), [f"{RULE_1} is there 2 times, expected 1"]),
    (
        "another id",
        lambda n, r: n[3].__setitem__(1, ["Rule"]),
        ["node Rule 'x' is extra", "relationship (Rule 'x')-[HAS]->(Vpc 'vpc-1') is extra"],
    ),
    ("an extra label", lambda n, r: n[1][1].append("Odd"), [f"{RULE_1}: label Odd is extra"]),
    ("a missing label", lambda n, r: n[0][1].remove("Network"), [f"{VPC_1}: label Network is missing"]),
    ("another value", lambda n, r: n[0][2].update(size=2), [f"{VPC_1}: size is int 2, expected int 1"]),
    ("another type", lambda n, r: n[0][2].update(size=1.0), [f"{VPC_1}: size is float 1.0, expected int 1"]),
    ("1 for true", lambda n, r: n[0][2].update(on=1), [f"{VPC_1}: on is int 1, expected bool True"]),
    ("a text for a number", lambda n, r: n[0][2].update(size="1"), [f"{VPC_1}: size is '1', expected int 1"]),
    (
        "another order",
        lambda n, r: n[0][2].update(tags=["b", "a"]),
        [f"{VPC_1}: tags is ['b', 'a'], expected ['a', 'b']"],
    ),
    ("a missing property", lambda n, r: n[0][2].pop("size"), [f"{VPC_1}: size is nothing, expected int 1"]),
    ("an extra property", lambda n, r: n[1][2].update(odd=""), [f"{RULE_1}: odd is '', expected nothing"]),
    (
        "a node that was not refreshed",
        lambda n, r: n[1][2].update(lastupdated=TAG - 1),
        [f"{RULE_1}: (lastupdated) is int, not the latest sync's, expected int, the latest sync's"],
    ),
    ("no firstseen", lambda n, r: n[1][2].pop("firstseen"), [f"{RULE_1}: (firstseen) is nothing, expected int"]),
    ("a missing relationship", lambda n, r: r.pop(0), [f"{HAS_1} is missing"]),
    ("a relationship twice", lambda n, r: r.append(r[0]), [f"{HAS_1} is there 2 times, expected 1"]),
    (
        "another relationship type",
        lambda n, r: r[0].__setitem__(1, "HAD"),
        ["relationship (Vpc 'vpc-1')-[HAD]->(Rule 'rule-1') is extra", f"{HAS_1} is missing"],
    ),
    (
        "the other direction",
        relationship_turns,
        ["relationship (Rule 'rule-1')-[HAS]->(Vpc 'vpc-1') is extra", f"{HAS_1} is missing"],
    ),
    ("another end", relationship_moves, [f"{HAS_2} is there 2 times, expected 1", f"{HAS_1} is missing"]),
    (
        "another relationship property",
        lambda n, r: r[0][3].update(weight=3),
        [f"{HAS_1}: weight is int 3, expected int 1"],
    ),
    (
        "a relationship that was not refreshed",
        lambda n, r: r[0][3].update(lastupdated=TAG - 1),
        [f"{HAS_1}: (lastupdated) is int, not the latest sync's, expected int, the latest sync's"],
    ),
]


@pytest.mark.parametrize(("plant", "found"), [plant[1:] for plant in PLANTS], ids=[plant[0] for plant in PLANTS])
def test_a_planted_difference_is_found_and_named(plant: Plant, found: list[str]) -> None:
    changed = copy.deepcopy(world())
    plant(*changed)
    assert sorted(compare(graph(world()), graph(changed))) == sorted(found)


def test_equal_graphs_have_no_difference_whatever_the_order_the_timestamps_and_the_element_ids() -> None:
    nodes, relationships = copy.deepcopy(world())
    for node in nodes:
        node[0] = f"other-{node[0]}"
        node[1].reverse()
        if "lastupdated" in node[2]:
            node[2]["lastupdated"] = 999
    for relationship in relationships:
        relationship[0], relationship[2] = f"other-{relationship[0]}", f"other-{relationship[2]}"
        if "lastupdated" in relationship[3]:
            relationship[3]["lastupdated"] = 999
    nodes[1][2]["firstseen"] = 6
    assert compare(graph(world()), graph((nodes[::-1], relationships[::-1]), 999)) == []


def test_a_node_is_known_by_the_label_that_is_its_own_and_not_by_one_that_another_schema_lends_it() -> None:
    assert Identity("Inbound", "'rule-2'") in graph(world()).nodes
    assert SCOPE.own_label(["Vpc", "Inbound"]) == "Inbound+Vpc"  # as no schema has it: both graphs must agree on that


def test_what_belongs_to_no_module_is_counted_and_not_compared() -> None:
    assert graph(world()).outside == {"(Unknown)": 1, "(Unknown)-[HAS]->(Vpc)": 1}
    assert Identity("Unknown", "'x'") not in graph(world()).nodes


def test_only_timestamps_and_what_the_scope_names_is_left_out() -> None:
    nodes, relationships = world()
    nodes[0][2]["secret"] = 1
    found = graph((nodes, relationships))
    assert found.left_out["Vpc"] == {"lastupdated", "secret"}
    assert found.left_out["Rule"] == {"lastupdated", "firstseen"}
    assert found.nodes[Identity("Vpc", "'vpc-1'")][0].properties.keys() == {
        *("id", "size", "on", "tags"),
        "(lastupdated)",
    }


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (1, True),
        (0, False),
        (1, "1"),
        ("int 1", 1),
        ([1], ["1"]),
        ([1, 2], [2, 1]),
        ([], ""),
        (0.0, -0.0),
        (neo4j.time.DateTime(2026, 1, 1), neo4j.time.DateTime(2026, 1, 1, tzinfo=timezone.utc)),  # noqa: UP017
        (
            neo4j.time.DateTime(2026, 1, 1, tzinfo=timezone(timedelta(0))),
            neo4j.time.DateTime(2026, 1, 1, tzinfo=ZoneInfo("Europe/London")),
        ),
        (neo4j.time.DateTime(2026, 1, 1), neo4j.time.DateTime(2026, 1, 1, nanosecond=1)),
        (neo4j.time.Date(2026, 1, 1), "2026-01-01"),
    ],
)
def test_values_that_neo4j_tells_apart_have_different_texts(one: object, other: object) -> None:
    assert canonical(one) == canonical(copy.copy(one))
    assert canonical(one) != canonical(other)


def test_the_scope_follows_the_modules_declarations() -> None:
    only_vpcs = scope_of([modules()["ec2:vpc"]])
    assert set(only_vpcs.labels) == {"AWSVpc", "AWSCidrBlock", "AWSAccount"}
    assert only_vpcs.labels["AWSCidrBlock"] == {"AWSCidrBlock", "AWSIpv4CidrBlock", "AWSIpv6CidrBlock"}
    whole = scope_of(modules().values())
    schemas = [table.schema() for module in modules().values() for table in module.tables]
    declared = {schema.label for schema in schemas if isinstance(schema, CartographyNodeSchema)}
    assert declared < set(whole.labels)
    assert {"AWSInstanceProfile", "AWSRole"} <= set(whole.labels)  # where a relationship and a derived link lead
    assert set(whole.ignored) == {"AWSAccount"}
    assert not whole.ignored["AWSAccount"] & {"id", "name", "inscope", "foreign", "lastupdated"}


def test_the_relationships_that_are_expected_follow_the_modules_declarations() -> None:
    found = expected_patterns([modules()["ec2:instance"]])
    assert ("AWSAccount", "RESOURCE", "AWSEC2Instance") in found  # inward
    assert ("AWSEC2Instance", "INSTANCE_PROFILE", "AWSInstanceProfile") in found  # outward
    assert ("AWSEC2Instance", "ASSUMES", "AWSRole") in found  # derived
