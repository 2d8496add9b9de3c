"""EBS volumes.

Source: ec2:DescribeVolumes. Stock: `cartography.intel.aws.ec2.volumes.sync_ebs_volumes`.
"""

from __future__ import annotations

from cartography.models.aws.ec2.volumes import EBSVolumeSchema

from actors.modules import Call, Cleanup, Item, NativeModule, Place, Shaped, Table
from actors.transforms import Transform

transform_volumes = Transform("aws.ec2.volumes:transform_volumes")


def _shape(items: list[Item], place: Place) -> Shaped:
    return {EBSVolumeSchema: transform_volumes(items, place.region, place.account.id)}


MODULE = NativeModule(
    name="ec2:volumes",
    permissions=("ec2:DescribeVolumes", "ec2:DescribeRegions"),
    fetch=Call("ec2", "describe_volumes", "Volumes", page_size=500),  # more than 500 AWS does not give at once
    shape=_shape,
    tables=(Table(EBSVolumeSchema),),
    after=("ec2:instance",),
    cleanup=(Cleanup(EBSVolumeSchema),),
)
