"""Network interfaces, their private addresses, subnets and groups.

Source: ec2:DescribeNetworkInterfaces. Stock: `cartography.intel.aws.ec2.network_interfaces.sync_network_interfaces`.
"""

from __future__ import annotations

from cartography.models.aws.ec2.networkinterfaces import EC2NetworkInterfaceSchema
from cartography.models.aws.ec2.privateip_networkinterface import EC2PrivateIpNetworkInterfaceSchema
from cartography.models.aws.ec2.securitygroup_networkinterface import EC2SecurityGroupNetworkInterfaceSchema
from cartography.models.aws.ec2.subnet_networkinterface import EC2SubnetNetworkInterfaceSchema

from actors.modules import Call, Cleanup, Item, NativeModule, Place, Shaped, Table
from actors.transforms import Transform

transform_network_interface_data = Transform("aws.ec2.network_interfaces:transform_network_interface_data")


def _shape(items: list[Item], place: Place) -> Shaped:
    data = transform_network_interface_data(items, place.region)
    return {
        EC2NetworkInterfaceSchema: data.network_interface_list,
        EC2PrivateIpNetworkInterfaceSchema: data.private_ip_list,
        EC2SubnetNetworkInterfaceSchema: data.subnet_list,
        EC2SecurityGroupNetworkInterfaceSchema: data.sg_list,
    }


MODULE = NativeModule(
    name="ec2:network_interface",
    permissions=("ec2:DescribeNetworkInterfaces", "ec2:DescribeRegions"),
    fetch=Call("ec2", "describe_network_interfaces", "NetworkInterfaces", page_size=1000),
    shape=_shape,
    tables=(
        Table(EC2NetworkInterfaceSchema),
        Table(EC2PrivateIpNetworkInterfaceSchema),
        Table(EC2SubnetNetworkInterfaceSchema),
        Table(EC2SecurityGroupNetworkInterfaceSchema),
    ),
    after=("ec2:instance", "ec2:security_group", "ec2:subnet"),
    needs=("ec2:load_balancer",),
    cleanup=(Cleanup(EC2NetworkInterfaceSchema), Cleanup(EC2PrivateIpNetworkInterfaceSchema)),
)
