"""The simulated AWS as stock boto3 sees it, over HTTP."""

import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import psutil
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ReadTimeoutError

from cartoray.stack.simulated_aws import SimulatedAws, start_simulated_aws

ONCE = Config(retries={"max_attempts": 0}, read_timeout=2)
CALLS = {
    "describe_instances": "Reservations",
    "describe_network_interfaces": "NetworkInterfaces",
    "describe_security_groups": "SecurityGroups",
    "describe_subnets": "Subnets",
    "describe_volumes": "Volumes",
    "describe_vpcs": "Vpcs",
}


@pytest.fixture(scope="module")
def started() -> Iterator[SimulatedAws]:
    with start_simulated_aws(accounts=3, size=12) as running:
        yield running


@pytest.fixture
def aws(started: SimulatedAws) -> Iterator[SimulatedAws]:
    started.forget_calls()
    yield started
    quiet = {"latency_ms": 0, "throttle_rate": 0, "error_rate": 0, "bucket_capacity": 0, "session_s": 3600}
    started.faults(**quiet, deny=[], opt_in_required=[], hang=[])


SESSION = boto3.Session("testing", "testing", region_name="us-east-1")  # one: the first client of each costs 100 ms


def client(aws: SimulatedAws, service: str, account: str = "", region: str = "", config: Config = ONCE) -> Any:
    keys = {}
    if account:
        given = client(aws, "sts").assume_role(RoleArn=aws.role_arn(account), RoleSessionName="test")["Credentials"]
        keys = {
            "aws_access_key_id": given["AccessKeyId"],
            "aws_secret_access_key": given["SecretAccessKey"],
            "aws_session_token": given["SessionToken"],
        }
    return SESSION.client(
        service, region_name=region or aws.regions[0], endpoint_url=aws.endpoint_url, config=config, **keys
    )


def pages(ec2: Any, call: str, **page: int) -> list[dict[str, Any]]:
    found = ec2.get_paginator(call).paginate(PaginationConfig=page)
    return [item for answer in found for item in answer[CALLS[call]]]


def instances(ec2: Any) -> dict[str, dict[str, Any]]:
    return {one["InstanceId"]: one for item in pages(ec2, "describe_instances") for one in item["Instances"]}


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return error.value.response["Error"]["Code"]


def test_each_account_and_region_has_its_own_inventory(aws: SimulatedAws) -> None:
    seen: Counter[str] = Counter()
    for account in aws.accounts:
        for region in aws.regions:
            ec2 = client(aws, "ec2", account, region)
            assert len(instances(ec2)) == 12
            for call in CALLS:
                found = pages(ec2, call)
                assert found
                assert {item["OwnerId"] for item in found if "OwnerId" in item} <= {account}
                keys = ("NetworkInterfaceId", "GroupId", "SubnetId", "VolumeId", "VpcId", "ReservationId")
                seen.update(next(item[key] for key in keys if key in item) for item in found)
    assert set(seen.values()) == {1}


def test_the_inventory_has_what_the_graph_is_made_of(aws: SimulatedAws) -> None:
    ec2 = client(aws, "ec2", aws.accounts[1])
    found = instances(ec2).values()
    assert {item["State"]["Name"] for item in found} == {"running", "stopped", "terminated"}
    assert any(len(item["SecurityGroups"]) > 1 for item in found)
    assert any(len(item["BlockDeviceMappings"]) > 1 for item in found)
    assert any("IamInstanceProfile" in item for item in found)
    assert any(item.get("KeyName") == "operations" for item in found)
    vpcs = pages(ec2, "describe_vpcs")
    assert any(len(item["CidrBlockAssociationSet"]) > 1 for item in vpcs)
    assert any(item.get("Ipv6CidrBlockAssociationSet") for item in vpcs)
    groups = pages(ec2, "describe_security_groups")
    assert any(rule["UserIdGroupPairs"] for item in groups for rule in item["IpPermissions"])
    ranges = {each["CidrIp"] for item in groups for rule in item["IpPermissions"] for each in rule["IpRanges"]}
    assert {"0.0.0.0/0", "10.0.0.0/8"} <= ranges
    assert any(not item["Attachments"] for item in pages(ec2, "describe_volumes"))
    assert any(item["Status"] == "available" for item in pages(ec2, "describe_network_interfaces"))
    assert ec2.describe_vpc_peering_connections()["VpcPeeringConnections"][0]["Status"]["Code"] == "active"


