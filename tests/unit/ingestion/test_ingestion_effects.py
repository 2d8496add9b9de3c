from __future__ import annotations

import pytest

from ingestion.effects import properties_set


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("MATCH (n:A) WHERE n.x = 1 RETURN n.y", ()),
        ("MATCH (n:A) SET n.x = 1, n.y = n.z WITH n WHERE n.w = 2 REMOVE n.v, n:Label", ("v", "x", "y", "z")),
        ("MERGE (n:A {id: $id}) ON CREATE SET n.firstseen = 1 ON MATCH SET n.`a b` = 2", ("firstseen", "a b")),
        ("MATCH (n) FOREACH (_ IN CASE WHEN n.a THEN [1] ELSE [] END | SET n.set = true)", ("set",)),
        ("MATCH (n) set n.on = coalesce(n.limit, [1, 2])", ("limit", "on")),
        ("MATCH (n) SET n:Label RETURN 'SET n.x = 1' // SET n.y = 2", ()),
        ("MATCH (n) CALL (n) { SET n.x = 1 } IN TRANSACTIONS OF 100 ROWS", ("x",)),
        ("CALL db.labels() YIELD label RETURN label", ()),
        ("MATCH (n) DETACH DELETE n", ()),
        ("CREATE (n:A {id: 1})", ()),
    ],
)
def test_names_are_found(text: str, names: tuple[str, ...]) -> None:
    assert properties_set(text) == set(names)


@pytest.mark.parametrize(
    "text",
    [
        "MATCH (n) SET n = $all",
        "MATCH (n) SET n.x = 1, n += {y: 2}",
        "MATCH (n) SET n[$name] = 1",
        "MATCH (n) REMOVE n['x']",
        "MATCH (n) SET (CASE WHEN true THEN n END).x = 1",
        "CALL apoc.periodic.iterate('MATCH (n) RETURN n', 'SET n.x = 1', {})",
        "MATCH (n) CALL custom.touch(n) RETURN n",
    ],
)
def test_what_may_set_any_property_says_so(text: str) -> None:
    assert properties_set(text) is None
