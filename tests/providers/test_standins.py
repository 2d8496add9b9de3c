"""The stand-ins do for stock Cartography what the providers do: its sync runs to the end, and its Neo4j is full."""

from __future__ import annotations

from pathlib import Path

import pytest
from providers.comparison import labels_of, stock_graph, types_of
from providers.standins import start
from support.databases import empty, open_graph

from cartoray.settings import Neo4jSettings

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]


@pytest.mark.parametrize(("name", "labels", "types"), [("github", 50, 55), ("kubernetes", 35, 16), ("okta", 24, 16)])
def test_stock_cartography_fills_its_graph_from_a_stand_in(
    name: str, labels: int, types: int, stock_neo4j: Neo4jSettings, tmp_path: Path
) -> None:
    with start(name, tmp_path) as provider, open_graph(stock_neo4j) as driver:
        empty(driver)
        graph = stock_graph(provider, stock_neo4j, driver, tmp_path)
    assert len(labels_of(graph)) >= labels, sorted(labels_of(graph))
    assert len(types_of(graph)) >= types, sorted(types_of(graph))