@pytest.mark.parametrize("call", CALLS)
def test_pages_hold_the_same_as_one_answer(aws: SimulatedAws, call: str) -> None:
    ec2 = client(aws, "ec2", aws.accounts[1])
    assert pages(ec2, call, PageSize=5) == pages(ec2, call)


@pytest.mark.parametrize(
    ("service", "call", "key"),
    [
        ("iam", "list_users", "Users"),
        ("iam", "list_groups", "Groups"),
        ("iam", "list_roles", "Roles"),
        ("iam", "list_instance_profiles", "InstanceProfiles"),
        ("elbv2", "describe_load_balancers", "LoadBalancers"),
        ("elbv2", "describe_target_groups", "TargetGroups"),
        ("lambda", "list_functions", "Functions"),
        ("rds", "describe_db_instances", "DBInstances"),
        ("kms", "list_keys", "Keys"),
        ("s3", "list_buckets", "Buckets"),
    ],
)
def test_other_services_answer_for_the_account(aws: SimulatedAws, service: str, call: str, key: str) -> None:
    mine = getattr(client(aws, service, aws.accounts[1]), call)()[key]
    theirs = getattr(client(aws, service, aws.accounts[2]), call)()[key]
    assert mine
    assert theirs != mine


def test_the_organization_lists_all_accounts(aws: SimulatedAws) -> None:
    organizations = client(aws, "organizations")
    listed = [
        item["Id"] for page in organizations.get_paginator("list_accounts").paginate() for item in page["Accounts"]
    ]
    assert tuple(sorted(listed)) == tuple(sorted(aws.accounts))
    assert organizations.describe_organization()["Organization"]["MasterAccountId"] == aws.management_account
    assert len(organizations.list_roots()["Roots"]) == 1


def test_an_assumed_role_is_that_account(aws: SimulatedAws) -> None:
    assert client(aws, "sts").get_caller_identity()["Account"] == aws.management_account
    for account in aws.accounts:
        identity = client(aws, "sts", account).get_caller_identity()
        assert identity["Account"] == account
        assert identity["Arn"] == f"arn:aws:sts::{account}:assumed-role/CartographyReadOnly/test"


@pytest.mark.parametrize(
    "role",
    [
        "arn:aws:iam::999999999999:role/CartographyReadOnly",
        "arn:aws:iam::123456789012:role/service-0",
        "nonsense-arn-of-a-role",
    ],
)
def test_other_roles_are_refused(aws: SimulatedAws, role: str) -> None:
    with pytest.raises(ClientError) as error:
        client(aws, "sts").assume_role(RoleArn=role, RoleSessionName="test")
    assert code(error) == "AccessDenied"


def test_a_members_role_may_not_assume_another(aws: SimulatedAws) -> None:
    with pytest.raises(ClientError) as error:
        client(aws, "sts", aws.accounts[1]).assume_role(RoleArn=aws.role_arn(aws.accounts[2]), RoleSessionName="test")
    assert code(error) == "AccessDenied"


def test_expired_credentials_are_refused(aws: SimulatedAws) -> None:
    client(aws, "ec2", aws.accounts[1]).describe_vpcs()
    aws.faults(session_s=1)
    ec2 = client(aws, "ec2", aws.accounts[1])
    aws.faults(latency_ms=2100)
    client(aws, "sts", config=Config(read_timeout=5)).get_caller_identity()
    aws.faults(latency_ms=0)
    with pytest.raises(ClientError) as error:
        ec2.describe_vpcs()
    assert code(error) == "RequestExpired"


def test_role_sessions_can_be_ended_before_their_time(aws: SimulatedAws) -> None:
    ec2 = client(aws, "ec2", aws.accounts[1])
    ec2.describe_vpcs()
    assert aws.expire_sessions() >= 1
    with pytest.raises(ClientError) as error:
        ec2.describe_vpcs()
    assert code(error) == "RequestExpired"
    client(aws, "ec2", aws.accounts[1]).describe_vpcs()


