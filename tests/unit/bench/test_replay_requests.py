"""Which requests are the same."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import pytest

from bench.replay.accounts import Account
from bench.replay.answers import access_key
from bench.replay.requests import ENDPOINT, Recognizer, Request, key_of

BASE, OTHER = "100000100001", "111122223333"
FORM = "application/x-www-form-urlencoded; charset=utf-8"


def headers(service: str, region: str = "us-east-1", **more: str) -> dict[str, str]:
    scope = f"AKIA/20260101/{region}/{service}/aws4_request"
    authorization = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature={hash(scope)}"
    return {"Authorization": authorization, "Host": "127.0.0.1:4566"} | more


def form(parameters: dict[str, str], region: str = "us-east-1") -> Request:
    return Request("POST", "/", headers("ec2", region) | {"Content-Type": FORM}, urlencode(parameters).encode())


def target(body: object, operation: str = "TrentService.DescribeKey") -> Request:
    return Request("POST", "/", headers("kms") | {"X-Amz-Target": operation}, json.dumps(body).encode())


def get(path: str, service: str = "s3", **more: str) -> Request:
    return Request("GET", path, headers(service) | more)


def key(request: Request, account: str = BASE) -> bytes:
    return key_of(request, request.call, Account(BASE, account).to_base)


ONE = {"Action": "DescribeVpcs", "Version": "2016-11-15", "VpcId.1": "vpc-1", "VpcId.2": "vpc-2"}


@pytest.mark.parametrize(
    ("one", "same"),
    [
        (form(ONE), form(dict(reversed(ONE.items())))),
        (form(ONE), form(ONE | {"VpcId.1": "vpc-2", "VpcId.2": "vpc-1"})),
        (target({"KeyId": "k", "Names": ["a", "b"]}), target({"Names": ["b", "a"], "KeyId": "k"})),
        (get("/data?list-type=2&prefix=a"), get("/data?prefix=a&list-type=2")),
        (get("/functions/arn%3Aaws", "lambda"), get("/functions/arn:aws", "lambda")),
        (get("/data?acl"), get("/?acl", Host="data.localhost:4566")),
        (
            target({"QueueUrl": "http://127.0.0.1:4566/1/q"}),
            Request(
                "POST",
                "/",
                headers("kms") | {"X-Amz-Target": "TrentService.DescribeKey", "Host": "127.0.0.1:1"},
                b'{"QueueUrl": "http://127.0.0.1:1/1/q"}',
            ),
        ),
    ],
)
def test_how_a_request_is_written_makes_no_difference(one: Request, same: Request) -> None:
    assert key(one) == key(same)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (form(ONE), form(ONE, "eu-west-1")),
        (form(ONE), form(ONE | {"VpcId.2": "vpc-3"})),
        (form(ONE), form(ONE | {"MaxResults": "5"})),
        (
            form({"Action": "A", "Filter.1.Name": "a", "Filter.1.Value.1": "x", "Filter.2.Name": "b"}),
            form({"Action": "A", "Filter.1.Name": "b", "Filter.1.Value.1": "x", "Filter.2.Name": "a"}),
        ),
        (target({"KeyId": "k"}), target({"KeyId": "l"})),
        (target({"KeyId": "k"}), target({"KeyId": "k"}, "TrentService.GetKeyPolicy")),
        (get("/data?acl"), get("/data?policy")),
        (get("/data?acl"), get("/other?acl")),
        (get("/x", "lambda"), get("/x", "eks")),
    ],
)
def test_what_decides_the_answer_does(one: Request, other: Request) -> None:
    assert key(one) != key(other)


def test_a_request_of_another_account_is_found_by_its_own_ids() -> None:
    account = Account(BASE, OTHER)
    ids = [f"i-{number:017x}" for number in range(5)]
    theirs = [account.turn("hex", one[2:].encode()).decode() for one in ids]
    assert sorted(theirs) != theirs  # their order is another one
    own = {f"InstanceId.{number}": one for number, one in enumerate(ids)}
    same = {f"InstanceId.{number}": f"i-{one}" for number, one in enumerate(sorted(theirs))}
    assert key(form({"Action": "A"} | own)) == key(form({"Action": "A"} | same), OTHER)
    assert key(form({"Action": "A"} | own)) != key(form({"Action": "A"} | same))
    assert key(get(f"/data-0-{BASE}?acl")) == key(get(f"/data-0-{OTHER}?acl"), OTHER)
    arn = "arn:aws:kms:us-east-1:{}:key/x"
    assert key(target({"KeyId": arn.format(BASE)})) == key(target({"KeyId": arn.format(OTHER)}), OTHER)


def test_what_was_recognized_of_one_account_is_not_taken_for_another_s() -> None:
    recognizer = Recognizer(BASE)

    def recognized(account: str, names: str) -> tuple[str, str, bytes]:
        scope = f"Credential={access_key(account)}/20260101/us-east-1/ec2/aws4_request"
        body = urlencode({"Action": "DescribeVpcs", "Owner": names}).encode()
        request = Request("POST", "/", {"Authorization": scope, "Content-Type": FORM}, body)
        call, found, key = recognizer.recognize(request)
        return call.account, found.number.decode(), key

    for names in ("self", OTHER, BASE):
        for account in (OTHER, BASE, "444455556666", OTHER):
            wanted = form({"Action": "DescribeVpcs", "Owner": BASE if account == names else names})
            assert recognized(account, names) == (account, account, key(wanted))


def test_host_and_port_are_no_part_of_a_key() -> None:
    found = key(target({"QueueUrl": "http://127.0.0.1:4566/1/q"}))
    assert ENDPOINT in found
    assert b"4566" not in found
