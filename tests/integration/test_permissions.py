"""The policy that `cartoray iam-policy` prints is what native modules need, and no more: they call what they declare.

Each module's extraction runs against the simulated AWS, and botocore tells which operations it asks for. Answers that
the simulated AWS has none of are put in their place, so that every call that a module can make is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from support.extracting import extract, lead_to

from actors.aws.clients import AwsCloud
from actors.modules import modules
from cartoray.jobs import Account
from cartoray.settings import AwsSettings
from cartoray.stack.simulated_aws import SimulatedAws

# Operation → IAM action, where AWS gave it another name. Source: Service Authorization Reference, Amazon S3.
ACTIONS = {
    "s3:ListBuckets": "s3:ListAllMyBuckets",
    "s3:HeadBucket": "s3:ListBucket",
    "s3:GetBucketEncryption": "s3:GetEncryptionConfiguration",
    "s3:GetPublicAccessBlock": "s3:GetBucketPublicAccessBlock",
    "s3:GetBucketNotificationConfiguration": "s3:GetBucketNotification",
}

# What the policy of the workers allows, not that of the role.
OF_THE_WORKERS = {"sts:AssumeRole"}

PRINCIPAL = "arn:aws:iam::111111111111:role/admin"


@dataclass
class Recorded:
    """Which IAM actions were needed."""

    cloud: AwsCloud
    account: Account
    role_name: str
    threads: ThreadPoolExecutor
    actions: set[str] = field(default_factory=set)

    def note(self, model: Any, **_: Any) -> None:
        operation = f"{model.service_model.signing_name}:{model.name}"
        self.actions.add(ACTIONS.get(operation, operation))

    def extract(self, name: str) -> set[str]:
        """The actions that one module needed, where it looked into no region that was named."""
        self.actions.clear()
        self.cloud._regions.clear()  # else only the first module would ask which there are
        found = extract(
            name,
            lambda *_: None,
            account=self.account,
            role_name=self.role_name,
            cloud=self.cloud,
            threads=self.threads,
        )
        assert found.reason == ""
        return self.actions - OF_THE_WORKERS


def _nothing_attached(parsed: dict[str, Any], **_: Any) -> None:
    """Of GetAccountAuthorizationDetails: as if all policies had been attached after it was asked."""
    parsed["Policies"] = []


def _with_entries(parsed: dict[str, Any], **_: Any) -> None:
    """Of DescribeCluster: a cluster that has access entries, which moto does not know."""
    parsed["cluster"]["accessConfig"] = {"authenticationMode": "API"}


def _answered(answer: Mapping[str, Any]) -> Any:
    response = AWSResponse("", 200, {}, None)
    return lambda **_: (response, answer)


@pytest.fixture(scope="module")
def recorded(simulated_aws: SimulatedAws, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    with pytest.MonkeyPatch.context() as environment, ThreadPoolExecutor(32) as threads:
        lead_to(simulated_aws, environment, tmp_path_factory.mktemp("aws") / "absent")
        account = Account(id=simulated_aws.accounts[-1])
        found = Recorded(AwsCloud(AwsSettings()), account, simulated_aws.role_name, threads)
        events = found.cloud.shared_session.events  # clients take over what is registered when they are made
        events.register("before-parameter-build.*.*", found.note)
        events.register("after-call.iam.GetAccountAuthorizationDetails", _nothing_attached)
        events.register("after-call.eks.DescribeCluster", _with_entries)
        events.register("before-call.eks.ListAccessEntries", _answered({"accessEntries": [PRINCIPAL]}))
        # a report of what was accessed, which moto does not know either
        events.register("before-call.iam.GenerateServiceLastAccessedDetails", _answered({"JobId": "0" * 36}))
        report = {"JobStatus": "COMPLETED", "ServicesLastAccessed": []}
        events.register("before-call.iam.GetServiceLastAccessedDetails", _answered(report))
        entry = {"principalArn": PRINCIPAL, "accessEntryArn": f"{PRINCIPAL}/entry", "clusterName": "workloads"}
        events.register("before-call.eks.DescribeAccessEntry", _answered({"accessEntry": entry | {"type": "STANDARD"}}))
        yield found


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_module_calls_what_it_declares_and_declares_what_it_calls(name: str, recorded: Recorded) -> None:
    assert recorded.extract(name) == set(modules()[name].permissions)
