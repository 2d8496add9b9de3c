"""`AwsCloud` against the simulated AWS: whose data comes back, and what an error means."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import boto3
import pytest
from support.extracting import lead_to

from actors.aws import clients
from actors.aws.clients import AwsCloud, organization_accounts
from actors.cloud import RegionNotEnabled
from actors.modules import Call, Item
from cartoray.errors import CartorayError, CloudDenied, CloudUnavailable, RegionDenied
from cartoray.jobs import Account
from cartoray.settings import AwsSettings
from cartoray.stack.simulated_aws import SimulatedAws

pytestmark = pytest.mark.stack

VPCS = Call("ec2", "describe_vpcs", "Vpcs", page_size=1000)
VOLUMES = Call("ec2", "describe_volumes", "Volumes", page_size=500)
IDENTITY = Call("sts", "get_caller_identity", None)
QUIET: dict[str, Any] = {
    "latency_ms": 0,
    "throttle_rate": 0,
    "error_rate": 0,
    "session_s": 3600,
    "deny": [],
    "opt_in_required": [],
    "hang": [],
}

Check = Callable[[], None]


def carry_on() -> None:
    pass


class Over(Exception):
    """What `check` raises when nobody wants the call any more."""


@pytest.fixture
def aws(simulated_aws: SimulatedAws, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SimulatedAws]:
    """Without faults; the environment leads there, and to no credentials of the person who runs this."""
    lead_to(simulated_aws, monkeypatch, tmp_path / "absent")
    simulated_aws.faults(**QUIET)
    simulated_aws.forget_calls()
    yield simulated_aws
    simulated_aws.faults(**QUIET)


def cloud_of(aws: SimulatedAws, **settings: Any) -> AwsCloud:
    return AwsCloud(AwsSettings(**{"role_name": aws.role_name} | settings))


def account(aws: SimulatedAws, number: int) -> Account:
    return Account(id=aws.accounts[number])


def items(
    cloud: AwsCloud,
    of: Account,
    region: str | None,
    call: Call = VPCS,
    *,
    check: Check = carry_on,
    role: str | None = None,
) -> list[Item]:
    return [item for page in cloud.pages(of, role, region, call, check) for item in page]


def reservations(page_size: int) -> Call:
    return Call("ec2", "describe_instances", "Reservations", page_size)


def counted(aws: SimulatedAws, action: str, outcome: str = "") -> int:
    calls = aws.calls()["calls"]
    return sum(each["count"] for each in calls if each["action"] == action and outcome in ("", each["outcome"]))


# keys, secrets and tokens as AWS makes them, and what the environment has instead
SECRET = re.compile(r"(AKIA|ASIA)[A-Z0-9]{16}|[A-Za-z0-9/+=]{40}|testing|only-we-know")


def refusal(kind: type[Exception], attempt: Callable[[], object]) -> str:
    """The text of the error, which is of exactly this kind, on one line, and holds no credential."""
    with pytest.raises(kind) as raised:
        attempt()
    text = str(raised.value)
    assert raised.type is kind
    assert "\n" not in text
    assert not SECRET.search(text), text
    return text


def test_the_pattern_of_secrets_finds_those_of_this_test(aws: SimulatedAws) -> None:
    held = boto3.client("sts").assume_role(RoleArn=aws.role_arn(aws.accounts[1]), RoleSessionName="test")["Credentials"]
    assert all(SECRET.search(f"said {secret}.") for secret in held.values() if isinstance(secret, str))
    assert not SECRET.search(f"The role {aws.role_arn(aws.accounts[1])} cannot be assumed.")


# ---- whose data --------------------------------------------------------------------------------------------------


def test_an_assumed_role_sees_its_own_account(aws: SimulatedAws) -> None:
    cloud = cloud_of(aws)
    assert items(cloud, account(aws, 1), None, IDENTITY)[0]["Account"] == aws.accounts[1]
    vpcs = items(cloud, account(aws, 1), "eu-west-1")
    assert vpcs
    assert {vpc["OwnerId"] for vpc in vpcs} == {aws.accounts[1]}
    assert counted(aws, "sts:AssumeRole") == 1


def test_the_role_of_a_job_counts_more_than_that_of_the_settings(aws: SimulatedAws) -> None:
    cloud = cloud_of(aws, role_name="Nobody")
    assert items(cloud, account(aws, 1), "us-east-1", role=aws.role_name)


def test_threads_of_several_accounts_share_clients_and_nothing_else(
    aws: SimulatedAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: Counter[tuple[str, str]] = Counter()
    make = boto3.Session.client

    def client(self: boto3.Session, service: str, region_name: str, **options: Any) -> Any:
        made[service, region_name] += 1
        return make(self, service, region_name=region_name, **options)

    monkeypatch.setattr(boto3.Session, "client", client)
    aws.faults(latency_ms=20)  # so that calls of all accounts are under way at once
    cloud = cloud_of(aws)
    together = threading.Barrier(12)

    def look(number: int) -> None:
        together.wait(30)
        me = account(aws, number % 3)
        for region in aws.regions:
            assert items(cloud, me, None, IDENTITY)[0]["Account"] == me.id
            assert {vpc["OwnerId"] for vpc in items(cloud, me, region)} == {me.id}

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(look, range(12)))
    assert set(made.values()) == {1}
    assert set(made) == {("sts", "us-east-1"), ("ec2", "us-east-1"), ("ec2", "eu-west-1")}
    assert aws.calls()["in_flight_max"] > 3
    assert counted(aws, "sts:AssumeRole") == 3, "each account's role is assumed once, however many threads want it"


def test_pages_hold_every_item_once(aws: SimulatedAws) -> None:
    cloud, me = cloud_of(aws), account(aws, 1)
    pages = list(cloud.pages(me, None, "us-east-1", reservations(1), carry_on))
    assert len(pages) > 2
    assert max(map(len, pages)) == 1
    found = [item["ReservationId"] for page in pages for item in page]
    assert len(set(found)) == len(found)
    assert counted(aws, "ec2:DescribeInstances") == len(pages), "one call a page"
    assert found == [item["ReservationId"] for item in items(cloud, me, "us-east-1", reservations(1000))]


def test_no_page_is_asked_for_before_it_is_wanted(aws: SimulatedAws) -> None:
    pages = cloud_of(aws).pages(account(aws, 1), None, "us-east-1", reservations(1), carry_on)
    assert counted(aws, "ec2:DescribeInstances") == 0
    next(pages)
    assert counted(aws, "ec2:DescribeInstances") == 1


def test_the_organizations_accounts_have_ids_and_names(aws: SimulatedAws) -> None:
    found = organization_accounts(AwsSettings())
    assert [each.id for each in found] == sorted(aws.accounts)
    names = {each.id: each.name for each in found}
    assert [names[account] for account in aws.accounts[1:]] == ["team-001", "team-002"]
    assert all(names.values())


def test_who_may_not_list_the_organization_is_told(aws: SimulatedAws) -> None:
    aws.faults(deny=[{"action": "organizations:*"}])
    text = refusal(CloudDenied, lambda: organization_accounts(AwsSettings()))
    assert "organizations:ListAccounts" in text


# ---- regions -----------------------------------------------------------------------------------------------------


def test_a_region_that_is_not_opted_in_is_not_discovered(aws: SimulatedAws) -> None:
    aws.faults(opt_in_required=[{"account": aws.accounts[1], "region": "eu-west-1"}])
    cloud = cloud_of(aws)
    assert cloud.regions(account(aws, 1), None, carry_on) == ("us-east-1",)
    assert cloud.regions(account(aws, 2), None, carry_on) == ("eu-west-1", "us-east-1")
    assert cloud.regions(account(aws, 2), None, carry_on) == ("eu-west-1", "us-east-1")
    assert counted(aws, "ec2:DescribeRegions") == 2, "discovered once in a while"


def test_a_region_that_is_not_enabled_is_told_apart_from_one_that_denies(aws: SimulatedAws) -> None:
    cloud, me = cloud_of(aws), account(aws, 1)
    assert "eu-west-1" in cloud.regions(me, None, carry_on)
    aws.faults(opt_in_required=[{"account": me.id, "region": "eu-west-1"}])  # what was known is no longer true
    refusal(RegionNotEnabled, lambda: items(cloud, me, "eu-west-1"))
    aws.faults(opt_in_required=[], deny=[{"account": me.id, "region": "eu-west-1", "action": "ec2:DescribeVpcs"}])
    text = refusal(RegionDenied, lambda: items(cloud, me, "eu-west-1"))
    for named in ("ec2:DescribeVpcs", "eu-west-1", me.id, "UnauthorizedOperation", "--region"):
        assert named in text
    assert items(cloud, me, "us-east-1")


def test_credentials_that_an_enabled_region_does_not_know_are_no_reason_to_skip_it(aws: SimulatedAws) -> None:
    """A revoked key answers the same as a region that was not opted into: skipping it would delete its nodes."""
    cloud, me = cloud_of(aws), account(aws, 1)
    aws.faults(opt_in_required=[{"account": me.id, "region": "eu-west-1"}])
    refused = threading.Event()

    def opt_in_meanwhile() -> None:
        if counted(aws, "ec2:DescribeVpcs") and not refused.is_set():
            refused.set()
            aws.faults(opt_in_required=[])

    text = refusal(RegionDenied, lambda: items(cloud, me, "eu-west-1", check=opt_in_meanwhile))
    assert refused.is_set()
    assert "AuthFailure" in text


# ---- credentials -------------------------------------------------------------------------------------------------


def test_a_role_that_is_not_there_is_named_with_the_setting(aws: SimulatedAws) -> None:
    cloud = cloud_of(aws, role_name="Nobody", external_id="only-we-know")
    text = refusal(CloudDenied, lambda: items(cloud, account(aws, 1), "us-east-1"))
    assert f"arn:aws:iam::{aws.accounts[1]}:role/Nobody" in text
    assert "CARTORAY_AWS_ROLE_NAME" in text
    assert counted(aws, "ec2:DescribeVpcs") == 0


def test_without_a_role_another_accounts_credentials_are_refused_before_data_is_asked_for(aws: SimulatedAws) -> None:
    cloud = cloud_of(aws, role_name=None)
    text = refusal(CloudDenied, lambda: items(cloud, account(aws, 1), "us-east-1"))
    assert aws.accounts[1] in text
    assert aws.management_account in text
    assert "--role-name" in text
    assert {each["action"] for each in aws.calls()["calls"]} == {"sts:GetCallerIdentity"}
    own = Account(id=aws.management_account)
    assert {vpc["OwnerId"] for vpc in items(cloud, own, "us-east-1")} == {aws.management_account}


@pytest.mark.parametrize("role_name", [None, "CartographyReadOnly"])
def test_without_any_credentials_the_remedy_is_told(
    aws: SimulatedAws, monkeypatch: pytest.MonkeyPatch, role_name: str | None
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    cloud = cloud_of(aws, role_name=role_name)
    text = refusal(CloudDenied, lambda: items(cloud, account(aws, 1), "us-east-1"))
    assert "AWS_ACCESS_KEY_ID" in text
    assert aws.calls()["total"] == 0


@pytest.mark.parametrize("wrong", [{"AWS_SECRET_ACCESS_KEY": ""}, {"AWS_PROFILE": "absent"}], ids=str)
def test_credentials_that_are_set_up_wrongly_are_an_error_of_ours(
    aws: SimulatedAws, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str]
) -> None:
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(CartorayError) as raised:
        items(cloud_of(aws), account(aws, 1), "us-east-1")
    assert next(iter(wrong)) in str(raised.value) or "absent" in str(raised.value)


def test_credentials_that_live_for_seconds_are_renewed_in_the_middle_of_a_run(aws: SimulatedAws) -> None:
    aws.faults(session_s=3)
    cloud, me = cloud_of(aws), account(aws, 1)
    began_s, found = time.monotonic(), []
    for page in cloud.pages(me, None, "us-east-1", reservations(1), carry_on):
        found += page
        while time.monotonic() < began_s + 4.5:  # until the first session has ended
            time.sleep(0.1)
    assert len(found) == len({item["ReservationId"] for item in found}) > 2
    assert counted(aws, "ec2:DescribeInstances", "expired") == 0
    assert counted(aws, "sts:AssumeRole") > 1


def test_the_renewal_of_credentials_asks_the_job_that_wants_them_now(aws: SimulatedAws) -> None:
    """The job that assumed the role first may be over long since, and must not end the others of its account."""
    aws.faults(session_s=3)  # so short that every call renews them
    cloud, me = cloud_of(aws), account(aws, 1)
    over = threading.Event()

    def first_job() -> None:
        if over.is_set():
            raise Over

    assert items(cloud, me, "us-east-1", check=first_job)
    over.set()
    assert items(cloud, me, "us-east-1")
    assert counted(aws, "sts:AssumeRole") > 1


class SlowClock(AwsCloud):
    """Takes credentials for valid long after AWS has ended them."""

    def _assume(self, account: Account, role: str, check: Check) -> dict[str, Any]:
        return super()._assume(account, role, check) | {"expiry_time": "2100-01-01T00:00:00+00:00"}


def ended_session(aws: SimulatedAws, cloud: AwsCloud, of: Account) -> None:
    """Leaves `cloud` with a session that AWS has ended; the next one will last."""
    aws.faults(session_s=2)
    items(cloud, of, None, IDENTITY)
    time.sleep(3.1)  # AWS counts whole seconds
    aws.faults(session_s=3600)
    aws.forget_calls()


def test_a_session_that_aws_calls_expired_is_renewed_once(aws: SimulatedAws) -> None:
    cloud, me = SlowClock(AwsSettings(role_name=aws.role_name)), account(aws, 1)
    ended_session(aws, cloud, me)
    assert items(cloud, me, "us-east-1")
    assert counted(aws, "ec2:DescribeVpcs", "expired") == 1
    assert counted(aws, "sts:AssumeRole") == 1


def test_two_calls_whose_session_expired_at_once_are_both_renewed(aws: SimulatedAws) -> None:
    have_it, forgot_it, calls = threading.Barrier(2), threading.Barrier(2), count()

    class AtOnce(SlowClock):
        def credentials(self, *arguments: Any) -> Any:
            found = super().credentials(*arguments)
            if 0 < next(calls) < 3:  # that of `ended_session` is the first
                have_it.wait(30)
            return found

        def forget_credentials(self, *arguments: Any) -> None:
            super().forget_credentials(*arguments)
            forgot_it.wait(30)

    cloud, me = AtOnce(AwsSettings(role_name=aws.role_name)), account(aws, 1)
    ended_session(aws, cloud, me)
    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(lambda region: items(cloud, me, region), aws.regions):
            assert found


def test_a_session_that_stays_expired_is_an_error_and_no_endless_loop(aws: SimulatedAws) -> None:
    aws.faults(session_s=1, latency_ms=1_100)  # over before it is here
    cloud, me = SlowClock(AwsSettings(role_name=aws.role_name)), account(aws, 1)
    text = refusal(RegionDenied, lambda: items(cloud, me, "us-east-1"))
    assert "RequestExpired" in text
    assert counted(aws, "sts:AssumeRole") == 2


# ---- repetition --------------------------------------------------------------------------------------------------


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back-off of no length to speak of."""
    monkeypatch.setattr(clients, "backoff_s", lambda *_: 0.001)


