"""Subnets.

Source: ec2:DescribeSubnets. Stock: `cartography.intel.aws.ec2.subnets.sync_subnets`.
"""

from __future__ import annotations

from cartography.models.aws.ec2.auto_scaling_groups import EC2SubnetAutoScalingGroupSchema
from cartography.models.aws.ec2.subnet_instance import EC2SubnetInstanceSchema
from cartography.models.aws.ec2.subnets import EC2SubnetSchema

from actors.modules import Call, Cleanup, Item, NativeModule, Place, Shaped, Table
from actors.transforms import Transform

transform_subnet_data = Transform("aws.ec2.subnets:transform_subnet_data")


def _shape(items: list[Item], place: Place) -> Shaped:
    return {EC2SubnetSchema: transform_subnet_data(items)}


MODULE = NativeModule(
    name="ec2:subnet",
    permissions=("ec2:DescribeSubnets", "ec2:DescribeRegions"),
    fetch=Call("ec2", "describe_subnets", "Subnets", page_size=1000),
    shape=_shape,
    tables=(Table(EC2SubnetSchema),),
    after=("ec2:instance",),
    cleanup=(
        Cleanup(EC2SubnetSchema),
        Cleanup(EC2SubnetInstanceSchema, refreshed_by=("ec2:instance",)),
        Cleanup(EC2SubnetAutoScalingGroupSchema, refreshed_by=("ec2:autoscalinggroup",)),
    ),
)
