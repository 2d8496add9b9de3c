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
        drops = [f"DROP CONSTRAINT `{name}`" for name in session.run("SHOW CONSTRAINTS YIELD name").value()]
        owned = "SHOW INDEXES YIELD name, type, owningConstraint WHERE type <> 'LOOKUP' AND owningConstraint IS NULL"
        drops += [f"DROP INDEX `{name}`" for name in session.run(f"{owned} RETURN name").value()]
        with session.begin_transaction() as transaction:  # a commit for each takes as long as all of them
            for drop in drops:
                transaction.run(drop).consume()
            transaction.commit()


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