@pytest.mark.usefixtures("soon")
def test_throttling_and_server_errors_by_chance_are_repeated_until_it_succeeds(aws: SimulatedAws) -> None:
    cloud, me = cloud_of(aws, attempts_max=100), account(aws, 1)
    want = [vpc["VpcId"] for vpc in items(cloud, me, "us-east-1")]
    aws.faults(throttle_rate=0.3, error_rate=0.3)
    for _ in range(50):
        assert [vpc["VpcId"] for vpc in items(cloud, me, "us-east-1")] == want
        if counted(aws, "ec2:DescribeVpcs", "throttled") and counted(aws, "ec2:DescribeVpcs", "internal_error"):
            break
    else:
        pytest.fail("nothing went wrong")


@pytest.mark.usefixtures("soon")
def test_throttling_without_end_is_an_error_that_names_the_setting(aws: SimulatedAws) -> None:
    cloud, me = cloud_of(aws, attempts_max=2), account(aws, 1)
    items(cloud, me, "us-east-1")
    aws.forget_calls()
    aws.faults(throttle_rate=1)
    text = refusal(CloudUnavailable, lambda: items(cloud, me, "us-east-1"))
    for named in ("CARTORAY_AWS_ATTEMPTS_MAX", "RequestLimitExceeded", "ec2:DescribeVpcs", "us-east-1", me.id):
        assert named in text
    assert counted(aws, "ec2:DescribeVpcs", "throttled") == 2, "botocore repeats nothing by itself"


