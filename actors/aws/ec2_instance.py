"""EC2 instances, with what a reservation tells of their subnets, groups, keys, interfaces, volumes and addresses.

Source: ec2:DescribeInstances. Stock: `cartography.intel.aws.ec2.instances.sync_ec2_instances`.
"""

from __future__ import annotations

from cartography.models.aws.ec2.auto_scaling_groups import EC2InstanceAutoScalingGroupSchema
from cartography.models.aws.ec2.instances import EC2InstanceSchema, EC2InstanceToRoleAssumesMatchLink
from cartography.models.aws.ec2.ipv6_addresses import EC2Ipv6AddressSchema
from cartography.models.aws.ec2.keypair_instance import EC2KeyPairInstanceSchema
from cartography.models.aws.ec2.networkinterface_instance import EC2NetworkInterfaceInstanceSchema
from cartography.models.aws.ec2.reservations import EC2ReservationSchema
from cartography.models.aws.ec2.securitygroup_instance import EC2SecurityGroupInstanceSchema
from cartography.models.aws.ec2.subnet_instance import EC2SubnetInstanceSchema
from cartography.models.aws.ec2.volumes import EBSVolumeInstanceSchema

from actors.modules import Call, Cleanup, Item, NativeModule, Place, Shaped, Table
from actors.transforms import Transform

transform_ec2_instances = Transform("aws.ec2.instances:transform_ec2_instances")


def _shape(items: list[Item], place: Place) -> Shaped:
    data = transform_ec2_instances(items, place.region, place.account.id)
    return {
        EC2ReservationSchema: data.reservation_list,
        EC2InstanceSchema: data.instance_list,
        EC2SubnetInstanceSchema: data.subnet_list,
        EC2SecurityGroupInstanceSchema: data.sg_list,
        EC2KeyPairInstanceSchema: data.keypair_list,
        EC2NetworkInterfaceInstanceSchema: data.network_interface_list,
        EBSVolumeInstanceSchema: data.instance_ebs_volumes_list,
        EC2Ipv6AddressSchema: data.ipv6_address_list,
    }


MODULE = NativeModule(
    name="ec2:instance",
    permissions=("ec2:DescribeInstances", "ec2:DescribeRegions"),
    fetch=Call("ec2", "describe_instances", "Reservations", page_size=1000),
    shape=_shape,
    tables=(
        Table(EC2ReservationSchema),
        Table(EC2InstanceSchema),
        Table(EC2SubnetInstanceSchema),
        Table(EC2SecurityGroupInstanceSchema),
        Table(EC2KeyPairInstanceSchema),
        Table(EC2NetworkInterfaceInstanceSchema),
        Table(EBSVolumeInstanceSchema),
        Table(EC2Ipv6AddressSchema),
    ),
    cleanup=(
        Cleanup(EC2ReservationSchema),
        Cleanup(EC2InstanceSchema),
        Cleanup(EC2InstanceAutoScalingGroupSchema, refreshed_by=("ec2:autoscalinggroup",)),
        Cleanup(EC2Ipv6AddressSchema),
    ),
    derive=(EC2InstanceToRoleAssumesMatchLink,),
)
