"""What other modules would have put into the graph beside the six, as far as the six lead there or read it."""

from __future__ import annotations

import neo4j
from support.databases import run

from cartoray.stack.simulated_aws import SimulatedAws

CLUSTERS = [f"{team}-cluster" for team in ("payments", "search", "identity", "data", "platform")]

_IAM = """
UNWIND $accounts AS account
MERGE (a:AWSAccount{id: account})
MERGE (p:AWSInstanceProfile{id: 'arn:aws:iam::' + account + ':instance-profile/node'})
SET p.arn = p.id, p.lastupdated = 1
MERGE (r:AWSRole:AWSPrincipal{id: 'arn:aws:iam::' + account + ':role/node'})
SET r.arn = r.id, r.lastupdated = 1
MERGE (a)-[:RESOURCE{lastupdated: 1}]->(p)
MERGE (a)-[:RESOURCE{lastupdated: 1}]->(r)
MERGE (p)-[:ASSOCIATED_WITH{lastupdated: 1}]->(r)
"""
_CLUSTERS = "UNWIND $names AS name MERGE (c:AWSEKSCluster{id: 'arn:' + name}) SET c.name = name, c.lastupdated = 1"


def plant(driver: neo4j.Driver, aws: SimulatedAws) -> None:
    """Instance profiles with their roles in all accounts but the last, and EKS clusters."""
    assert run(driver, _IAM, accounts=list(aws.accounts[:-1]))
    assert run(driver, _CLUSTERS, names=CLUSTERS)


def unplant(driver: neo4j.Driver, aws: SimulatedAws) -> None:
    """The first account's instance profile loses its role."""
    query = "MATCH (:AWSInstanceProfile{id: $id})-[r:ASSOCIATED_WITH]->() DELETE r"
    assert run(driver, query, id=f"arn:aws:iam::{aws.accounts[0]}:instance-profile/node") == 1
