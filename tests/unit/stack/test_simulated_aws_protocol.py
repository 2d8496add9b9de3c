"""The simulated AWS speaks AWS's protocols: botocore's own parsers are the judge."""

import pytest
from botocore.parsers import create_parser
from botocore.session import get_session
from hypothesis import given
from hypothesis import strategies as st
from moto.iam.utils import generate_access_key_id_from_account_id

from cartoray.stack.simulated_aws_protocol import (
    MANAGEMENT_ACCOUNT,
    Call,
    Problem,
    Protocol,
    account_of_key,
    error,
    parse_call,
)

SCOPE = "AWS4-HMAC-SHA256 Credential={key}/20260101/{region}/{service}/aws4_request, SignedHeaders=host, Signature=0"
SESSION = get_session()  # one: each reads its models from disk again
FORM = "application/x-www-form-urlencoded; charset=utf-8"

# protocol of ours, botocore's name for it, a service and an operation that speak it
SPOKEN: list[tuple[Protocol, str, str, str]] = [
    ("ec2", "ec2", "ec2", "DescribeVpcs"),
    ("query", "query", "iam", "ListUsers"),
    ("json", "json", "organizations", "ListAccounts"),
    ("rest-json", "rest-json", "lambda", "ListFunctions"),
    ("rest-xml", "rest-xml", "route53", "ListHostedZones"),
    ("s3", "rest-xml", "s3", "ListBuckets"),
    ("cbor", "smithy-rpc-v2-cbor", "cloudwatch", "ListMetrics"),
]


def headers(service: str = "ec2", region: str = "eu-west-1", key: str = "testing", **more: str) -> dict[str, str]:
    return {"Authorization": SCOPE.format(key=key, region=region, service=service)} | more


@given(st.integers(min_value=0, max_value=999_999_999_999))
def test_the_account_is_read_out_of_the_access_key(number: int) -> None:
    account = f"{number:012}"
    assert account_of_key(generate_access_key_id_from_account_id(account, "ASIA")) == account


@pytest.mark.parametrize("key", ["", "testing", "ASIA" + "1" * 16, "AKIA" + "A" * 16])
def test_a_key_that_names_no_account_is_the_management_accounts(key: str) -> None:
    assert account_of_key(key) is None
    call = parse_call("POST", "/", headers(key=key), b"")
    assert call.account == MANAGEMENT_ACCOUNT


def test_a_form_names_action_region_and_parameters() -> None:
    body = b"Action=DescribeVpcs&Version=2016-11-15&Filter.1.Name=vpc-id&Filter.1.Value.1=a%2Fb"
    call = parse_call("POST", "/", headers(**{"Content-Type": FORM}), body)
    assert (call.action, call.region, call.protocol) == ("ec2:DescribeVpcs", "eu-west-1", "ec2")
    assert call.parameters["Filter.1.Value.1"] == "a/b"


def test_other_protocols_are_told_by_their_headers() -> None:
    target = {"X-Amz-Target": "AWSOrganizationsV20161128.ListAccounts"}
    assert parse_call("POST", "/", headers("organizations", **target), b"{}").action == "organizations:ListAccounts"
    cbor = {"smithy-protocol": "rpc-v2-cbor"}
    path = "/service/GraniteServiceVersion20100801/operation/ListMetrics"
    call = parse_call("POST", path, headers("monitoring", **cbor), b"")
    assert (call.action, call.protocol) == ("monitoring:ListMetrics", "cbor")
    assert parse_call("GET", "/bucket?tagging", headers("s3"), b"").protocol == "s3"


@pytest.mark.parametrize(
    ("action", "remembered"),
    [
        ("ec2:DescribeVpcs", True),
        ("iam:ListUsers", True),
        ("ec2:RunInstances", False),
        ("iam:GenerateCredentialReport", False),
        ("sts:GetCallerIdentity", False),
    ],
)
def test_only_calls_that_change_nothing_may_be_remembered(action: str, *, remembered: bool) -> None:
    service, operation = action.split(":")
    assert Call("", "1", "eu-west-1", service, operation, "ec2").changes_nothing is remembered


@pytest.mark.parametrize("problem", list(Problem))
@pytest.mark.parametrize(("protocol", "name", "service", "operation"), SPOKEN)
def test_botocore_reads_code_and_text_of_every_error(
    problem: Problem, protocol: Protocol, name: str, service: str, operation: str
) -> None:
    call = Call("", "111122223333", "eu-west-1", service, operation, protocol)
    answer = error(call, problem)
    raw = {"status_code": answer.status, "headers": {k.lower(): v for k, v in answer.headers}, "body": answer.body}
    shape = SESSION.get_service_model(service).operation_model(operation).output_shape
    parsed = create_parser(name).parse(raw, shape)
    assert parsed["Error"]["Code"].isalpha()
    assert parsed["Error"]["Message"]
    assert answer.status == parsed["ResponseMetadata"]["HTTPStatusCode"] >= 400
    assert (answer.status >= 500) == (problem is Problem.INTERNAL_ERROR or parsed["Error"]["Code"] in THROTTLED_503)


THROTTLED_503 = ("RequestLimitExceeded", "SlowDown")


@pytest.mark.parametrize(
    ("problem", "protocol", "code"),
    [
        (Problem.DENIED, "ec2", "UnauthorizedOperation"),
        (Problem.DENIED, "query", "AccessDenied"),
        (Problem.DENIED, "json", "AccessDeniedException"),
        (Problem.REGION_NOT_ENABLED, "ec2", "AuthFailure"),
        (Problem.REGION_NOT_ENABLED, "query", "InvalidClientTokenId"),
        (Problem.THROTTLED, "ec2", "RequestLimitExceeded"),
        (Problem.THROTTLED, "json", "ThrottlingException"),
        (Problem.EXPIRED, "ec2", "RequestExpired"),
    ],
)
def test_a_problem_has_the_code_that_aws_uses(problem: Problem, protocol: Protocol, code: str) -> None:
    assert code.encode() in error(Call("", "1", "eu-west-1", "x", "Y", protocol), problem).body


@pytest.mark.parametrize("protocol", [protocol for protocol, *_ in SPOKEN])
def test_cartography_skips_what_is_unsupported_and_does_not_repeat_it(protocol: Protocol) -> None:
    body = error(Call("", "1", "eu-west-1", "x", "Y", protocol), Problem.UNSUPPORTED).body
    assert b"UnknownOperationException" in body
    assert b"not supported in the called region" in body  # cartography.util.AWS_REGION_UNSUPPORTED_OPERATION_SNIPPETS
