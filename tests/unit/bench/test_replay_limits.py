"""How many calls are allowed."""

from __future__ import annotations

from bench.replay.limits import LIMITS, Limits
from cartoray.stack.simulated_aws_protocol import Call


def call(service: str, operation: str, account: str = "111122223333", region: str = "eu-west-1", **more: str) -> Call:
    parameters = {"Action": operation, "Version": "1"} | more
    return Call("", account, region, service, operation, "query", parameters)


def allowed(limits: Limits, one: Call, now_s: float = 0.0) -> int:
    """How many calls at once."""
    return next(count for count in range(10_000) if not limits.allow(one, one.action, now_s))


def test_ec2_has_less_for_those_who_ask_for_everything() -> None:
    limits = Limits(1)
    assert allowed(limits, call("ec2", "DescribeVpcs")) == 50
    assert allowed(limits, call("ec2", "DescribeVpcs", MaxResults="1000")) == 100
    assert allowed(limits, call("ec2", "CreateVpc")) == 50
    assert allowed(limits, call("ec2", "DescribeVpcs"), now_s=1.0) == 10


def test_accounts_regions_and_apis_have_buckets_of_their_own() -> None:
    limits = Limits(1)
    assert allowed(limits, call("ec2", "DescribeVpcs")) == 50
    assert allowed(limits, call("ec2", "DescribeSubnets")) == 50
    assert allowed(limits, call("ec2", "DescribeVpcs", region="us-east-1")) == 50
    assert allowed(limits, call("ec2", "DescribeVpcs", account="444455556666")) == 50


def test_the_apis_of_lambda_share_one_bucket_but_for_those_with_their_own() -> None:
    limits = Limits(1)
    assert allowed(limits, call("lambda", "ListFunctions")) == 15
    assert allowed(limits, call("lambda", "ListLayers")) == 0
    assert allowed(limits, call("lambda", "GetFunction")) == 100


def test_a_scale_allows_more_or_less_and_never_nothing() -> None:
    assert allowed(Limits(2), call("kms", "ListKeys")) == 2 * LIMITS["kms:ListKeys"].capacity
    assert allowed(Limits(0.001), call("kms", "ListKeys")) == 1
    assert allowed(Limits(1), call("eks", "ListClusters")) == LIMITS[""].capacity


def test_the_least_time_is_that_of_the_fullest_bucket() -> None:
    limits = Limits(1)
    assert limits.least_s == 0
    allowed(limits, call("ec2", "DescribeVpcs"))
    assert limits.least_s == 0  # all of them at once, since it was full
    for second in range(1, 4):
        assert limits.allow(call("ec2", "DescribeVpcs"), "ec2:DescribeVpcs", float(second))
        assert limits.allow(call("iam", "ListUsers"), "iam:ListUsers", float(second))
    assert limits.least_s == 3 / LIMITS["ec2 unfiltered"].refill_per_s