def test_a_denied_call_is_denied_there_and_nowhere_else(aws: SimulatedAws) -> None:
    denied, region = aws.accounts[1], aws.regions[1]
    aws.faults(deny=[{"account": denied, "region": region, "action": "ec2:DescribeVolumes"}])
    with pytest.raises(ClientError) as error:
        client(aws, "ec2", denied, region).describe_volumes()
    assert code(error) == "UnauthorizedOperation"
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    assert client(aws, "ec2", denied, region).describe_vpcs()["Vpcs"]
    assert client(aws, "ec2", denied, aws.regions[0]).describe_volumes()["Volumes"]
    assert client(aws, "ec2", aws.accounts[2], region).describe_volumes()["Volumes"]


def test_a_region_that_is_not_opted_in_is_not_listed_and_refuses(aws: SimulatedAws) -> None:
    account, region = aws.accounts[1], aws.regions[1]
    aws.faults(opt_in_required=[{"account": account, "region": region}])
    with pytest.raises(ClientError) as error:
        client(aws, "ec2", account, region).describe_vpcs()
    assert code(error) == "AuthFailure"
    ec2 = client(aws, "ec2", account)
    assert [item["RegionName"] for item in ec2.describe_regions()["Regions"]] == [aws.regions[0]]
    every = {item["RegionName"]: item["OptInStatus"] for item in ec2.describe_regions(AllRegions=True)["Regions"]}
    assert every == {aws.regions[0]: "opt-in-not-required", region: "not-opted-in"}
    other = client(aws, "ec2", aws.accounts[2])
    assert len(other.describe_regions()["Regions"]) == 2


def test_throttling_is_retried_by_botocore_and_ends(aws: SimulatedAws) -> None:
    aws.faults(throttle_rate=1)
    with pytest.raises(ClientError) as error:
        client(aws, "ec2").describe_vpcs()
    assert code(error) == "RequestLimitExceeded"
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    aws.faults(throttle_rate=0, bucket_capacity=1, bucket_refill_per_s=5)
    patient = client(aws, "ec2", config=Config(retries={"mode": "standard", "max_attempts": 10}))
    for _ in range(3):
        assert patient.describe_vpcs()["Vpcs"]
    assert any(entry["outcome"] == "throttled" for entry in aws.calls()["calls"])


def test_errors_come_at_the_rate_that_was_asked_for(aws: SimulatedAws) -> None:
    aws.faults(error_rate=1)
    with pytest.raises(ClientError) as error:
        client(aws, "organizations").list_accounts()
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500


@pytest.mark.parametrize(
    ("service", "call", "parameters"),
    [
        ("ec2", "describe_verified_access_groups", {}),
        ("bedrock", "list_foundation_models", {}),
        ("iam", "generate_service_last_accessed_details", {"Arn": "arn:aws:iam::123456789012:role/node"}),
    ],
)
def test_what_moto_lacks_is_an_aws_error(
    aws: SimulatedAws, service: str, call: str, parameters: dict[str, Any]
) -> None:
    with pytest.raises(ClientError) as error:
        getattr(client(aws, service), call)(**parameters)
    assert code(error) == "UnknownOperationException"
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_latency_keeps_no_other_call_waiting(aws: SimulatedAws) -> None:
    clients = [client(aws, "ec2") for _ in range(20)]
    aws.faults(latency_ms=500)
    aws.forget_calls()
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda ec2: ec2.describe_vpcs(), clients))
    calls = aws.calls()
    assert calls["in_flight_max"] >= 10
    assert calls["total"] == 20


def test_a_hanging_call_hangs_until_the_faults_change(aws: SimulatedAws) -> None:
    aws.faults(hang=[{"action": "ec2:DescribeVolumes"}])
    ec2 = client(aws, "ec2", config=Config(retries={"max_attempts": 0}, read_timeout=1))
    with pytest.raises(ReadTimeoutError):
        ec2.describe_volumes()
    assert ec2.describe_vpcs()["Vpcs"]
    aws.faults(hang=[])
    assert ec2.describe_volumes()["Volumes"]