@pytest.mark.usefixtures("soon")
def test_a_role_that_cannot_be_assumed_for_the_moment_is_no_refusal(aws: SimulatedAws) -> None:
    aws.faults(error_rate=1)
    cloud = cloud_of(aws, attempts_max=2)
    text = refusal(CloudUnavailable, lambda: items(cloud, account(aws, 1), "us-east-1"))
    assert "sts:AssumeRole" in text
    aws.faults(error_rate=0)
    assert items(cloud, account(aws, 1), "us-east-1")


def test_what_is_denied_is_not_repeated(aws: SimulatedAws) -> None:
    cloud = cloud_of(aws)
    aws.faults(deny=[{"action": "ec2:DescribeVpcs"}])
    refusal(RegionDenied, lambda: items(cloud, account(aws, 1), "us-east-1"))
    assert counted(aws, "ec2:DescribeVpcs") == 1


def test_a_call_that_hangs_ends_by_its_own_limit(aws: SimulatedAws) -> None:
    me, patient, hasty = account(aws, 1), cloud_of(aws), cloud_of(aws, read_timeout_s=0.5, attempts_max=1)
    aws.faults(hang=[{"action": "ec2:DescribeVpcs"}])
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(items, patient, me, "us-east-1")  # began earlier, and may wait for a minute
        while not counted(aws, "sts:AssumeRole"):
            time.sleep(0.05)
        text = refusal(CloudUnavailable, lambda: items(hasty, me, "us-east-1"))
        assert not other.done()
        aws.faults(hang=[])
        assert other.result(60)
    assert "ec2:DescribeVpcs" in text


