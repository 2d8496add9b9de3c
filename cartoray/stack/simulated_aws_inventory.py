"""What the simulated AWS holds: a seeded organization, written straight into moto's in-memory backends.

Through the backends and not through boto3, because building a request, signing it and parsing the answer costs
about 5 ms a resource, and a demo has tens of thousands of them. The same `Plan` always gives the same inventory
for the EC2 resources (ids, addresses, times). What moto dates or numbers by itself, such as the age of an IAM user
or of a bucket, differs between two starts.

Importing this module loads moto (about a second): only the server does.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from operator import attrgetter
from random import Random
from typing import Any, cast

from moto.awslambda.models import lambda_backends
from moto.ec2.exceptions import InvalidInstanceIdError
from moto.ec2.models import EC2Backend, ec2_backends
from moto.ec2.models.elastic_network_interfaces import NetworkInterface
from moto.eks import models as eks_models
from moto.elbv2.models import elbv2_backends
from moto.iam.models import iam_backends
from moto.kms import models as kms_models
from moto.moto_api._internal import mock_random
from moto.organizations.models import organizations_backends
from moto.rds.models import rds_backends
from moto.s3.models import get_canned_acl, s3_backends
from moto.sns.models import sns_backends
from moto.sqs.models import sqs_backends

from cartoray.stack.simulated_aws_protocol import MANAGEMENT_ACCOUNT, ROLE_NAME

PARTITION = "aws"
EPOCH = datetime(2026, 1, 5, 8, 0, 0)  # naive: moto compares naive UTC times
SHARED_CIDRS = ("0.0.0.0/0", "10.0.0.0/8", "192.168.0.0/16", "172.16.0.0/12")
INSTANCE_TYPES = ("t3.micro", "t3.large", "m5.xlarge", "m6i.2xlarge", "c6i.4xlarge", "r6g.xlarge")
TEAMS = ("payments", "search", "identity", "data", "platform")
ENVIRONMENTS = ("prod", "staging", "dev")
FOREIGN_ACCOUNT = "999999999999"  # of nobody in the organization
PUBLIC_KEY = (  # imported, because moto would otherwise compute an RSA key for each pair
    b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f simulated"
)


@dataclass(frozen=True)
class Plan:
    """How large the organization is. Equal plans give equal inventories."""

    accounts: tuple[str, ...]
    regions: tuple[str, ...]
    instances_per_region: int
    seed: int


def fill(plan: Plan) -> None:
    """Creates the organization, then every account and region of it, in order."""
    _replace_in_moto()
    _create_organization(plan)
    for account in plan.accounts:
        fill_account(account, plan)
        for region in plan.regions:
            RegionInventory(account, region, f"{plan.seed}/{account}/{region}").fill(plan.instances_per_region)


def _replace_in_moto() -> None:
    """Four of moto's functions, by ones that are faster or repeatable; its answers stay AWS's."""
    # An RSA key for each KMS key, symmetric ones too, 50 ms each: here all of a kind share one.
    kms, ec2, interface = cast(Any, kms_models), cast(Any, EC2Backend), cast(Any, NetworkInterface)
    kms.generate_private_key = lru_cache(kms.generate_private_key)
    # A boto3 session for each role's ARN, 200 ms: here all ARNs are well-formed.
    cast(Any, eks_models).validate_role_arn = _accept
    # Copies every reservation for each look-up of one instance.
    ec2.get_instance = _get_instance
    # A set in the order of memory addresses, to which an interface's instance adds its own groups; in AWS it does not.
    interface.group_set = property(attrgetter("_group_set"))


def _accept(_: str) -> None:
    pass


def _get_instance(backend: Any, instance_id: str) -> Any:
    """The instance of that id; nearly always it is one of the latest."""
    for reservation in reversed(backend.reservations.values()):
        for instance in reservation.instances:
            if instance.id == instance_id:
                return instance
    raise InvalidInstanceIdError(instance_id)


def _create_organization(plan: Plan) -> None:
    mock_random.seed(f"{plan.seed}/organization")
    backend: Any = organizations_backends[MANAGEMENT_ACCOUNT][PARTITION]
    backend.create_organization(region=plan.regions[0], FeatureSet="ALL")
    backend.accounts[0].create_time = EPOCH
    root = backend.list_roots()["Roots"][0]["Id"]
    units = [backend.create_organizational_unit(ParentId=root, Name=name) for name in ENVIRONMENTS]
    unit_ids = [unit["OrganizationalUnit"]["Id"] for unit in units]
    for index, account in enumerate(plan.accounts[1:]):
        backend.create_account(AccountName=f"team-{index + 1:03}", Email=f"team-{index + 1:03}@simulated.example")
        member = backend.accounts[-1]
        del organizations_backends.master_accounts[member.id]  # moto draws the id itself, and made a role there
        del iam_backends[member.id]
        member.id, member.create_time, member.parent_id = account, EPOCH, unit_ids[index % len(unit_ids)]
        organizations_backends.master_accounts[account] = (MANAGEMENT_ACCOUNT, PARTITION)


def fill_account(account: str, plan: Plan) -> None:
    """The account's global resources: IAM and S3."""
    mock_random.seed(f"{plan.seed}/{account}")
    iam: Any = iam_backends[account][PARTITION]
    document = _policy(["ec2:Describe*", "s3:List*"], "*")
    _create_role(iam, ROLE_NAME, {"AWS": f"arn:aws:iam::{MANAGEMENT_ACCOUNT}:root"})
    _create_role(iam, "node", {"Service": "ec2.amazonaws.com"})
    iam.create_instance_profile("node", "/", ["node"])
    read = iam.create_policy("Reads the inventory", "/", document, "inventory-read", [])
    iam.attach_role_policy(read.arn, ROLE_NAME)
    for index in range(2 + plan.instances_per_region // 20):
        _create_role(iam, f"service-{index}", {"Service": "lambda.amazonaws.com"})
        iam.put_role_policy(f"service-{index}", "inline", _policy(["s3:GetObject"], f"arn:aws:s3:::data-{index}/*"))
        iam.attach_role_policy(read.arn, f"service-{index}")
    for team in TEAMS[:2]:
        iam.create_group(team)
        iam.attach_group_policy(read.arn, team)
    for index in range(2 + plan.instances_per_region // 20):
        name = f"user-{index}"
        iam.create_user(plan.regions[0], name, "/", [{"Key": "team", "Value": TEAMS[index % len(TEAMS)]}])
        iam.add_user_to_group(TEAMS[index % 2], name)
        iam.create_access_key(name)
    _add_access(iam, account, read.arn)
    if account == plan.accounts[-1]:  # moto gives all certificates the same id
        iam.upload_server_certificate("front", "certificate", "key")
    for index in range(2 + plan.instances_per_region // 20):
        create_bucket(account, plan.regions[index % len(plan.regions)], f"data-{index}-{account}")
    _configure_bucket(account, plan.regions[1 % len(plan.regions)], f"data-1-{account}")


def _add_access(iam: Any, account: str, managed: str) -> None:
    """What an account has one of: own policies of a user and of a group, an MFA device, others that roles trust."""
    user = f"arn:aws:iam::{account}:user/user-1"
    iam.put_user_policy("user-1", "assume", _policy(["sts:AssumeRole"], f"arn:aws:iam::{account}:role/*"))
    iam.attach_user_policy(managed, "user-1")
    iam.enable_mfa_device("user-1", f"arn:aws:iam::{account}:mfa/user-1", "123456", "654321")
    iam.put_group_policy(TEAMS[0], "inline", _policy(["s3:ListAllMyBuckets"], "*"))
    provider = iam.create_saml_provider("staff", "metadata")
    _create_role(iam, "staff", {"Federated": provider.arn})
    _create_role(iam, "operator", {"AWS": [user, f"arn:aws:iam::{FOREIGN_ACCOUNT}:root"]})


def _configure_bucket(account: str, region: str, name: str) -> None:
    """A bucket with all that a bucket may have, open to everybody."""
    backend: Any = s3_backends[account][PARTITION]
    topic = sns_backends[account][region].create_topic("uploads")
    key = kms_models.kms_backends[account][region].create_key(
        None, "ENCRYPT_DECRYPT", "SYMMETRIC_DEFAULT", "buckets", []
    )
    read = {"Sid": "Read", "Effect": "Allow", "Principal": {"AWS": "*"}, "Action": ["s3:GetObject"]}
    log = {"Effect": "Allow", "Principal": {"Service": "logging.s3.amazonaws.com"}, "Action": "s3:PutObject"}
    statements = [{**statement, "Resource": f"arn:aws:s3:::{name}/*"} for statement in (read, log)]
    backend.put_bucket_policy(name, json.dumps({"Version": "2012-10-17", "Statement": statements}).encode())
    backend.put_bucket_acl(name, get_canned_acl("public-read-write"))
    default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key.arn}
    backend.put_bucket_encryption(
        name, {"Rule": {"ApplyServerSideEncryptionByDefault": default, "BucketKeyEnabled": "true"}}
    )
    backend.put_bucket_versioning(name, "Enabled")
    backend.put_public_access_block(name, {"BlockPublicAcls": "true"})
    backend.put_bucket_ownership_controls(name, "ObjectWriter")
    backend.put_bucket_logging(name, {"TargetBucket": name, "TargetPrefix": "log/"})
    backend.put_bucket_notification_configuration(
        name, {"TopicConfiguration": [{"Topic": topic.arn, "Event": ["s3:ObjectCreated:*"]}]}
    )


def create_bucket(account: str, region: str, name: str) -> None:
    """One S3 bucket; S3 has one backend for all regions."""
    backend: Any = s3_backends[account][PARTITION]
    backend.create_bucket(name, region)
    backend.put_bucket_tagging(name, {"name": name, "account": account})


def _create_role(iam: Any, name: str, principal: Mapping[str, str | list[str]]) -> None:
    trust = {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}
    iam.create_role(
        name,
        json.dumps({"Version": "2012-10-17", "Statement": [trust]}),
        path="/",
        permissions_boundary=None,
        description=f"{name} of the simulated organization",
        tags=[],
        max_session_duration="3600",
    )


def _policy(actions: Sequence[str], resource: str) -> str:
    statement = {"Effect": "Allow", "Action": list(actions), "Resource": resource}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


class RegionInventory:
    """One account's region: draws from `seed` what to make, and makes it in moto's backends.

    Each `add_…` returns moto's own object. The caller must be the only thread that touches moto, since the ids come
    from one generator that moto shares.
    """

    def __init__(self, account: str, region: str, seed: str) -> None:
        mock_random.seed(seed)
        self.account = account
        self.region = region
        self.random = Random(seed)
        self.ec2: Any = ec2_backends[account][region]
        self.zones: list[str] = [zone.name for zone in self.ec2.describe_availability_zones()]

    def fill(self, instances: int) -> None:
        """VPCs first, then what lives in them; `instances` is the unit that everything else scales with."""
        self.ec2.import_key_pair("operations", PUBLIC_KEY, {"team": "platform"})
        vpcs = [self.add_vpc(number) for number in range(2 + min(instances // 100, 12))]
        peering = self.ec2.create_vpc_peering_connection(vpcs[0], vpcs[1])
        self.ec2.accept_vpc_peering_connection(peering.id)
        groups: dict[str, list[Any]] = {}
        subnets: list[Any] = []
        for vpc in vpcs:
            subnets += [self.add_subnet(vpc) for _ in range(4)]
            groups[vpc.id] = self._groups_of(vpc, 3 + instances // (10 * len(vpcs)))
        launched: list[Any] = []
        while len(launched) < instances:
            subnet = subnets[len(launched) % (len(subnets) - 1)]  # the last one stays empty: a mutation deletes it
            count = min(self.random.choice((1, 1, 2, 3)), instances - len(launched))
            launched += self.add_instances(subnet, groups[subnet.vpc_id], count)
        self._end_some(launched)
        for number in range(2 + instances // 5):
            subnet = subnets[number % (len(subnets) - 1)]
            self.add_interface(subnet, groups[subnet.vpc_id])
            self.add_volume()
        self._add_unused(vpcs[0], groups[vpcs[0].id][0])
        self._fill_services(instances, launched, subnets, groups)

    def _add_unused(self, vpc: Any, group: Any) -> None:
        """A group that only a rule of another group names, and a VPC without subnets: mutations delete them."""
        retired = self.add_group(vpc, "retired")
        self.ec2.authorize_security_group_ingress(
            group.id, "tcp", "9100", "9100", [], source_groups=[{"GroupId": retired.id}]
        )
        self.ec2.create_vpc("10.250.0.0/16", tags=[{"Key": "Name", "Value": "empty"}])

    def when(self) -> datetime:
        """A time of the past that the seed decides."""
        return EPOCH + timedelta(seconds=self.random.randrange(200 * 86400))

    def tags(self, kind: str) -> dict[str, str]:
        """Tags as a company has them: a name, a team, an environment."""
        team, environment = self.random.choice(TEAMS), self.random.choice(ENVIRONMENTS)
        return {"Name": f"{team}-{kind}-{self.random.randrange(1000)}", "team": team, "environment": environment}

    def add_vpc(self, number: int) -> Any:
        """A VPC with a second CIDR association; the first of a region also has an IPv6 block."""
        vpc = self.ec2.create_vpc(
            f"10.{number}.0.0/16",
            amazon_provided_ipv6_cidr_block=number == 0,
            tags=[{"Key": key, "Value": value} for key, value in self.tags("vpc").items()],
        )
        self.ec2.associate_vpc_cidr_block(vpc.id, f"100.{64 + number}.0.0/16", amazon_provided_ipv6_cidr_block=False)
        vpc.enable_dns_hostnames = number % 2 == 0
        return vpc

    def add_subnet(self, vpc: Any) -> Any:
        """The next free /20 of the VPC, which has room for 16, with a /64 where the VPC has IPv6."""
        taken = {subnet.cidr_block for subnet in self.ec2.describe_subnets(filters={"vpc-id": vpc.id})}
        first, second = vpc.cidr_block.split(".")[:2]
        number = next(index for index in range(16) if f"{first}.{second}.{index * 16}.0/20" not in taken)
        blocks = vpc.get_cidr_block_association_set(ipv6=True)
        ipv6 = f"{blocks[0]['cidr_block'].removesuffix('00::/56')}{number:02x}::/64" if blocks else None
        return self.ec2.create_subnet(
            vpc.id,
            f"{first}.{second}.{number * 16}.0/20",
            ipv6_cidr_block=ipv6,
            availability_zone=self.zones[number % len(self.zones)],
            tags={"subnet": self.tags("subnet")},
        )

    def _groups_of(self, vpc: Any, count: int) -> list[Any]:
        groups = [self.add_group(vpc, f"{TEAMS[number % len(TEAMS)]}-{number}") for number in range(count)]
        for group, source in pairwise(groups):  # each lets in its successor
            self.ec2.authorize_security_group_ingress(
                group.id, "tcp", "5432", "5432", [], source_groups=[{"GroupId": source.id}]
            )
        return groups

    def add_group(self, vpc: Any, name: str) -> Any:
        """A security group with ingress and egress rules, some over ranges that all accounts share."""
        group = self.ec2.create_security_group(name, f"{name} of {vpc.id}", vpc.id, tags=self.tags("group"))
        for port in self.random.sample((22, 80, 443, 8080, 9092), k=2):
            ranges = [{"CidrIp": cidr} for cidr in self.random.sample(SHARED_CIDRS, k=2)]
            ranges.append({"CidrIp": f"203.0.113.{self.random.randrange(256)}/32", "Description": "office"})
            self.ec2.authorize_security_group_ingress(group.id, "tcp", str(port), str(port), ranges)
        self.ec2.authorize_security_group_ingress(group.id, "icmp", "-1", "-1", [{"CidrIpv6": "::/0"}])
        cidr = f"10.{self.random.randrange(256)}.0.0/16"
        self.ec2.authorize_security_group_egress(group.id, "udp", "53", "53", [{"CidrIp": cidr}])
        return group

    def add_instances(self, subnet: Any, groups: Sequence[Any], count: int) -> list[Any]:
        """One reservation of `count` instances, with volumes, and what some instances have besides."""
        tags = self.tags("node")
        if self.random.random() < 0.3:
            tags[self.random.choice(("eks:cluster-name", "alpha.eksctl.io/cluster-name"))] = f"{tags['team']}-cluster"
        disks = [("/dev/xvda", 20, True)] + [("/dev/sdf", 100, False)] * (self.random.random() < 0.4)
        has_ipv6 = bool(subnet.ipv6_cidr_block_associations)
        reservation = self.ec2.run_instances(
            f"ami-{self.random.choice(('0a1b2c3d4e5f60718', '0123456789abcdef0'))}",
            count,
            None,
            [],
            security_group_ids=[group.id for group in self.random.sample(list(groups), k=self.random.choice((1, 2)))],
            instance_type=self.random.choice(INSTANCE_TYPES),
            is_instance_type_default=True,  # spares moto a search through 700 offerings for each instance
            subnet_id=subnet.id,
            nics=[{"DeviceIndex": 0, "DeleteOnTermination": True}],
            region_name=self.region,
            key_name="operations" if self.random.random() < 0.7 else None,
            associate_public_ip=self.random.random() < 0.2,
            ipv6_address_count=1 if has_ipv6 and count == 1 else None,
            monitoring_state=self.random.choice(("enabled", "disabled")),
            ebs_optimized=self.random.random() < 0.5,
            lifecycle="spot" if self.random.random() < 0.1 else None,
            hibernation_options={"Configured": True} if self.random.random() < 0.1 else None,
            metadata_options={"HttpTokens": self.random.choice(("required", "optional"))},
            block_device_mappings=[
                {"DeviceName": name, "Ebs": {"VolumeSize": size, "VolumeType": "gp3", "DeleteOnTermination": root}}
                for name, size, root in disks
            ],
            tags={"instance": tags, "volume": {"team": tags["team"]}},
        )
        for instance in reservation.instances:
            self._finish(instance, subnet, groups)
        return list(reservation.instances)

    def _finish(self, instance: Any, subnet: Any, groups: Sequence[Any]) -> None:
        instance.launch_time = self.when()
        for block in instance.block_device_mapping.values():
            block.attach_time = instance.launch_time
            volume = self.ec2.volumes[block.volume_id]
            volume.create_time = volume.attachment.attach_time = instance.launch_time
        if self.random.random() < 0.1:
            instance.platform = "windows"
        if self.random.random() < 0.5:
            self.ec2.associate_iam_instance_profile(instance.id, iam_instance_profile_name="node")
        if self.random.random() < 0.2:
            interface = self.add_interface(subnet, groups)
            self.ec2.attach_network_interface(interface.id, instance.id, 1)
        for interface in instance.nics.values():
            interface.attach_time = instance.launch_time

    def _end_some(self, instances: Sequence[Any]) -> None:
        for number, instance in enumerate(instances):
            if number % 9 == 4:
                self.ec2.stop_instances([instance.id])
            if number % 12 == 7:
                self.ec2.terminate_instances([instance.id])
            if number % 9 == 4 or number % 12 == 7:  # moto writes the hour of the day into the reason
                instance._reason = f"User initiated ({instance.launch_time:%Y-%m-%d %H:%M:%S} GMT)"

    def add_interface(self, subnet: Any, groups: Sequence[Any]) -> Any:
        """A network interface with a second private address, attached to nothing."""
        addresses = [subnet.get_available_subnet_ip(self) for _ in range(2)]
        return self.ec2.create_network_interface(
            subnet,
            addresses[0],
            [
                {"Primary": True, "PrivateIpAddress": addresses[0]},
                {"Primary": False, "PrivateIpAddress": addresses[1]},
            ],
            group_ids=[self.random.choice(list(groups)).id],
            description="endpoint of the service mesh",
            tags=self.tags("interface"),
        )

    def add_volume(self) -> Any:
        """A volume that no instance uses; one in three is encrypted."""
        volume = self.ec2.create_volume(
            self.random.choice((8, 50, 500)),
            self.random.choice(self.zones),
            encrypted=self.random.random() < 0.33,
            volume_type=self.random.choice(("gp2", "gp3")),
        )
        volume.create_time = self.when()
        volume.add_tags(self.tags("volume"))
        return volume

    def _fill_services(
        self, instances: int, launched: Sequence[Any], subnets: Sequence[Any], groups: dict[str, list[Any]]
    ) -> None:
        kms: Any = kms_models.kms_backends[self.account][self.region]
        key = kms.create_key(None, "ENCRYPT_DECRYPT", "SYMMETRIC_DEFAULT", "application data", [])
        kms.create_alias(key.id, "alias/application")
        functions: Any = lambda_backends[self.account][self.region]
        databases: Any = rds_backends[self.account][self.region]
        for number in range(1 + instances // 20):
            self._add_load_balancer(number, launched, subnets, groups)
            functions.create_function(
                {
                    "FunctionName": f"worker-{number}",
                    "Runtime": "python3.12",
                    "Handler": "worker.run",
                    "Role": f"arn:aws:iam::{self.account}:role/service-0",
                    "Code": {"ZipFile": base64.b64encode(b"simulated").decode()},
                    "Tags": self.tags("worker"),
                }
            )
            databases.create_db_instance(
                {
                    "db_instance_identifier": f"store-{number}",
                    "db_instance_class": "db.t3.medium",
                    "engine": "postgres",
                    "engine_version": "16.3",
                    "allocated_storage": 100,
                    "master_username": "operations",
                    "master_user_password": "not-a-secret",
                    "vpc_security_group_ids": [groups[subnets[0].vpc_id][0].id],
                    "tags": [{"Key": key, "Value": value} for key, value in self.tags("store").items()],
                }
            )
        service = f"arn:aws:iam::{self.account}:role/service-0"
        kms.create_grant(key.id, service, ["Decrypt"], "reads", {}, service)
        self._add_cluster(subnets)
        self._add_database_cluster(subnets)
        exporter = self._add_functions()
        self._add_other_targets(subnets, exporter)

    def _add_load_balancer(
        self, number: int, launched: Sequence[Any], subnets: Sequence[Any], groups: dict[str, list[Any]]
    ) -> None:
        balancers: Any = elbv2_backends[self.account][self.region]
        vpc_id = subnets[0].vpc_id
        balancer = balancers.create_load_balancer(
            f"front-{self.account[-3:]}-{number}",  # its DNS name is unique in AWS
            [groups[vpc_id][0].id],
            [subnet.id for subnet in subnets[:2]],
            scheme=self.random.choice(("internet-facing", "internal")),
            loadbalancer_type="application",
            tags=[],
        )
        balancer.created_time = self.when()
        target = balancers.create_target_group(
            f"front-{self.account[-3:]}-{number}", protocol="HTTP", port="8080", vpc_id=vpc_id, target_type="instance"
        )
        running = [item for item in launched if item.vpc_id == vpc_id and item.state == "running"][:3]
        if running:
            balancers.register_targets(target.arn, [{"Id": item.id, "Port": "8080"} for item in running])
        forward = {"Type": "forward", "TargetGroupArn": target.arn}
        balancers.create_listener(balancer.arn, "HTTP", "80", None, None, [forward], tags=[])

    def _add_cluster(self, subnets: Sequence[Any]) -> None:
        """EKS; without access entries, which moto does not know."""
        cluster = eks_models.eks_backends[self.account][self.region].create_cluster(
            "workloads",
            f"arn:aws:iam::{self.account}:role/service-0",
            {"subnetIds": [subnet.id for subnet in subnets[:2]], "endpointPublicAccess": True},
            logging={"clusterLogging": [{"types": ["api", "audit"], "enabled": True}]},
            tags=self.tags("workloads"),
        )
        cluster.created_at = self.when()
        cast(Any, cluster).access_config = {"authenticationMode": "CONFIG_MAP"}

    def _add_database_cluster(self, subnets: Sequence[Any]) -> None:
        """With a member, a snapshot that everybody may restore, and who is told of its events.

        The names are unique in all accounts and regions, because Cartography relates databases by them.
        """
        databases: Any = rds_backends[self.account][self.region]
        name = f"ledger-{self.account[-3:]}-{self.region}"
        user = {"master_username": "operations", "master_user_password": "not-a-secret"}
        databases.create_subnet_group(name, "of the ledger", subnets[:2], [])
        cluster = databases.create_db_cluster(
            {"db_cluster_identifier": name, "engine": "aurora-postgresql", "database_name": "ledger"} | user
        )
        cluster.status = "available"  # moto would have the first who asks wait for it
        databases.create_db_instance(
            {
                "db_instance_identifier": f"{name}-1",
                "db_cluster_identifier": name,
                "db_instance_class": "db.r6g.large",
                "engine": "aurora-postgresql",
                "db_subnet_group_name": name,
            }
        )
        databases.create_db_snapshot(f"{name}-1", f"{name}-shared")
        databases.modify_db_snapshot_attribute(f"{name}-shared", "restore", ["all"])
        databases.create_event_subscription(
            {
                "subscription_name": f"{name}-failures",
                "sns_topic_arn": f"arn:aws:sns:{self.region}:{self.account}:operations",
                "source_type": "db-cluster",
                "source_ids": [name],
                "event_categories": ["failure"],
                "enabled": True,
            }
        )

    def _add_functions(self) -> Any:
        """Two more Lambda functions: one from an image, and one, returned, with all that may belong to a function."""
        functions: Any = lambda_backends[self.account][self.region]
        role = f"arn:aws:iam::{self.account}:role/service-0"
        image = f"{self.account}.dkr.ecr.{self.region}.amazonaws.com/thumbnails@sha256:{'0a' * 32}"
        functions.create_function(
            {"FunctionName": "thumbnails", "PackageType": "Image", "Role": role, "Code": {"ImageUri": image}}
        )
        code = {"ZipFile": base64.b64encode(b"simulated").decode()}
        layer = functions.publish_layer_version({"LayerName": "tracing", "Content": code})
        exporter = functions.create_function(
            {
                "FunctionName": "exporter",
                "Runtime": "python3.12",
                "Handler": "exporter.run",
                "Role": role,
                "Code": code,
                "Layers": [layer.arn],
            }
        )
        functions.create_alias("live", "exporter", "$LATEST", "what callers use", "")
        everybody = {"Action": "lambda:InvokeFunction", "Principal": "*", "StatementId": "everybody"}
        functions.add_permission("exporter", None, json.dumps(everybody))
        queue = sqs_backends[self.account][self.region].create_queue("exports", {})
        queue.created_timestamp = int(queue.created_timestamp)  # AWS's are whole seconds, and Cartography relies on it
        queue.last_modified_timestamp = int(queue.last_modified_timestamp)
        functions.create_event_source_mapping({"FunctionName": "exporter", "EventSourceArn": queue.queue_arn})
        return exporter

    def _add_other_targets(self, subnets: Sequence[Any], function: Any) -> None:
        """A network load balancer before the first one, which also leads to a function."""
        balancers: Any = elbv2_backends[self.account][self.region]
        front = next(iter(balancers.load_balancers.values()))
        vpc_id = subnets[0].vpc_id
        called = balancers.create_target_group(
            f"calls-{self.account[-3:]}", protocol=None, port=None, vpc_id=None, target_type="lambda"
        )
        balancers.register_targets(called.arn, [{"Id": function.function_arn}])
        forward = {"Type": "forward", "TargetGroupArn": called.arn}
        balancers.create_listener(front.arn, "HTTP", "8081", None, None, [forward], tags=[])
        edge = balancers.create_load_balancer(
            f"edge-{self.account[-3:]}-{self.region}", [], [subnets[0].id], loadbalancer_type="network", tags=[]
        )
        edge.created_time = self.when()
        passed = balancers.create_target_group(
            f"edge-{self.account[-3:]}", protocol="TCP", port="80", vpc_id=vpc_id, target_type="alb"
        )
        balancers.register_targets(passed.arn, [{"Id": front.arn, "Port": "80"}])
        forward = {"Type": "forward", "TargetGroupArn": passed.arn}
        balancers.create_listener(edge.arn, "TCP", "80", None, None, [forward], tags=[])
