"""Application and network load balancers, their target groups and listeners, and the targets that they expose.

Source: elasticloadbalancing:DescribeLoadBalancers, of each DescribeListeners and DescribeTargetGroups, and of each
group DescribeTargetHealth. Stock: `cartography.intel.aws.ec2.load_balancer_v2s.sync_load_balancer_v2s`, without the
query by which it relabels what old releases left. Targets that are addresses are left to `ec2:load_balancer_v2:expose`,
which looks for them in the graph.
"""

from __future__ import annotations

import asyncio

from cartography.models.aws.ec2.loadbalancerv2 import (
    ELBV2ListenerSchema,
    ELBV2TargetGroupSchema,
    LoadBalancerV2Schema,
    LoadBalancerV2ToAWSLambdaMatchLink,
    LoadBalancerV2ToEC2InstanceMatchLink,
    LoadBalancerV2ToLoadBalancerV2MatchLink,
)

from actors.modules import Api, Call, Cleanup, Item, NativeModule, Place, Shaped, Table
from actors.transforms import Transform

transform_load_balancer_v2_data = Transform("aws.ec2.load_balancer_v2s:_transform_load_balancer_v2_data")

LIST_BALANCERS = Call("elbv2", "describe_load_balancers", "LoadBalancers", page_size=400)
# absent: deleted since it was listed, which ends stock's sync
_ABSENT = ("LoadBalancerNotFound", "TargetGroupNotFound")
LIST_LISTENERS = Call("elbv2", "describe_listeners", "Listeners", page_size=400, absent=_ABSENT)
LIST_TARGET_GROUPS = Call("elbv2", "describe_target_groups", "TargetGroups", page_size=400, absent=_ABSENT)
TARGET_HEALTH = Call("elbv2", "describe_target_health", "TargetHealthDescriptions", absent=_ABSENT)


async def _gather(api: Api) -> list[Item]:
    async def ask(balancer: Item) -> Item:
        arn = balancer["LoadBalancerArn"]
        # of listeners alone stock takes a denial for none: any other ends the region, there as here
        listeners, groups = await asyncio.gather(
            api.tolerate(api.items(LIST_LISTENERS, LoadBalancerArn=arn), []),
            _target_groups(api, arn),
        )
        return {**balancer, "Listeners": listeners, "TargetGroups": groups}

    return await api.each(ask, await api.items(LIST_BALANCERS))


async def _target_groups(api: Api, balancer_arn: str) -> list[Item]:
    async def ask(group: Item) -> Item:
        found = await api.items(TARGET_HEALTH, TargetGroupArn=group["TargetGroupArn"])
        return {**group, "Targets": [health["Target"]["Id"] for health in found]}

    return await api.each(ask, await api.items(LIST_TARGET_GROUPS, LoadBalancerArn=balancer_arn))


def _shape(balancers: list[Item], _: Place) -> Shaped:
    nodes, listeners, groups, targets = transform_load_balancer_v2_data(balancers)

    def of_type(name: str) -> list[Item]:
        return [target for target in targets if target["TargetType"] == name]

    return {
        LoadBalancerV2Schema: nodes,
        ELBV2TargetGroupSchema: groups,
        ELBV2ListenerSchema: listeners,
        LoadBalancerV2ToEC2InstanceMatchLink: of_type("instance"),
        LoadBalancerV2ToAWSLambdaMatchLink: of_type("lambda"),
        LoadBalancerV2ToLoadBalancerV2MatchLink: of_type("alb"),
    }


MODULE = NativeModule(
    name="ec2:load_balancer_v2",
    permissions=(
        "elasticloadbalancing:DescribeLoadBalancers",
        "elasticloadbalancing:DescribeListeners",
        "elasticloadbalancing:DescribeTargetGroups",
        "elasticloadbalancing:DescribeTargetHealth",
        "ec2:DescribeRegions",
    ),
    fetch=_gather,
    shape=_shape,
    tables=(
        Table(LoadBalancerV2Schema),
        Table(ELBV2TargetGroupSchema),
        Table(ELBV2ListenerSchema),
        Table(LoadBalancerV2ToEC2InstanceMatchLink),
        Table(LoadBalancerV2ToAWSLambdaMatchLink),
        Table(LoadBalancerV2ToLoadBalancerV2MatchLink),
    ),
    cleanup=(
        Cleanup(LoadBalancerV2ToEC2InstanceMatchLink),
        Cleanup(LoadBalancerV2ToAWSLambdaMatchLink),
        Cleanup(LoadBalancerV2ToLoadBalancerV2MatchLink),
        Cleanup(ELBV2TargetGroupSchema),
        Cleanup(LoadBalancerV2Schema),
        Cleanup(ELBV2ListenerSchema),
    ),
)
