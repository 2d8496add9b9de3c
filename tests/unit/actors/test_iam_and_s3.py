"""What the modules of IAM and S3 make of answers that the simulated AWS does not give."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from cartography.models.aws.iam.managed_policy import AWSManagedPolicySchema
from cartography.models.aws.iam.policy_statement import AWSPolicyStatementSchema
from cartography.models.aws.iam.principal_service_access import AWSPrincipalServiceAccessSchema
from cartography.models.aws.iam.root_principal import AWSRootPrincipalSchema
from cartography.models.aws.s3.bucket import S3BucketSchema, S3BucketVersioningSchema

from actors.aws import iam, s3
from actors.calls import Calls
from actors.cloud import Absent, RegionNotEnabled
from actors.modules import Call, Item, NativeModule, Place, Shaped
from cartoray.errors import CloudUnavailable, RegionDenied
from cartoray.jobs import Account, Job

PLACE = Place(Account(id="111111111111"), "us-east-1")
WHEN = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
THREADS = ThreadPoolExecutor(8)
Answers = dict[str, Callable[..., Any]]  # operation → what it answers, or raises


class FakeCloud:
    """Answers what a test says, page by page; anything else with nothing."""

    default_region = "us-east-1"

    def __init__(self, answers: Answers) -> None:
        self.answers = answers

    def pages(
        self, _: Account, __: str | None, region: str | None, call: Call, ___: Callable[[], None], **asked: Any
    ) -> Iterator[list[Item]]:
        if call.operation not in self.answers:
            yield [] if call.page_size is not None or call.result_key is not None else [{}]
            return
        answer = self.answers[call.operation](region=region, **asked)
        if isinstance(answer, Exception):
            raise answer
        yield answer if isinstance(answer, list) else [answer]


def shaped(module: NativeModule, answers: Answers) -> tuple[Shaped, list[str]]:
    """The rows, and what is missing of them."""
    job = Job(run_id="run", update_tag=1, account=PLACE.account, module=module.name)
    calls = Calls(job, FakeCloud(answers), THREADS, lambda: None)  # type: ignore[arg-type]
    assert not isinstance(module.fetch, Call)
    ((_, task),) = calls.gather([PLACE], module.fetch, regional=False)
    return module.shape(task.result(), PLACE), calls.failures


# ---- IAM ---------------------------------------------------------------------------------------------------------

READ = "arn:aws:iam::aws:policy/Read"
USER: Item = {
    "Arn": "arn:aws:iam::111111111111:user/a",
    "UserName": "a",
    "UserId": "A",
    "Path": "/",
    "CreateDate": WHEN,
}
STATEMENT = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}


def account(**more: Callable[..., Any]) -> Answers:
    details = {"UserDetailList": [{**USER, "AttachedManagedPolicies": [{"PolicyArn": READ, "PolicyName": "Read"}]}]}
    return {
        "get_account_authorization_details": lambda **_: [details],
        "list_users": lambda **_: [USER],
        "get_account_summary": lambda **_: {"SummaryMap": {"Users": 1}},
        "generate_service_last_accessed_details": lambda **_: Absent(),
        **more,
    }


def test_a_policy_that_the_snapshot_lacks_is_asked_for() -> None:
    rows, missing = shaped(
        iam.MODULE,
        account(
            get_policy=lambda **_: {"Policy": {"DefaultVersionId": "v2"}},
            get_policy_version=lambda VersionId, **_: {
                "PolicyVersion": {"Document": {"Statement": [{**STATEMENT, "Sid": VersionId}]}}
            },
        ),
    )
    assert [row["id"] for row in rows[AWSManagedPolicySchema]] == [READ]
    assert [(row["policy_id"], row["Sid"]) for row in rows[AWSPolicyStatementSchema]] == [(READ, "v2")]
    assert missing == []


def test_a_policy_that_is_gone_by_then_is_nobodys() -> None:
    rows, missing = shaped(iam.MODULE, account(get_policy=lambda **_: Absent()))
    assert (rows[AWSManagedPolicySchema], missing) == ([], [])


def test_the_latest_access_is_told_once_the_report_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iam, "_REPORT_LOOK_EVERY_S", 0)
    states = iter(["IN_PROGRESS", "COMPLETED"])
    services = [
        {"ServiceName": "S3", "LastAuthenticated": WHEN},
        {"ServiceName": "EC2", "LastAuthenticated": WHEN.replace(year=2025)},
        {"ServiceName": "KMS"},
    ]
    rows, _ = shaped(
        iam.MODULE,
        account(
            get_policy=lambda **_: Absent(),
            generate_service_last_accessed_details=lambda **_: {"JobId": "1"},
            get_service_last_accessed_details=lambda **_: {"JobStatus": next(states), "ServicesLastAccessed": services},
        ),
    )
    (row,) = rows[AWSPrincipalServiceAccessSchema]
    assert (row["arn"], row["last_accessed_service_name"]) == (USER["Arn"], "S3")


def test_reports_that_are_denied_are_missed_but_nothing_else_is() -> None:
    denied = account(
        get_policy=lambda **_: Absent(), generate_service_last_accessed_details=lambda **_: RegionDenied("no reports")
    )
    rows, missing = shaped(iam.MODULE, denied)
    assert (rows[AWSPrincipalServiceAccessSchema], missing) == ([], ["no reports"])


def test_the_root_of_a_foreign_account_hangs_on_that_account() -> None:
    trust = {"Principal": {"AWS": "arn:aws:iam::222222222222:root"}}
    role = {"Arn": "arn:aws:iam::111111111111:role/r", "RoleName": "r", "RoleId": "R", "Path": "/", "CreateDate": WHEN}
    roles = [{**role, "AssumeRolePolicyDocument": {"Statement": [trust]}}]
    rows, _ = shaped(iam.MODULE, account(get_policy=lambda **_: Absent(), list_roles=lambda **_: roles))
    assert {row["arn"]: row["account"] for row in rows[AWSRootPrincipalSchema]} == {
        "arn:aws:iam::111111111111:root": "111111111111",
        "arn:aws:iam::222222222222:root": "222222222222",
    }


# ---- S3 ----------------------------------------------------------------------------------------------------------

BUCKETS = [{"Name": name, "CreationDate": WHEN, "BucketRegion": "eu-west-1"} for name in ("a", "b")]


def buckets(**more: Callable[..., Any]) -> Answers:
    acl = {"Owner": {}, "Grants": []}
    return {
        "list_buckets": lambda **_: BUCKETS,
        "get_bucket_acl": lambda **_: acl,
        "get_bucket_policy": lambda **_: Absent(),
        "get_bucket_encryption": lambda **_: Absent(),
        "get_public_access_block": lambda **_: Absent(),
        "get_bucket_ownership_controls": lambda **_: Absent(),
        **more,
    }


def names(rows: Shaped, schema: Any) -> list[str]:
    return [row["Name"] for row in rows[schema]]


def test_a_bucket_is_asked_about_in_its_region() -> None:
    rows, missing = shaped(s3.MODULE, buckets(get_bucket_versioning=lambda region, **_: {"Status": region}))
    assert [row["versioning_status"] for row in rows[S3BucketVersioningSchema]] == ["eu-west-1", "eu-west-1"]
    assert missing == []


@pytest.mark.parametrize("error", [RegionDenied("why"), CloudUnavailable("why")])
def test_what_is_not_known_of_a_bucket_is_left_as_it_was_and_the_job_is_not_complete(error: Exception) -> None:
    def answer(Bucket: str, **_: Any) -> Any:
        return error if Bucket == "a" else {}

    rows, missing = shaped(s3.MODULE, buckets(get_bucket_versioning=answer))
    assert names(rows, S3BucketSchema) == ["a", "b"]
    assert names(rows, S3BucketVersioningSchema) == ["b"]
    assert missing == ["why"]


def test_a_bucket_in_a_region_that_was_left_does_not_make_the_account_look_empty() -> None:
    rows, missing = shaped(s3.MODULE, buckets(get_bucket_versioning=lambda region, **_: RegionNotEnabled(region)))
    assert names(rows, S3BucketSchema) == ["a", "b"]
    assert (rows[S3BucketVersioningSchema], missing) == ([], [])


def test_a_region_that_the_listing_does_not_tell_is_asked_for() -> None:
    def head(Bucket: str, **_: Any) -> Any:
        return RegionDenied("why") if Bucket == "a" else {"BucketRegion": "eu-west-3"}

    listed = [{key: value for key, value in bucket.items() if key != "BucketRegion"} for bucket in BUCKETS]
    rows, missing = shaped(s3.MODULE, buckets(list_buckets=lambda **_: listed, head_bucket=head))
    assert [row["Region"] for row in rows[S3BucketSchema]] == [None, "eu-west-3"]
    assert missing == ["why"]
