"""VPCs and their CIDR blocks.

Source: ec2:DescribeVpcs. Stock: `cartography.intel.aws.ec2.vpc.sync_vpc`.
"""

from __future__ import annotations

from cartography.models.aws.ec2.vpc import AWSVpcSchema
from cartography.models.aws.ec2.vpc_cidr import AWSIPv4CidrBlockSchema, AWSIPv6CidrBlockSchema

from actors.modules import Call, Cleanup, Item, NativeModule, Place, Shaped, Table
from actors.transforms import Transform

transform_vpc_data = Transform("aws.ec2.vpc:transform_vpc_data")


def _shape(items: list[Item], place: Place) -> Shaped:
    vpcs, ipv4_blocks, ipv6_blocks = transform_vpc_data(items, place.region)
    return {AWSVpcSchema: vpcs, AWSIPv4CidrBlockSchema: ipv4_blocks, AWSIPv6CidrBlockSchema: ipv6_blocks}


MODULE = NativeModule(
    name="ec2:vpc",
    permissions=("ec2:DescribeVpcs", "ec2:DescribeRegions"),
    fetch=Call("ec2", "describe_vpcs", "Vpcs", page_size=1000),
    shape=_shape,
    tables=(Table(AWSVpcSchema), Table(AWSIPv4CidrBlockSchema), Table(AWSIPv6CidrBlockSchema)),
    cleanup=(Cleanup(AWSIPv6CidrBlockSchema), Cleanup(AWSIPv4CidrBlockSchema), Cleanup(AWSVpcSchema)),
)
