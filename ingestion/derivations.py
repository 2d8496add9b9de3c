"""Relationships that Cartography derives from the graph: it reads pairs out of it and writes them back as a matchlink.

Here both halves are one statement, so the pairs never leave the database. The table is closed: what may be derived
comes from this file, and a message can only name an entry of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from cartography.graph.cleanupbuilder import build_cleanup_query_for_matchlink
from cartography.graph.querybuilder import build_matchlink_query
from cartography.models.core.relationships import CartographyRelSchema

from cartoray import schemas
from cartoray.errors import UnreadableMessage
from ingestion.statements import ALL, Index, around_rows, guarded, index, never_back

# Path of the matchlink → what stock's `sync_…` reads: the fields of its rows, of the account $_sub_resource_id.
_READS = {
    # intel/aws/ec2/instances.py: sync_ec2_instance_assumes_role
    "cartography.models.aws.ec2.instances:EC2InstanceToRoleAssumesMatchLink": """\
MATCH (:AWSAccount{id: $_sub_resource_id})-[:RESOURCE]->(i:AWSEC2Instance)
    -[:INSTANCE_PROFILE]->(:AWSInstanceProfile)-[:ASSOCIATED_WITH]->(r:AWSRole)
WHERE i.id IS NOT NULL AND r.arn IS NOT NULL
WITH DISTINCT {instance_id: i.id, role_arn: r.arn} AS item""",
}


@dataclass(frozen=True)
class Derivation:
    """`link` makes or refreshes the relationships; `cleanup` deletes the older ones, like `statements.cleanups`.

    Parameters: `lastupdated`, `_sub_resource_label`, `_sub_resource_id`; of the cleanup UPDATE_TAG and LIMIT_SIZE.
    """

    link: str
    cleanup: str
    indexes: tuple[Index, ...]


@lru_cache(maxsize=64)
def derivation(path: str) -> Derivation:
    """Raises UnreadableMessage: nothing is derived under that path."""
    if path not in _READS:
        raise UnreadableMessage(f"{path!r} is not among the links that cartoray derives.")
    schema = schemas.matchlink_schema(path)
    stock = build_matchlink_query(schema)
    before, body = around_rows(stock, path)
    return Derivation(
        link=never_back(f"{before}{_READS[path]}{body}".strip()).rstrip(";"),
        cleanup=guarded(_of_account(build_cleanup_query_for_matchlink(schema), schema)),
        indexes=tuple(index(query) for query in schemas.index_queries(path)),
    )


def _of_account(cleanup: str, schema: CartographyRelSchema) -> str:
    """Stock's cleanup, beginning at the account: by itself it looks through all relationships of the type.

    All nodes at which these begin belong to it, and stay with it: an entry of which that is not so cannot be cleaned up
    in this way.
    """
    start = f"MATCH (from:{schema.source_node_label})"
    if cleanup.count(start) != 1:
        raise ValueError(f"Cartography's cleanup of {schema.rel_label} has an unknown form: {cleanup}")
    return cleanup.replace(
        start,
        "MATCH (sub:AWSAccount{id: $_sub_resource_id})-[:RESOURCE]->(from)\n"
        "        USING INDEX SEEK sub:AWSAccount(id)\n"
        f"        WITH from {ALL} WHERE from:{schema.source_node_label}\n        MATCH (from)",
    )
