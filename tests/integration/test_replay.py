"""The replay server of the benchmarks as boto3 sees it, from a recording of the simulated AWS."""

from __future__ import annotations

import re
import time
import urllib.error
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from bench.replay.accounts import Account
from bench.replay.recorder import record
from bench.replay.running import RunningReplay, start_replay
from cartoray.stack.simulated_aws import SimulatedAws

REGIONS = ("us-east-1", "eu-west-1")
OTHERS = ("111122223333", "444455556666", "777788889999")
ONCE = Config(retries={"max_attempts": 0}, read_timeout=20)
SESSION = boto3.Session("testing", "testing", region_name=REGIONS[0])  # one: the first client of each costs 100 ms
EC2 = ("instances", "vpcs", "subnets", "security_groups", "volumes", "network_interfaces")
CALLS = {
    "iam": ("list_users", "list_roles", "list_groups", "list_policies", "get_account_authorization_details"),
    "lambda": ("list_functions",),
    "rds": ("describe_db_instances",),
    "elbv2": ("describe_load_balancers", "describe_target_groups"),
}
IDS = re.compile(
    r"\b(?!ami-)(?:[a-z]+-)+[0-9a-f]{17}\b|\b(?:AROA|AKIA)[A-Z0-9]{16,17}\b|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-\w{12}"
)


