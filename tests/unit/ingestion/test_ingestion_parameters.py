"""Lists among the parameters of a query, for each length of which Neo4j would plan it again."""

from __future__ import annotations

import pytest

from ingestion.parameters import in_a_map


def test_lists_are_read_from_a_map_and_all_else_stays() -> None:
    query = "UNWIND $rows AS row MATCH (n:A{id: row[0], x: $x}) WHERE n.y IN $rows OR n.z = $rows_2"
    text, parameters = in_a_map(query, {"rows": [[1], [2]], "x": "$rows", "rows_2": {"a": []}})
    assert text == query.replace("$rows ", "$cartoray_lists.rows ")
    assert parameters == {"x": "$rows", "rows_2": {"a": []}, "cartoray_lists": {"rows": [[1], [2]]}}


def test_what_only_looks_like_a_parameter_stays() -> None:
    query = """RETURN '$a', "it's $a", `$a`, 'it\\'s $a', $a"""
    text, parameters = in_a_map(query, {"a": (1,), "b": [2]})
    assert text == query.removesuffix("$a") + "$cartoray_lists.a"
    assert parameters == {"b": [2], "cartoray_lists": {"a": (1,)}}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("open_", ["\\'", '\\"', "`", "/*"])
def test_what_is_never_closed_is_read_once(open_: str) -> None:
    """The text is a producer's: looking for its end again from each place would take hours."""
    query = f"RETURN $a {open_ * 100_001}"
    assert in_a_map(query, {"a": [1]})[0] == query.replace("$a", "$cartoray_lists.a")


def test_a_query_without_lists_is_left_alone() -> None:
    parameters = {"a": 1}
    assert in_a_map("RETURN $a", parameters) == ("RETURN $a", parameters)
