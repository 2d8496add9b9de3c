"""EKS clusters and their access entries.

Source: eks:ListClusters, and of each cluster DescribeCluster, ListAccessEntries, and of each entry DescribeAccessEntry.
Stock: `cartography.intel.aws.eks.sync`.
"""

from __future__ import annotations

from dataclasses import dataclass

from cartography.models.aws.eks.access_entry import EKSAccessEntrySchema
from cartography.models.aws.eks.clusters import EKSClusterSchema

from actors.modules import Api, Call, Cleanup, Item, NativeModule, Place, Shaped, Table
from actors.transforms import Transform

transform = Transform("aws.eks:transform")
transform_access_entries = Transform("aws.eks:transform_access_entries")

_NOT_FOUND = "ResourceNotFoundException"  # of what was deleted since it was listed; of a cluster, stock's sync ends

LIST_CLUSTERS = Call("eks", "list_clusters", "clusters", page_size=100)
DESCRIBE_CLUSTER = Call("eks", "describe_cluster", "cluster", absent=(_NOT_FOUND,))
LIST_ACCESS_ENTRIES = Call("eks", "list_access_entries", "accessEntries", page_size=100, absent=(_NOT_FOUND,))
# a cluster without access entries refuses to list them; that is known beforehand unless its description lacks the mode
LIST_ACCESS_ENTRIES_IF_ANY = Call(
    "eks", "list_access_entries", "accessEntries", page_size=100, absent=(_NOT_FOUND, "InvalidRequestException")
)
DESCRIBE_ACCESS_ENTRY = Call("eks", "describe_access_entry", "accessEntry", absent=(_NOT_FOUND,))


@dataclass(frozen=True)
class _Cluster:
    name: str
    described: Item
    access_entries: list[Item]


async def _gather(api: Api) -> list[_Cluster]:
    async def ask(name: str) -> _Cluster | None:
        described = await api.one(DESCRIBE_CLUSTER, name=name)
        if described is None:
            return None
        mode = described.get("accessConfig", {}).get("authenticationMode")
        return _Cluster(name, described, await _access_entries(api, name, mode))

    names: list[str] = [*map(str, await api.items(LIST_CLUSTERS))]
    return [cluster for cluster in await api.each(ask, names) if cluster is not None]


async def _access_entries(api: Api, cluster: str, mode: str | None) -> list[Item]:
    """`mode`: how the cluster authenticates, if it says so."""
    if mode == "CONFIG_MAP":
        return []

    async def ask(principal: str) -> Item | None:
        # stock takes what the listing tells for the entry, when its details are denied
        known = {"clusterName": cluster, "principalArn": principal}
        asked = api.one(DESCRIBE_ACCESS_ENTRY, clusterName=cluster, principalArn=principal)
        entry: Item | None = await api.tolerate(asked, known)
        return entry

    call = LIST_ACCESS_ENTRIES if mode else LIST_ACCESS_ENTRIES_IF_ANY
    principals: list[str] = [*map(str, await api.tolerate(api.items(call, clusterName=cluster), []))]
    return [entry for entry in await api.each(ask, principals) if entry is not None]


def _shape(clusters: list[_Cluster], _: Place) -> Shaped:
    return {
        EKSClusterSchema: transform({cluster.name: cluster.described for cluster in clusters}),
        EKSAccessEntrySchema: [
            entry
            for cluster in clusters
            for entry in transform_access_entries(cluster.access_entries, cluster.described["arn"])
        ],
    }


MODULE = NativeModule(
    name="eks",
    permissions=(
        "eks:ListClusters",
        "eks:DescribeCluster",
        "eks:ListAccessEntries",
        "eks:DescribeAccessEntry",
        "ec2:DescribeRegions",
    ),
    fetch=_gather,
    shape=_shape,
    tables=(Table(EKSClusterSchema), Table(EKSAccessEntrySchema)),
    cleanup=(Cleanup(EKSAccessEntrySchema), Cleanup(EKSClusterSchema)),
)
