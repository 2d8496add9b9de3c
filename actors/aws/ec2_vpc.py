"""VPCs and their CIDR blocks.

Source: ec2:DescribeVpcs. Stock: `cartography.intel.aws.ec2.vpc.sync_vpc`.
"""

from __future__ import annotations

from collections.abc import Sequence

from cartography.models.aws.ec2.vpc import AWSVpcSchema
from cartography.models.aws.ec2.vpc_cidr import AWSIPv4CidrBlockSchema, AWSIPv6CidrBlockSchema

from actors.modules import Call, Cleanup, Item, NativeModule, NodeTable, Place, Shaped


def _shape(items: Sequence[Item], place: Place) -> Shaped:
    from cartography.intel.aws.ec2.vpc import transform_vpc_data

    vpcs, ipv4_blocks, ipv6_blocks = transform_vpc_data(items, place.region)
    return {AWSVpcSchema: vpcs, AWSIPv4CidrBlockSchema: ipv4_blocks, AWSIPv6CidrBlockSchema: ipv6_blocks}


MODULE = NativeModule(
    name="ec2:vpc",
    permissions=("ec2:DescribeVpcs", "ec2:DescribeRegions"),
    fetch=Call("ec2", "describe_vpcs", "Vpcs", page_size=1000),
    shape=_shape,
    tables=(NodeTable(AWSVpcSchema), NodeTable(AWSIPv4CidrBlockSchema), NodeTable(AWSIPv6CidrBlockSchema)),
    cleanup=(Cleanup(AWSIPv6CidrBlockSchema), Cleanup(AWSIPv4CidrBlockSchema), Cleanup(AWSVpcSchema)),
)