def test_an_endpoint_that_is_not_there_is_unavailable(aws: SimulatedAws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    cloud = cloud_of(aws, connect_timeout_s=1, attempts_max=1)
    text = refusal(CloudUnavailable, lambda: items(cloud, account(aws, 1), "us-east-1"))
    assert "sts:AssumeRole" in text


def test_a_call_that_nobody_wants_ends_while_it_waits_for_its_next_attempt(
    aws: SimulatedAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud, me = cloud_of(aws), account(aws, 1)
    items(cloud, me, "us-east-1")
    aws.forget_calls()
    aws.faults(throttle_rate=1)
    monkeypatch.setattr(clients, "backoff_s", lambda *_: 3600.0)

    def check() -> None:
        if counted(aws, "ec2:DescribeVpcs"):
            raise Over

    with pytest.raises(Over):
        items(cloud, me, "us-east-1", check=check)
    assert counted(aws, "ec2:DescribeVpcs") == 1


def test_every_error_is_one_of_ours(aws: SimulatedAws) -> None:
    """Whatever AWS answers, the job's reason is a sentence and not a traceback."""
    unknown = Call("ec2", "describe_verified_access_groups", "VerifiedAccessGroups", page_size=5)
    with pytest.raises(CartorayError, match="UnknownOperationException"):
        items(cloud_of(aws), account(aws, 1), "us-east-1", unknown)
