"""Security groups, their rules and address ranges.

Source: ec2:DescribeSecurityGroups. Stock: `cartography.intel.aws.ec2.security_groups.sync_ec2_security_groupinfo`.
"""

from __future__ import annotations

from cartography.models.aws.ec2.security_group_rules import IpPermissionInboundSchema, IpRangeSchema, IpRuleSchema
from cartography.models.aws.ec2.security_groups import EC2SecurityGroupSchema
from cartography.models.aws.ec2.securitygroup_instance import EC2SecurityGroupInstanceSchema

from actors.modules import Call, Cleanup, Item, NativeModule, Place, Shaped, Table
from actors.transforms import Transform

transform_ec2_security_group_data = Transform("aws.ec2.security_groups:transform_ec2_security_group_data")


def _shape(items: list[Item], place: Place) -> Shaped:
    data = transform_ec2_security_group_data(items)
    # stock's transform takes these from a set: sorted, an unchanged group gives the same row in every process
    groups = [{**group, "SOURCE_GROUP_IDS": sorted(group["SOURCE_GROUP_IDS"])} for group in data.groups]
    return {
        EC2SecurityGroupSchema: groups,
        IpPermissionInboundSchema: data.inbound_rules,
        IpRuleSchema: data.egress_rules,
        IpRangeSchema: data.ranges,
    }


MODULE = NativeModule(
    name="ec2:security_group",
    permissions=("ec2:DescribeSecurityGroups", "ec2:DescribeRegions"),
    fetch=Call("ec2", "describe_security_groups", "SecurityGroups", page_size=1000),
    shape=_shape,
    tables=(
        Table(EC2SecurityGroupSchema),
        Table(IpPermissionInboundSchema),
        Table(IpRuleSchema),
        Table(IpRangeSchema),
    ),
    after=("ec2:instance",),
    cleanup=(
        Cleanup(EC2SecurityGroupSchema),
        Cleanup(IpPermissionInboundSchema),
        Cleanup(IpRuleSchema),
        Cleanup(IpRangeSchema),
        Cleanup(EC2SecurityGroupInstanceSchema, refreshed_by=("ec2:instance",)),
    ),
)
