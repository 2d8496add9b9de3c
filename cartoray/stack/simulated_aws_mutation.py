"""Changes to the simulated inventory that a second sync has to notice: things gone, changed and new.

Repeatable: the same seed on the same inventory makes the same changes. What moto would keep for a while after its
end, such as a terminated instance, is taken out of moto as well, since AWS forgets it after an hour.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from moto.iam.models import iam_backends
from moto.s3.models import s3_backends

from cartoray.stack.simulated_aws_inventory import PARTITION, Plan, RegionInventory, create_bucket


@dataclass(frozen=True)
class Change:
    """One thing that was removed, changed or added; `id` as the API shows it."""

    account: str
    region: str
    kind: str
    verb: Literal["removed", "changed", "added"]
    id: str


def mutate(plan: Plan, seed: int) -> list[Change]:
    """Changes every account and region a little. A seed serves once on an inventory: it is in the names of what is new.

    The thread that calls must be the only one that touches moto.
    """
    changes: list[Change] = []
    for account in plan.accounts:
        changes += _mutate_account(account, plan, seed)
        for region in plan.regions:
            changes += _RegionMutation(account, region, seed).changes()
    return changes


def _mutate_account(account: str, plan: Plan, seed: int) -> Iterator[Change]:
    """One user and one bucket leave, one of each comes; both are global, so their region is empty."""
    iam: Any = iam_backends[account][PARTITION]
    leaving = next(iter(iam.users.values()), None)
    if leaving is not None:
        for group in iam.get_groups_for_user(leaving.name):
            iam.remove_user_from_group(group.name, leaving.name)
        for key in list(leaving.access_keys):
            iam.delete_access_key(key.access_key_id, leaving.name)
        leaving.policies.clear()
        leaving.managed_policies.clear()
        iam.delete_user(leaving.name)
        yield Change(account, "", "user", "removed", leaving.name)
    iam.create_user(plan.regions[0], f"joined-{seed}", "/", [])
    yield Change(account, "", "user", "added", f"joined-{seed}")
    s3: Any = s3_backends[account][PARTITION]
    bucket = next(iter(s3.buckets), None)
    if bucket is not None:
        s3.delete_bucket(bucket)
        yield Change(account, "", "bucket", "removed", bucket)
    create_bucket(account, plan.regions[0], f"added-{seed}-{account}")
    yield Change(account, "", "bucket", "added", f"added-{seed}-{account}")


class _RegionMutation:
    """The changes of one account's region, in an order in which nothing is changed that is about to go."""

    def __init__(self, account: str, region: str, seed: int) -> None:
        self._inventory = RegionInventory(account, region, f"mutation {seed}/{account}/{region}")
        self._ec2 = self._inventory.ec2
        self._random = self._inventory.random
        self._account = account
        self._region = region
        self._seed = seed

    def changes(self) -> Iterator[Change]:
        """Makes them, and names each."""
        yield from self._remove_instances()
        yield from self._remove_unattached()
        yield from self._remove_network()
        yield from self._change_rules()
        yield from self._change_instances()
        yield from self._add()

    def _change(self, kind: str, verb: Literal["removed", "changed", "added"], id_: str) -> Change:
        return Change(self._account, self._region, kind, verb, id_)

    def _instances(self, *states: str) -> list[Any]:
        return [instance for instance in self._ec2.all_instances() if not states or instance.state in states]

    def _some(self, among: Sequence[Any]) -> list[Any]:
        """A tenth of them, at least one if there is any."""
        return self._random.sample(list(among), k=min(len(among), max(1, len(among) // 10)))

    def _remove_instances(self) -> Iterator[Change]:
        vanishing = self._some(self._instances("running")) + self._some(self._instances("terminated"))
        for instance in vanishing:
            interfaces = list(instance.nics.values())
            if instance.state != "terminated":
                self._ec2.terminate_instances([instance.id])
            for interface in interfaces:
                self._ec2.enis.pop(interface.id, None)
            for key, reservation in list(self._ec2.reservations.items()):
                if instance in reservation.instances:
                    reservation.instances.remove(instance)
                    if not reservation.instances:
                        del self._ec2.reservations[key]
            self._ec2.delete_tag_keys([instance.id], list(self._ec2.tags.get(instance.id, {})))
            yield self._change("instance", "removed", instance.id)
        for instance in self._some(self._instances("running")):
            self._ec2.terminate_instances([instance.id])
            instance._reason = f"User initiated ({instance.launch_time:%Y-%m-%d %H:%M:%S} GMT)"
            yield self._change("instance", "changed", instance.id)

    def _remove_unattached(self) -> Iterator[Change]:
        for volume in self._some([item for item in self._ec2.volumes.values() if not item.attachment]):
            self._ec2.delete_volume(volume.id)
            yield self._change("volume", "removed", volume.id)
        for interface in self._some([item for item in self._ec2.enis.values() if item.instance is None]):
            self._ec2.delete_network_interface(interface.id)
            yield self._change("interface", "removed", interface.id)

    def _remove_network(self) -> Iterator[Change]:
        """An empty subnet, a group that nothing uses with the rules that name it, a VPC without subnets."""
        in_use = {interface.subnet.id for interface in self._ec2.enis.values()}
        in_use |= {instance.subnet_id for instance in self._instances()}
        empty = [item for item in self._ec2.describe_subnets() if item.id not in in_use and not item.default_for_az]
        for subnet in empty[:1]:
            self._ec2.delete_subnet(subnet.id)
            yield self._change("subnet", "removed", subnet.id)
        groups = [group for groups in self._ec2.groups.values() for group in groups.values()]
        used = {group.id for interface in self._ec2.enis.values() for group in interface.group_set}
        used |= {group.id for instance in self._instances() for group in instance.security_groups}
        for group in [item for item in groups if item.id not in used and item.name != "default"][:1]:
            for other in groups:
                rules = [*other.ingress_rules, *other.egress_rules]
                for rule in [item for item in rules if item.source_group.get("GroupId") == group.id]:
                    (other.egress_rules if rule in other.egress_rules else other.ingress_rules).remove(rule)
            self._ec2.groups[group.vpc_id].pop(group.id)
            yield self._change("group", "removed", group.id)
        with_subnets = {subnet.vpc_id for subnet in self._ec2.describe_subnets()}
        for vpc in [item for item in self._ec2.vpcs.values() if item.id not in with_subnets][:1]:
            self._ec2.delete_vpc(vpc.id)
            yield self._change("vpc", "removed", vpc.id)

    def _change_instances(self) -> Iterator[Change]:
        for instance in self._some(self._instances("running", "stopped")):
            instance.instance_type = "m7i.48xlarge"  # a type that the generator never draws
            instance.add_tags({"mutation": str(self._seed)})
            group = self._inventory.add_group(self._ec2.get_vpc(instance.vpc_id), f"moved-{self._seed}-{instance.id}")
            yield self._change("group", "added", group.id)
            instance.security_groups = [group]
            instance.nics[0]._group_set = [group]
            yield self._change("instance", "changed", instance.id)
            yield self._change("interface", "changed", instance.nics[0].id)
        for instance in self._some(self._instances("stopped")):
            self._ec2.start_instances([instance.id])
            yield self._change("instance", "changed", instance.id)
        for volume in self._some(list(self._ec2.volumes.values())):
            volume.size += 1
            yield self._change("volume", "changed", volume.id)

    def _change_rules(self) -> Iterator[Change]:
        groups = [group for groups in self._ec2.groups.values() for group in groups.values() if group.ingress_rules]
        for group in self._some(groups):
            group.ingress_rules.pop(self._random.randrange(len(group.ingress_rules)))
            yield self._change("group", "changed", group.id)

    def _add(self) -> Iterator[Change]:
        crowded = Counter(subnet.vpc_id for subnet in self._ec2.describe_subnets())
        vpc = min((item for item in self._ec2.vpcs.values() if not item.is_default), key=lambda item: crowded[item.id])
        subnet = self._inventory.add_subnet(vpc)
        yield self._change("subnet", "added", subnet.id)
        group = self._inventory.add_group(vpc, f"added-{self._seed}")
        yield self._change("group", "added", group.id)
        for instance in self._inventory.add_instances(subnet, [group, group], 2):
            yield self._change("instance", "added", instance.id)
        yield self._change("volume", "added", self._inventory.add_volume().id)
        yield self._change("interface", "added", self._inventory.add_interface(subnet, [group]).id)
