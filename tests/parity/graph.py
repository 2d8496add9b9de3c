"""What is in a Neo4j, as far as the modules own it, in a form that can be compared; and what differs.

A node is known by its own label, as the schemas give it, and its `id`; a relationship by its type and its two ends.
The values of `lastupdated` and `firstseen` are left out, since two syncs never have the same. What they must have in
common is compared in their place: whether the node is there since a sync, and whether it is of the latest one. Of the
properties that only cartoray writes, none is compared.

What belongs to the modules follows from their declarations, so a new module widens the comparison by itself.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import neo4j
import neo4j.time
from cartography.graph.querybuilder import build_ingestion_query
from cartography.models.aws.account import AWSAccountSchema, AWSOrganizationAccountSchema
from cartography.models.core.nodes import CartographyNodeSchema
from cartography.models.core.relationships import CartographyRelSchema

from actors.modules import NativeModule
from cartoray import schemas
from ingestion.fingerprint import PROPERTY

TIMESTAMPS = frozenset({"lastupdated", "firstseen"})
OURS = frozenset({PROPERTY})
_SET = re.compile(r"\bi\.(\w+) =")


@dataclass(frozen=True, order=True)
class Identity:
    """By what a node is known. `id` is a text with the value's type, see `canonical`."""

    label: str
    id: str

    def __str__(self) -> str:
        return f"{self.label} {self.id}"


@dataclass(frozen=True, order=True)
class Edge:
    """By what a relationship is known."""

    type: str
    start: Identity
    end: Identity

    def __str__(self) -> str:
        return f"({self.start})-[{self.type}]->({self.end})"


Properties = Mapping[str, str]  # name → canonical value


@dataclass(frozen=True)
class Node:
    """A node's content: all of its labels, and its properties."""

    labels: frozenset[str]
    properties: Properties


@dataclass(frozen=True)
class Scope:
    """Which nodes are looked at, and which of their properties are not.

    `labels`: the nodes' own label → all labels that the schemas of that label set. `ignored`: own label → properties.
    """

    labels: Mapping[str, frozenset[str]]
    ignored: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def own_label(self, carried: Iterable[str]) -> str | None:
        """The label by which a node is known; None: it is none of ours.

        A node that carries one schema's own label only because it is another's extra label is the other's.
        """
        own = [label for label in carried if label in self.labels]
        own = [label for label in own if not any(label in self.labels[other] for other in own if other != label)]
        return "+".join(sorted(own)) or None


@dataclass(frozen=True)
class Graph:
    """What was found. More than one entry under the same key is a fault, and compared as such.

    `outside`: what no module owns, for each kind how often. `left_out`: own label → properties that were not taken.
    """

    nodes: Mapping[Identity, Sequence[Node]]
    relationships: Mapping[Edge, Sequence[Properties]]
    outside: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @property
    def patterns(self) -> frozenset[tuple[str, str, str]]:
        """The kinds of relationships that there are: (start label, type, end label)."""
        return frozenset((edge.start.label, edge.type, edge.end.label) for edge in self.relationships)

    @property
    def labels(self) -> frozenset[str]:
        return frozenset(identity.label for identity in self.nodes)


def scope_of(modules: Iterable[NativeModule]) -> Scope:
    """The nodes that the modules write, and those that their relationships lead to."""
    labels: defaultdict[str, set[str]] = defaultdict(set)
    for module in modules:
        for schema in _node_schemas(module):
            labels[schema.label] |= _labels(schema)
            for relationship in schemas.relationships(schema):
                labels[relationship.target_node_label] |= {relationship.target_node_label}
        for matchlink in _matchlinks(module):
            for label in (matchlink.source_node_label, matchlink.target_node_label):
                labels[str(label)] |= {str(label)}
    # stock's discovery of the organization adds these to the accounts' nodes, whichever modules are asked for
    organization = _set_by(AWSOrganizationAccountSchema()) - _set_by(AWSAccountSchema())
    return Scope({label: frozenset(all_) for label, all_ in labels.items()}, {AWSAccountSchema.label: organization})


def expected_patterns(modules: Iterable[NativeModule]) -> frozenset[tuple[str, str, str]]:
    """(start label, type, end label) of every relationship that the modules may make."""
    found: set[tuple[str, str, str]] = set()
    for module in modules:
        for schema in _node_schemas(module):
            for one in schemas.relationships(schema):
                ends = (schema.label, one.target_node_label)
                start, end = ends if one.direction.name == "OUTWARD" else ends[::-1]
                found.add((start, one.rel_label, end))
        for link in _matchlinks(module):
            ends = (str(link.source_node_label), link.target_node_label)
            start, end = ends if link.direction.name == "OUTWARD" else ends[::-1]
            found.add((start, link.rel_label, end))
    return frozenset(found)


def _node_schemas(module: NativeModule) -> Iterator[CartographyNodeSchema]:
    for schema in (table.schema() for table in module.tables):
        if isinstance(schema, CartographyNodeSchema):
            yield schema


def _matchlinks(module: NativeModule) -> Iterator[CartographyRelSchema]:
    for schema in (*(table.schema() for table in module.tables), *(each() for each in module.derive)):
        if isinstance(schema, CartographyRelSchema):
            yield schema


def _labels(schema: CartographyNodeSchema) -> set[str]:
    extra = schema.extra_node_labels.labels if schema.extra_node_labels else ()
    return {schema.label, *(getattr(each, "label", each) for each in extra)}