@dataclass
class Caller:
    """The clients of one account, and the bodies of their answers, in order."""

    endpoint_url: str
    account: str
    bodies: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        sts = SESSION.client("sts", endpoint_url=self.endpoint_url, config=ONCE)
        arn = f"arn:aws:iam::{self.account}:role/CartographyReadOnly"
        given = sts.assume_role(RoleArn=arn, RoleSessionName="test")["Credentials"]
        self._keys = {
            "aws_access_key_id": given["AccessKeyId"],
            "aws_secret_access_key": given["SecretAccessKey"],
            "aws_session_token": given["SessionToken"],
        }

    def client(self, service: str, region: str = REGIONS[0]) -> Any:
        made = SESSION.client(service, region, endpoint_url=self.endpoint_url, config=ONCE, **self._keys)
        made.meta.events.register("before-parse", self._keep)
        return made

    def _keep(self, response_dict: Mapping[str, Any], **_: object) -> None:
        self.bodies.append(bytes(response_dict["body"]).replace(self.endpoint_url.encode(), b""))

    def sync(self) -> list[Any]:
        """Calls as a sync makes them, some with ids from earlier answers; the parsed answers."""
        answers: list[Any] = []
        for region in REGIONS:
            ec2 = self.client("ec2", region)
            found = {kind: getattr(ec2, f"describe_{kind}")() for kind in EC2}
            answers += found.values()
            pages = ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 5})
            answers += [page["Reservations"] for page in pages]
            groups = {group["GroupId"] for group in found["security_groups"]["SecurityGroups"]}
            answers.append(ec2.describe_security_groups(GroupIds=list(groups)))  # in the order of a set
            answers.append(ec2.describe_vpcs(Filters=[{"Name": "owner-id", "Values": [self.account]}]))
        return answers + self._global()

    def _global(self) -> list[Any]:
        answers = [getattr(self.client(service), call)() for service, calls in CALLS.items() for call in calls]
        kms, s3, iam, sqs = (self.client(service) for service in ("kms", "s3", "iam", "sqs"))
        for key in kms.list_keys()["Keys"]:
            answers += [
                kms.describe_key(KeyId=key["KeyArn"]),
                kms.get_key_policy(KeyId=key["KeyId"], PolicyName="default"),
            ]
        for bucket in s3.list_buckets()["Buckets"]:
            name = bucket["Name"]
            answers += [s3.get_bucket_acl(Bucket=name), s3.get_bucket_tagging(Bucket=name), s3.head_bucket(Bucket=name)]
            if name.startswith("data-0"):
                with pytest.raises(ClientError, match="NoSuchBucketPolicy"):
                    s3.get_bucket_policy(Bucket=name)
        answers += [iam.list_access_keys(UserName=user["UserName"]) for user in answers[0]["Users"]]
        (balancer, *_) = answers[7]["LoadBalancers"]
        elb = self.client("elbv2")
        answers.append(elb.describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"]))
        for url in sqs.list_queues().get("QueueUrls", []):  # has the endpoint's host and port in it
            answers.append(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"]))
        return answers


def comparable(answers: list[Any]) -> list[Any]:
    """Without what is of the connection."""
    for answer in answers:
        if isinstance(answer, dict):
            answer.pop("ResponseMetadata", None)
    return answers


@dataclass(frozen=True)
class Recorded:
    account: str
    before: Path
    after: Path
    answers: list[Any]
    bodies: list[bytes]


@pytest.fixture(scope="module")
def recorded(simulated_aws: SimulatedAws, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """One account of the simulated AWS, before a mutation and after it."""
    folder, aws = tmp_path_factory.mktemp("recordings"), simulated_aws
    account = aws.accounts[1]
    with record(aws.endpoint_url, account, folder / "before.gz") as endpoint_url:
        caller = Caller(endpoint_url, account)
        answers = comparable(caller.sync())
    aws.mutate(20_261_126)
    with record(aws.endpoint_url, account, folder / "after.gz") as endpoint_url:
        Caller(endpoint_url, account).client("ec2").describe_instances()
    return Recorded(account, folder / "before.gz", folder / "after.gz", answers, caller.bodies)


@pytest.fixture(scope="module")
def replay(recorded: Recorded) -> Iterator[RunningReplay]:
    with start_replay([recorded.before, recorded.after], organization=25) as running:
        yield running


def test_the_recorded_account_is_answered_as_it_was(recorded: Recorded, replay: RunningReplay) -> None:
    assert comparable(Caller(replay.endpoint_url, recorded.account).sync()) == recorded.answers


def test_every_other_account_has_the_same_with_ids_of_its_own(recorded: Recorded, replay: RunningReplay) -> None:
    replay.forget()
    seen = set(IDS.findall("".join(body.decode() for body in recorded.bodies)))
    assert len(seen) > 100
    count = len(seen)
    for account in OTHERS:
        caller = Caller(replay.endpoint_url, account)
        caller.sync()
        to_base = Account(recorded.account, account).to_base
        assert [to_base(body) for body in caller.bodies] == recorded.bodies
        own = set(IDS.findall("".join(body.decode() for body in caller.bodies)))
        assert len(own) == count
        assert not own & seen
        seen |= own
        assert recorded.account not in "".join(body.decode() for body in caller.bodies)
    assert replay.stats()["not_recorded"] == {}


def test_whoever_assumes_a_role_is_that_account(replay: RunningReplay) -> None:
    for account in OTHERS:
        assert Caller(replay.endpoint_url, account).client("sts").get_caller_identity()["Account"] == account


def test_the_organization_lists_its_accounts(replay: RunningReplay) -> None:
    organizations = SESSION.client("organizations", endpoint_url=replay.endpoint_url)
    pages = [page["Accounts"] for page in organizations.get_paginator("list_accounts").paginate()]
    assert [len(page) for page in pages] == [20, 5]
    assert len({account["Id"] for page in pages for account in page}) == 25


@pytest.mark.parametrize(
    ("service", "call"), [("ec2", "describe_images"), ("iam", "list_virtual_mfa_devices"), ("s3", "list_objects_v2"),
                          ("kms", "list_aliases"), ("lambda", "list_layers")]
)  # fmt: skip
def test_what_was_not_recorded_is_an_error_of_its_own_and_counted(
    replay: RunningReplay, service: str, call: str
) -> None:
    replay.forget()
    arguments = {"Bucket": "data"} if service == "s3" else {}
    with pytest.raises(ClientError) as error:
        getattr(Caller(replay.endpoint_url, OTHERS[0]).client(service), call)(**arguments)
    assert error.value.response["Error"]["Code"] == "NotRecorded"
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    stats = replay.stats()
    assert sum(stats["not_recorded"].values()) == 1
    assert service in stats["not_recorded_keys"][0]


def test_a_stage_is_what_was_recorded_then(replay: RunningReplay) -> None:
    def instances() -> set[str]:
        found = Caller(replay.endpoint_url, OTHERS[0]).client("ec2").describe_instances()["Reservations"]
        return {instance["InstanceId"] for reservation in found for instance in reservation["Instances"]}

    before = instances()
    replay.stage(1)
    after = instances()
    replay.stage(0)
    assert before - after
    assert before & after
    assert after - before
    assert instances() == before
    with pytest.raises(urllib.error.HTTPError):
        replay.stage(2)


def test_latency_is_the_same_for_many_calls_at_once(recorded: Recorded) -> None:
    with start_replay([recorded.before], latency_ms=300) as replay, ThreadPoolExecutor(20) as pool:
        ec2 = Caller(replay.endpoint_url, OTHERS[0]).client("ec2")
        began_s = time.monotonic()
        list(pool.map(lambda _: ec2.describe_vpcs(), range(20)))
        assert 0.3 <= time.monotonic() - began_s < 3  # one after the other: 6


@pytest.mark.parametrize(
    ("service", "call", "code"),
    [
        ("ec2", "describe_vpcs", "RequestLimitExceeded"),
        ("iam", "list_users", "Throttling"),
        ("kms", "list_keys", "ThrottlingException"),
        ("lambda", "list_functions", "TooManyRequestsException"),
        ("s3", "list_buckets", "SlowDown"),
    ],
)
def test_an_account_that_asks_too_often_is_throttled_and_no_other(
    limited: RunningReplay, service: str, call: str, code: str
) -> None:
    eager = Caller(limited.endpoint_url, OTHERS[0]).client(service)
    with pytest.raises(ClientError) as error:
        for _ in range(50):
            getattr(eager, call)()
    assert error.value.response["Error"]["Code"] == code
    getattr(Caller(limited.endpoint_url, OTHERS[1]).client(service), call)()


@pytest.fixture(scope="module")
def limited(recorded: Recorded) -> Iterator[RunningReplay]:
    """With a hundredth of AWS's limits: a busy machine cannot ask for much."""
    with start_replay([recorded.before], limit_scale=0.01) as running:
        yield running
