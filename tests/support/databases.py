"""A Neo4j as tests want it: reached, and empty."""

from __future__ import annotations

import neo4j

from cartoray.settings import Neo4jSettings


def open_graph(settings: Neo4jSettings) -> neo4j.Driver:
    return neo4j.GraphDatabase.driver(settings.uri, auth=(settings.user, settings.password.get_secret_value()))


def wipe(driver: neo4j.Driver) -> None:
    """Removes all nodes. Workers that run go on with the constraints that they have made."""
    with driver.session() as session:
        session.run("MATCH (n) CALL (n) { DETACH DELETE n } IN TRANSACTIONS OF 5000 ROWS").consume()


def empty(driver: neo4j.Driver) -> None:
    """Removes everything from the driver's database: nodes, constraints and indexes."""
    wipe(driver)
    with driver.session() as session:
        for name in session.run("SHOW CONSTRAINTS YIELD name").value():
            session.run(f"DROP CONSTRAINT `{name}`").consume()
        for name in session.run("SHOW INDEXES YIELD name, type WHERE type <> 'LOOKUP' RETURN name").value():
            session.run(f"DROP INDEX `{name}`").consume()


def run(driver: neo4j.Driver, query: str, **parameters: object) -> int:
    """Runs a query; answers how many changes of content it made."""
    with driver.session() as session:
        counters = session.run(query, parameters).consume().counters
    return (
        counters.nodes_created
        + counters.nodes_deleted
        + counters.relationships_created
        + counters.relationships_deleted
        + counters.properties_set
        + counters.labels_added
        + counters.labels_removed
    )
