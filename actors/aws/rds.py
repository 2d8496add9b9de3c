"""RDS clusters, instances with their subnet groups, snapshots, and event subscriptions.

Source: rds:DescribeDBClusters, DescribeDBInstances, DescribeDBSnapshots with, of each manual one,
DescribeDBSnapshotAttributes, and DescribeEventSubscriptions. Stock: `cartography.intel.aws.rds.sync`, without the
`ModuleSyncMetadata` node that it merges when all is done: that is no row of a schema.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from cartography.models.aws.rds.cluster import RDSClusterSchema
from cartography.models.aws.rds.event_subscription import RDSEventSubscriptionSchema
from cartography.models.aws.rds.instance import RDSInstanceSchema
from cartography.models.aws.rds.snapshot import RDSSnapshotSchema
from cartography.models.aws.rds.subnet_group import DBSubnetGroupSchema

from actors.modules import Api, Call, Cleanup, Item, NativeModule, Place, Shaped, Table
from actors.transforms import Transform

transform_rds_clusters = Transform("aws.rds:transform_rds_clusters")
transform_rds_instances = Transform("aws.rds:transform_rds_instances")
transform_rds_subnet_groups = Transform("aws.rds:transform_rds_subnet_groups")
transform_rds_snapshots = Transform("aws.rds:transform_rds_snapshots")
transform_rds_event_subscriptions = Transform("aws.rds:transform_rds_event_subscriptions")

LIST_CLUSTERS = Call("rds", "describe_db_clusters", "DBClusters", page_size=100)
LIST_INSTANCES = Call("rds", "describe_db_instances", "DBInstances", page_size=100)
LIST_SNAPSHOTS = Call("rds", "describe_db_snapshots", "DBSnapshots", page_size=100)
# absent: deleted since it was listed, which ends stock's sync
SNAPSHOT_ATTRIBUTES = Call(
    "rds", "describe_db_snapshot_attributes", "DBSnapshotAttributesResult", absent=("DBSnapshotNotFound",)
)
LIST_SUBSCRIPTIONS = Call("rds", "describe_event_subscriptions", "EventSubscriptionsList", page_size=100)


@dataclass(frozen=True)
class _Databases:
    clusters: list[Item]
    instances: list[Item]
    snapshots: list[Item]
    subscriptions: list[Item]


async def _gather(api: Api) -> _Databases:
    # stock takes a listing that is denied for an empty one, and goes on with the others
    return _Databases(
        *await asyncio.gather(
            api.tolerate(api.items(LIST_CLUSTERS), []),
            api.tolerate(api.items(LIST_INSTANCES), []),
            api.tolerate(_snapshots(api), []),
            api.tolerate(api.items(LIST_SUBSCRIPTIONS), []),
        )
    )


async def _snapshots(api: Api) -> list[Item]:
    """With `Public`: whether everybody may restore it. As in stock there are none if that may not be asked."""

    async def ask(snapshot: Item) -> Item | None:
        if snapshot.get("SnapshotType") != "manual":  # no other can be shared
            return {**snapshot, "Public": False}
        found = await api.one(SNAPSHOT_ATTRIBUTES, DBSnapshotIdentifier=snapshot["DBSnapshotIdentifier"])
        return None if found is None else {**snapshot, "Public": _is_public(found)}

    asked = await api.each(ask, await api.items(LIST_SNAPSHOTS))
    return [snapshot for snapshot in asked if snapshot is not None]


def _is_public(found: Item) -> bool:
    return any(
        attribute.get("AttributeName") == "restore" and "all" in attribute.get("AttributeValues", [])
        for attribute in found.get("DBSnapshotAttributes", [])
    )


def _shape(found: _Databases, place: Place) -> Shaped:
    return {
        RDSClusterSchema: transform_rds_clusters(found.clusters),
        RDSInstanceSchema: transform_rds_instances(found.instances, place.region, place.account.id),
        DBSubnetGroupSchema: transform_rds_subnet_groups(found.instances, place.region, place.account.id),
        RDSSnapshotSchema: transform_rds_snapshots(found.snapshots),
        RDSEventSubscriptionSchema: transform_rds_event_subscriptions(found.subscriptions),
    }


MODULE = NativeModule(
    name="rds",
    permissions=(
        "rds:DescribeDBClusters",
        "rds:DescribeDBInstances",
        "rds:DescribeDBSnapshots",
        "rds:DescribeDBSnapshotAttributes",
        "rds:DescribeEventSubscriptions",
        "ec2:DescribeRegions",
    ),
    fetch=_gather,
    shape=_shape,
    tables=(
        Table(RDSClusterSchema),
        Table(RDSInstanceSchema),
        Table(DBSubnetGroupSchema),
        Table(RDSSnapshotSchema),
        Table(RDSEventSubscriptionSchema),
    ),
    cleanup=(
        Cleanup(RDSClusterSchema),
        Cleanup(RDSInstanceSchema),
        Cleanup(DBSubnetGroupSchema),
        Cleanup(RDSSnapshotSchema),
        Cleanup(RDSEventSubscriptionSchema),
    ),
    marks=("AWSRDSCluster",),
)