def _set_by(schema: CartographyNodeSchema) -> frozenset[str]:
    return frozenset(_SET.findall(build_ingestion_query(schema)))


def snapshot(reader: neo4j.Session | neo4j.Transaction, scope: Scope, update_tag: int) -> Graph:
    """What is in the reader's database, where nothing writes at that time. `update_tag`: of the latest sync."""
    nodes = reader.run("MATCH (n) RETURN elementId(n), labels(n), properties(n)").values()
    edges = reader.run("MATCH (a)-[r]->(b) RETURN elementId(a), type(r), elementId(b), properties(r)").values()
    return from_records(nodes, edges, scope, update_tag)


def from_records(
    nodes: Iterable[Sequence[Any]], relationships: Iterable[Sequence[Any]], scope: Scope, update_tag: int
) -> Graph:
    """From (element id, labels, properties) of nodes, (element id, type, element id, properties) of relationships."""
    known: dict[str, Identity | str] = {}
    found: defaultdict[Identity, list[Node]] = defaultdict(list)
    edges: defaultdict[Edge, list[Properties]] = defaultdict(list)
    outside: Counter[str] = Counter()
    left_out: defaultdict[str, set[str]] = defaultdict(set)
    for element, labels, properties in nodes:
        own = scope.own_label(labels)
        if own is None:
            known[element] = ":".join(sorted(labels))
            outside[f"({known[element]})"] += 1
            continue
        identity = known[element] = Identity(own, canonical(properties.get("id")))
        without = scope.ignored.get(own, frozenset())
        left_out[own] |= properties.keys() & (without | TIMESTAMPS)
        found[identity].append(Node(frozenset(labels), _compared(properties, without, update_tag)))
    for start, kind, end, properties in relationships:
        ends = known[start], known[end]
        if isinstance(ends[0], Identity) and isinstance(ends[1], Identity):
            edges[Edge(kind, *ends)].append(_compared(properties, frozenset(), update_tag))
        else:
            names = [each.label if isinstance(each, Identity) else each for each in ends]
            outside[f"({names[0]})-[{kind}]->({names[1]})"] += 1
    return Graph(found, edges, outside, {label: frozenset(names) for label, names in left_out.items()})


def _compared(properties: Mapping[str, Any], without: frozenset[str], update_tag: int) -> Properties:
    taken = {name: canonical(value) for name, value in properties.items() if name not in without | TIMESTAMPS | OURS}
    if "lastupdated" in properties:
        last = properties["lastupdated"]
        latest = type(last) is int and last == update_tag
        taken["(lastupdated)"] = f"{type(last).__name__}, {'the' if latest else 'not the'} latest sync's"
    if "firstseen" in properties:
        taken["(firstseen)"] = type(properties["firstseen"]).__name__
    return taken


def canonical(value: object) -> str:
    """A text that is the same only for the same value of the same type: 1, 1.0 and True differ, as in Neo4j.

    Lists keep their order; date and time keep their zone.
    """
    if isinstance(value, list | tuple):
        return f"[{', '.join(canonical(each) for each in value)}]"
    if isinstance(value, neo4j.time.DateTime):
        # without its zone: CPython's zoneinfo reads beyond neo4j's DateTime, which is no datetime, and may crash
        return f"{type(value).__name__} {value.replace(tzinfo=None).iso_format()} {value.tzinfo!r}"
    return repr(value) if isinstance(value, str) else f"{type(value).__name__} {value!r}"


def compare(expected: Graph, actual: Graph) -> list[str]:
    """Every difference as a line: nodes and relationships missing or too many, labels, properties with both values."""
    return [*_nodes(expected, actual), *_relationships(expected, actual)]


def _nodes(expected: Graph, actual: Graph) -> Iterable[str]:
    for identity in sorted(expected.nodes.keys() | actual.nodes.keys()):
        wanted, has = (sorted(graph.nodes.get(identity, ()), key=_order) for graph in (expected, actual))
        if len(wanted) != len(has):
            yield _number(f"node {identity}", len(wanted), len(has))
            continue
        for want, have in zip(wanted, has, strict=True):
            for label in sorted(want.labels - have.labels):
                yield f"node {identity}: label {label} is missing"
            for label in sorted(have.labels - want.labels):
                yield f"node {identity}: label {label} is extra"
            yield from _properties(f"node {identity}", want.properties, have.properties)


def _relationships(expected: Graph, actual: Graph) -> Iterable[str]:
    for edge in sorted(expected.relationships.keys() | actual.relationships.keys()):
        wanted, has = (
            sorted(graph.relationships.get(edge, ()), key=lambda one: sorted(one.items()))
            for graph in (expected, actual)
        )
        if len(wanted) != len(has):
            yield _number(f"relationship {edge}", len(wanted), len(has))
            continue
        for want, have in zip(wanted, has, strict=True):
            yield from _properties(f"relationship {edge}", want, have)


def _order(node: Node) -> tuple[list[str], list[tuple[str, str]]]:
    return sorted(node.labels), sorted(node.properties.items())


def _number(what: str, wanted: int, has: int) -> str:
    if not has:
        return f"{what} is missing"
    return f"{what} is extra" if not wanted else f"{what} is there {has} times, expected {wanted}"


def _properties(what: str, wanted: Properties, has: Properties) -> Iterable[str]:
    for name in sorted(wanted.keys() | has.keys()):
        want, have = wanted.get(name, "nothing"), has.get(name, "nothing")
        if want != have:
            yield f"{what}: {name} is {have}, expected {want}"
