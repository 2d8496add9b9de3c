"""Requests in, responses out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.replay.answers import access_key
from bench.replay.recorder import with_account_in_names
from bench.replay.recording import Recording, Response, load
from bench.replay.requests import Request, key_of
from bench.replay.server import Replay
from cartoray.stack.simulated_aws_protocol import account_of_key

BASE, OTHER = "100000100001", "111122223333"
FORM = "application/x-www-form-urlencoded"


def request(body: bytes, service: str = "ec2", account: str = BASE, **more: str) -> Request:
    scope = f"Credential={access_key(account)}/20260101/us-east-1/{service}/aws4_request"
    return Request("POST", "/", {"Authorization": scope, "Content-Type": FORM, "Host": "127.0.0.1:1"} | more, body)


VPCS = request(b"Action=DescribeVpcs")
HEAD = Request("HEAD", "/data", request(b"", "s3").headers)
RECORDING = Recording(
    BASE,
    {
        key_of(VPCS, VPCS.call, bytes): Response(
            "ec2:DescribeVpcs",
            200,
            (("Content-Type", "text/xml"), ("x-amzn-RequestId", "9be1b4da-42f4-427c-a949-161ec06024a0")),
            b"<vpcId>vpc-026b9de2b5a251360</vpcId> 100000100001 54.214.1.24 http://replay.invalid/ \xff\x00",
        ),
        key_of(HEAD, HEAD.call, bytes): Response("s3:HeadBucket", 200, (("Content-Length", "77"),), b""),
    },
)


def replay(**options: float) -> Replay:
    return Replay([RECORDING], "127.0.0.1:1", **options)


def stats(of: Replay) -> dict[str, object]:
    found: dict[str, object] = json.loads(of.answer(Request("GET", "/_replay/stats"), 0).partition(b"\r\n\r\n")[2])
    return found


def test_a_recording_is_the_same_from_its_file(tmp_path: Path) -> None:
    RECORDING.save(tmp_path / "recording.gz")
    assert load(tmp_path / "recording.gz") == RECORDING


@pytest.mark.parametrize("account", [BASE, OTHER, "999999999999"])
def test_the_length_is_right_for_every_account(account: str) -> None:
    head, _, body = replay().answer(request(VPCS.body, account=account), 0).partition(b"\r\n\r\n")
    assert f"\r\nContent-Length: {len(body)}".encode() in head
    assert account.encode() in body
    assert b"http://127.0.0.1:1/ \xff\x00" in body
    assert (b"vpc-026b9de2b5a251360" in body) == (account == BASE)


def test_a_head_has_the_length_of_what_is_not_sent() -> None:
    assert replay().answer(HEAD, 0) == b"HTTP/1.1 200 OK\r\nContent-Length: 77\r\n\r\n"


def test_what_is_asked_is_counted() -> None:
    server = replay()
    for body in (VPCS.body, VPCS.body, b"Action=DescribeHosts"):
        server.answer(request(body), 0)
    found = stats(server)
    assert found["calls"] == {"ec2:DescribeVpcs": 2}
    assert found["not_recorded"] == {"ec2:DescribeHosts": 1}
    server.answer(Request("POST", "/_replay/forget", body=b"{}"), 0)
    assert stats(server)["calls"] == {}


def test_limits_are_off_unless_asked_for() -> None:
    free, limited = replay(), replay(limit_scale=0.1)
    assert all(free.answer(VPCS, 0).startswith(b"HTTP/1.1 200") for _ in range(1000))
    answers = [limited.answer(VPCS, 0) for _ in range(6)]
    assert answers[5].startswith(b"HTTP/1.1 503")
    assert b"<Code>RequestLimitExceeded</Code>" in answers[5]
    assert limited.answer(request(VPCS.body, account=OTHER), 0).startswith(b"HTTP/1.1 200")
    assert stats(limited)["throttled"] == {"ec2:DescribeVpcs": 1}


def test_recordings_of_different_accounts_are_refused() -> None:
    with pytest.raises(ValueError, match="different accounts"):
        Replay([RECORDING, Recording(OTHER, {})], "127.0.0.1:1")


@pytest.mark.parametrize("account", ["000000000000", "000000000001", BASE, OTHER, "999999999999"])
def test_an_access_key_has_its_account_in_it(account: str) -> None:
    assert account_of_key(access_key(account)) == account


def test_dns_names_get_the_account_that_aws_would_make_them_unique_by() -> None:
    body = b"<a>front-001-0-1.us-east-1.elb.amazonaws.com</a> store-0.aaaaaaaaaa.us-east-1.rds.amazonaws.com"
    wanted = b"<a>front-001-0-1-1.us-east-1.elb.amazonaws.com</a> store-0.c1.us-east-1.rds.amazonaws.com"
    assert with_account_in_names(body, b"1") == wanted
