"""Stock Cartography's graph of a provider, held against ours: every node, label, relationship and property.

`held_against_stock` takes what runs ours as a function, so one comparison serves `cartoray cartography` and jobs of
providers. Both sides run with the same arguments and update tags: at first, when stock runs twice, because its first
run misses relationships to what it loads later; and again after deletions.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import neo4j
from parity.graph import Edge, Graph, Identity, Node, Properties, canonical, compare
from providers.standins import Provider
from support import commands
from support.commands import environment
from support.databases import empty, open_graph

from cartoray.settings import Neo4jSettings, Settings
from ingestion.fingerprint import PROPERTY

TAG = 1_700_000_000
TIMEOUT_S = 300
_TROUBLE = re.compile(r"^(ERROR|CRITICAL):.*|^Traceback.*", re.MULTILINE)
_CURSOR = re.compile(r"[?&](page|after|continue)=[1-9]")


def held_against_stock(
    provider: Provider,
    *,
    stock: Neo4jSettings,
    graph: neo4j.Driver,
    folder: Path,
    run_ours: Callable[[Sequence[str], int], int],
) -> list[str]:
    """The differences, a line each.

    `run_ours` is given Cartography's arguments and an update tag, and syncs into `graph`, which is empty at first. It
    answers the tag that it used: jobs have that of their run.
    """
    found: list[str] = []
    with open_graph(stock) as driver:
        empty(driver)
        for dropped, when, runs in ((0, "at first", 2), (1, "after deletions", 1)):
            provider.server.state.dropped = dropped
            start_s = time.monotonic()
            tag = run_ours(provider.arguments, TAG + dropped)
            actual = everything(graph)
            print(f"ours, {when}: {time.monotonic() - start_s:.1f} s, {counted(actual)}")
            expected = stock_graph(provider, stock, driver, folder, tag=tag, runs=runs)
            found += [f"{when}: {each}" for each in compare(expected, actual)]
    assert not provider.server.state.faults, "\n".join(provider.server.state.faults)
    return found


def stock_graph(
    provider: Provider, stock: Neo4jSettings, driver: neo4j.Driver, folder: Path, *, tag: int = TAG, runs: int = 1
) -> Graph:
    """What stock leaves in its Neo4j, which `driver` is on, after so many runs."""
    for _ in range(runs):
        start_s = time.monotonic()
        stock_sync(provider, stock, tag, folder)
        graph = everything(driver)
        print(f"stock: {time.monotonic() - start_s:.1f} s, {counted(graph)}")
    return graph


def stock_sync(provider: Provider, stock: Neo4jSettings, tag: int, folder: Path) -> None:
    database = ["--neo4j-uri", stock.uri, "--neo4j-user", stock.user, "--neo4j-password-env-var", "STOCK_PASSWORD"]
    variables = {**provider_environment(provider), "STOCK_PASSWORD": stock.password.get_secret_value()}
    log = run(["cartography", *database, *provider.arguments, "--update-tag", str(tag)], variables, folder)
    assert not _TROUBLE.search(log), f"stock Cartography logged an error:\n{log}"
    state = provider.server.state
    assert not state.faults, "\n".join(state.faults)
    assert any(_CURSOR.search(each) for each in state.requests), "no second page was asked for"


def provider_environment(provider: Provider) -> dict[str, str]:
    """PYTHONHASHSEED: Cartography makes lists of sets, so an order that is kept could differ by itself."""
    base = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return {**base, "AWS_EC2_METADATA_DISABLED": "true", "PYTHONHASHSEED": "0", **provider.variables}


def cartoray_environment(provider: Provider, settings: Settings) -> dict[str, str]:
    """What cartoray's commands need to sync the provider with the servers of `settings`."""
    everything = environment(settings)
    ours = {name: value for name, value in everything.items() if name.startswith("CARTORAY_") or name == "COLUMNS"}
    return {**provider_environment(provider), **ours}


def run(arguments: Sequence[str], variables: Mapping[str, str], folder: Path) -> str:
    """Runs a module of Python's in a process of its own; answers what it said, which is shown if it fails."""
    done = commands.run([sys.executable, "-m", *arguments], variables, folder, TIMEOUT_S)
    log = done.output + done.errors
    assert done.code == 0, f"{arguments[0]} ended with {done.code}:\n{log[-8_000:]}"
    return log


def everything(driver: neo4j.Driver) -> Graph:
    """All that is in a database. A node is known by all of its labels and its `id`."""
    nodes: defaultdict[Identity, list[Node]] = defaultdict(list)
    relationships: defaultdict[Edge, list[Properties]] = defaultdict(list)
    known: dict[str, Identity] = {}
    with driver.session() as session:
        for element, labels, properties in session.run("MATCH (n) RETURN elementId(n), labels(n), properties(n)"):
            identity = known[element] = Identity(":".join(sorted(labels)), canonical(properties.get("id")))
            nodes[identity].append(Node(frozenset(labels), _compared(properties)))
        found = session.run("MATCH (a)-[r]->(b) RETURN elementId(a), type(r), elementId(b), properties(r)")
        for start, kind, end, properties in found:
            relationships[Edge(kind, known[start], known[end])].append(_compared(properties))
    return Graph(nodes, relationships)


def _compared(properties: Mapping[str, Any]) -> Properties:
    """Everything that stock has but the moment of `firstseen`, which is the database's clock."""
    return {
        name: type(each).__name__ if name == "firstseen" else canonical(each)
        for name, each in properties.items()
        if name != PROPERTY
    }


def labels_of(graph: Graph) -> set[str]:
    return {label for several in graph.nodes.values() for node in several for label in node.labels}


def types_of(graph: Graph) -> set[str]:
    return {edge.type for edge in graph.relationships}


def counted(graph: Graph) -> str:
    nodes, relationships = (sum(map(len, each.values())) for each in (graph.nodes, graph.relationships))
    return (
        f"{nodes} nodes with {len(labels_of(graph))} labels, "
        f"{relationships} relationships of {len(types_of(graph))} types and {len(graph.patterns)} patterns"
    )
