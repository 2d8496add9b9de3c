"""No statement looks through a whole label: Neo4j's plans begin at the account, or at an id.

Neither where there is much, nor where there is nothing yet: Neo4j keeps the plan that it made first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import neo4j
import pytest
from ingestion_rows import ACCOUNT, OTHER, run

from actors.modules import NativeModule, modules
from cartoray import schemas
from ingestion.derivations import derivation
from ingestion.statements import cleanups, guarded, probe, recognition, statements

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]  # Neo4j plans hundreds of statements

OWN, OTHERS = 50, 500  # nodes of each label
PARAMETERS: dict[str, Any] = {
    "AWS_ID": ACCOUNT,
    "UPDATE_TAG": 2,
    "LIMIT_SIZE": 1_000,
    "_sub_resource_id": ACCOUNT,
    "_sub_resource_label": "AWSAccount",
    "lastupdated": 2,
    "rows": [],
    "changes": [],
    "keys": [["own-1", 0, 0, 1]],
    "loads": [{"AWS_ID": ACCOUNT, "Region": "us-east-1", "lastupdated": 2}],
    "none": 0,
    "IDS": [f"own-{number}" for number in range(OWN)],
}


@pytest.fixture
def indexed(graph: neo4j.Driver) -> neo4j.Driver:
    with graph.session() as session, session.begin_transaction() as transaction:
        for query in dict.fromkeys(index.query for path in tables() for index in statements(path).indexes):
            transaction.run(query).consume()
        transaction.commit()
    run(graph, "CALL db.awaitIndexes(60)")
    return graph


def plant(graph: neo4j.Driver) -> None:
    """Of each label that native modules clean up, few nodes of the account and many of another; all of them stale."""
    run(graph, "UNWIND $ids AS id CREATE (:AWSAccount {id: id, lastupdated: 1})", ids=[ACCOUNT, OTHER])
    labels = sorted({schemas.label(path) for path, _ in cleaned()})
    for account, name, count in ((ACCOUNT, "own", OWN), (OTHER, "other", OTHERS)):
        run(
            graph,
            "MATCH (a:AWSAccount {id: $account}) UNWIND $labels AS label UNWIND range(0, $count - 1) AS number "
            "CREATE (:$(label) {id: $name + '-' + number, lastupdated: 1})<-[:RESOURCE {lastupdated: 1}]-(a)",
            **{"account": account, "name": name, "count": count, "labels": labels},
        )


def tables() -> list[str]:
    return [table.path for module in modules().values() for table in module.tables]


def cleaned() -> list[tuple[str, str]]:
    """Schemas, with what each is cleaned for."""
    found: list[NativeModule] = list(modules().values())
    return [(schemas.path_of(cleanup.schema()), cleanup.of) for module in found for cleanup in module.cleanup]


def texts() -> Iterator[str]:
    for path, of in dict.fromkeys(cleaned()):
        cleanup = cleanups(path, of)
        yield from (cleanup.probe, *cleanup.queries, cleanup.older, *cleanup.by_id, cleanup.rest)
    for path in tables():
        written, found = statements(path), recognition(path, frozenset())
        yield from (found.query, found.lazy or "") if found else ()
        yield from (written.compare.query, written.compare.apply) if written.compare else ()
        yield from (written.nodes or "", *(relationship.query for relationship in written.relationships))
    for link in [link for module in modules().values() for link in module.derive]:
        yield from (derivation(schemas.path_of(link())).link, derivation(schemas.path_of(link())).cleanup)


def of_each_form(queries: Iterable[str]) -> list[str]:
    """The first of those whose patterns differ in labels, types and properties alone: there is as much of each."""
    found: dict[str, str] = {}
    for query in queries:
        lines = [
            line for line in query.splitlines() if re.match(r"\s*(MATCH|MERGE|WHERE|AND|USING|UNWIND|CALL|EX)", line)
        ]
        found.setdefault(re.sub(r":\w+|\.\w+|\[\d+\]", "", "\n".join(lines)), query)
    return [query for query in found.values() if query]


def operators(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("children", ()):
        yield from operators(child)


def test_no_plan_begins_with_a_scan(indexed: neo4j.Driver) -> None:
    queries = of_each_form(texts())
    assert len(queries) > 100
    expect_no_scan(indexed, queries)
    plant(indexed)
    expect_no_scan(indexed, queries)


def expect_no_scan(graph: neo4j.Driver, queries: Iterable[str]) -> None:
    scans = ("Scan", "SeekByRange", "Contains")
    with graph.session(notifications_min_severity="OFF") as session:
        for text in queries:
            plan = session.run("EXPLAIN " + text, PARAMETERS).consume().plan
            found = {str(each["operatorType"]).partition("@")[0] for each in operators(plan)}
            assert not [each for each in found if any(scan in each for scan in scans)], f"{found}\n{text}"
            assert re.search(r"Node(Unique)?IndexSeek", str(found)), f"{found}\n{text}"  # and it shows


def test_cleanups_of_other_providers_run_without_the_indexes_that_they_ask_for(graph: neo4j.Driver) -> None:
    for path in (
        "cartography.models.github.repos:GitHubRepositorySchema",
        "cartography.models.okta.user:OktaUserSchema",
        "cartography.models.kubernetes.pods:KubernetesPodSchema",
        "cartography.models.gcp.compute.vpc:GCPVpcSchema",
    ):
        for query in schemas.cleanup(path):
            names = set(re.findall(r"\$(\w+)", query)) - {"LIMIT_SIZE"}
            parameters = {**dict.fromkeys(names, 1), "LIMIT_SIZE": 10}
            assert run(graph, guarded(query), **parameters) == [[0]]
            assert run(graph, probe([guarded(query)]), **parameters) == [[False]]