def test_calls_are_counted_by_account_region_and_action(aws: SimulatedAws) -> None:
    account, region = aws.accounts[2], aws.regions[1]
    client(aws, "ec2", account, region).describe_vpcs()
    client(aws, "lambda", account, region).list_functions()
    counted = {(entry["account"], entry["region"], entry["action"]): entry["count"] for entry in aws.calls()["calls"]}
    assert counted[account, region, "ec2:DescribeVpcs"] == 1
    assert counted[account, region, "lambda:ListFunctions"] == 1
    assert counted[aws.management_account, aws.regions[0], "sts:AssumeRole"] == 2


def test_a_write_is_seen_by_the_next_read(aws: SimulatedAws) -> None:
    ec2 = client(aws, "ec2", aws.accounts[2])
    before = {item["VolumeId"] for item in pages(ec2, "describe_volumes")}
    made = ec2.create_volume(AvailabilityZone=f"{aws.regions[0]}a", Size=8)["VolumeId"]
    assert {item["VolumeId"] for item in pages(ec2, "describe_volumes")} == before | {made}
    ec2.delete_volume(VolumeId=made)
    assert {item["VolumeId"] for item in pages(ec2, "describe_volumes")} == before


def test_a_mistyped_fault_is_refused_and_changes_nothing(aws: SimulatedAws) -> None:
    before = aws.faults()
    with pytest.raises(urllib.error.HTTPError, match="400"):
        aws.faults(latency=100)
    assert aws.faults() == before


def snapshot(aws: SimulatedAws) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """By account and call, in the first region."""
    clients = {account: client(aws, "ec2", account) for account in aws.accounts}
    return {(account, call): pages(ec2, call) for account, ec2 in clients.items() for call in CALLS}


def described(found: dict[tuple[str, str], list[dict[str, Any]]], account: str) -> dict[str, dict[str, Any]]:
    """Each resource of the account by its id."""
    items = [item for (owner, _), answer in found.items() if owner == account for item in answer]
    items += [one for item in items for one in item.get("Instances", ())]
    keys = ("InstanceId", "NetworkInterfaceId", "GroupId", "SubnetId", "VolumeId", "VpcId", "ReservationId")
    return {next(item[key] for key in keys if key in item): item for item in items}


def test_a_seed_decides_inventory_and_mutation() -> None:
    size = {"accounts": 2, "regions": ("eu-west-1",), "size": 12}
    with start_simulated_aws(seed=3, **size) as first, start_simulated_aws(seed=3, **size) as second:
        before = snapshot(first)
        assert snapshot(second) == before
        first.warm()  # a remembered answer must not outlive a mutation
        changes = first.mutate(2)
        assert second.mutate(2) == changes
        after = snapshot(first)
        assert snapshot(second) == after
        assert second.mutate(3) != changes
        with pytest.raises(urllib.error.HTTPError, match="409"):
            second.mutate(3)
    account = "100000300001"
    was, now = described(before, account), described(after, account)
    mine = [change for change in changes if change["account"] == account]
    for change in (change for change in mine if change["region"]):
        there = (change["id"] in was, change["id"] in now)
        assert there == {"removed": (True, False), "changed": (True, True), "added": (False, True)}[change["verb"]], (
            change
        )
        if change["verb"] == "changed":
            assert was[change["id"]] != now[change["id"]], change
    told = {change["id"] for change in mine}
    assert {id_ for id_ in was.keys() ^ now.keys() if not id_.startswith(("r-", "vol-", "eni-", "sg-"))} <= told
    kinds = Counter((change["kind"], change["verb"]) for change in mine)
    for kind in ("instance", "volume", "interface", "subnet", "group", "user", "bucket"):
        assert kinds[kind, "removed"], kind
        assert kinds[kind, "added"], kind
    assert kinds["vpc", "removed"]
    assert min(kinds[kind, "changed"] for kind in ("instance", "volume", "interface", "group")) > 0


def test_another_seed_is_another_inventory() -> None:
    with start_simulated_aws(seed=4, accounts=2, regions=("eu-west-1",), size=3) as other:
        assert other.accounts[1] == "100000400001"
    assert not psutil.pid_exists(other.pid)


def test_health_says_what_there_is(aws: SimulatedAws) -> None:
    with urllib.request.urlopen(f"{aws.endpoint_url}/_cartoray/health") as answer:
        assert answer.status == 200
    assert aws.environment()["AWS_ENDPOINT_URL"] == aws.endpoint_url
    assert aws.accounts[0] == aws.management_account
