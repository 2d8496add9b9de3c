"""Relationships that Cartography derives from the graph: it reads pairs out of it and writes them back as a matchlink.

Here both halves are one statement, so the pairs never leave the database. The table is closed: what may be derived
comes from this file, and a message can only name an entry of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from cartography.graph.querybuilder import build_matchlink_query

from cartoray import schemas
from cartoray.errors import UnreadableMessage
from ingestion.statements import ALL, Index, around_rows, cleanups, index, never_back

# Path of the matchlink → what stock's `sync_…` reads: the fields of its rows, of the account $_sub_resource_id.
_READS = {
    # intel/aws/ec2/instances.py: sync_ec2_instance_assumes_role
    "cartography.models.aws.ec2.instances:EC2InstanceToRoleAssumesMatchLink": f"""\
MATCH (a:AWSAccount{{id: $_sub_resource_id}})-[:RESOURCE]->(i:AWSEC2Instance)
USING INDEX SEEK a:AWSAccount(id)
MATCH (i)-[:INSTANCE_PROFILE]->(:AWSInstanceProfile)-[:ASSOCIATED_WITH]->(r:AWSRole)
WITH i, r {ALL} WHERE i.id IS NOT NULL AND r.arn IS NOT NULL
WITH DISTINCT {{instance_id: i.id, role_arn: r.arn}} AS item""",
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
    (cleanup,) = cleanups(path).queries
    return Derivation(
        link=never_back(f"{before}{_READS[path]}{body}".strip()).rstrip(";"),
        cleanup=cleanup,
        indexes=tuple(index(query) for query in schemas.index_queries(path)),
    )
