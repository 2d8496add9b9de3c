"""One account's text made another's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.replay.accounts import Account, Template

BASE, OTHER, THIRD = "100000100001", "111122223333", "444455556666"
IDS = [
    b"i-0123456789abcdef0",
    b"vpc-cidr-assoc-26e955a817e25d7fd",
    b"arn:aws:ec2:us-east-1:100000100001:subnet/subnet-1b9961e8994ade53a",
    b"arn:aws:kms:us-east-1:100000100001:key/9be1b4da-42f4-427c-a949-161ec06024a0",
    b"9be1b4da-42f4-427c-a949-161012345678",
    b"data-0-100000100001",
    b"front-001-0-1-100000100001.us-east-1.elb.amazonaws.com",
    b"store-0.c100000100001.us-east-1.rds.amazonaws.com",
    b"<RoleId>AROAROSDYN2Q3JDLFNQY3</RoleId>",
    b'"AccessKeyId": "AKIAROSDYN2QXQL3MIER"',
    b"<DbiResourceId>db-M5ENSHXFPU6XHZ4G4ZEI5QIO2U</DbiResourceId>",
    b"<PolicyId>AF973OHFXVO4FVTIW3TG4</PolicyId>",
    b"<UserId>hex6fvfvmwe85kf1p220</UserId>",
    b"<publicIp>54.214.122.24</publicIp>",
    b"ec2-54-214-122-24.compute-1.amazonaws.com",
]
SHARED = [
    b"ami-0123456789abcdef0",  # images belong to nobody
    b"arn:aws:iam::123456789012:root",
    b"1000001000012 of 13 digits",
    b"10.0.0.4 and 2026-07-23T07:59:52.000Z",
    b"bcaf1ffd86f41161ca5fb16fd081034f",
    b'<member>{"Version": "2012-10-17", "Statement": [{"Effect": "Allow"}]}</member>',
    b"",
]


def rendered(text: bytes, number: str) -> bytes:
    return Template(BASE, text).render(Account(BASE, number))


@pytest.mark.parametrize("text", IDS)
def test_what_aws_gives_out_once_differs_between_accounts_and_turns_back(text: bytes) -> None:
    texts = {rendered(text, number) for number in (BASE, OTHER, THIRD)}
    assert len(texts) == 3
    for number in (BASE, OTHER, THIRD):
        assert Account(BASE, number).to_base(rendered(text, number)) == text


@pytest.mark.parametrize("text", SHARED)
def test_what_accounts_share_stays(text: bytes) -> None:
    assert rendered(text, OTHER) == text
    assert Account(BASE, OTHER).to_base(text) == text


def test_the_base_account_is_itself() -> None:
    text = b" ".join(IDS + SHARED)
    assert rendered(text, BASE) == text
    assert Account(BASE, BASE).to_base(text) == text


def test_an_id_is_the_same_wherever_it_stands() -> None:
    there = rendered(b"i-0123456789abcdef0 <item>i-0123456789abcdef0</item> vol-0123456789abcdef0", OTHER)
    digits = there[2:19]
    assert there.count(digits) == 3
    assert digits == rendered(b"vol-0123456789abcdef0", OTHER)[4:]


def test_another_account_than_the_caller_s_is_left_in_a_request() -> None:
    assert Account(BASE, OTHER).to_base(THIRD.encode()) == THIRD.encode()
    assert Account(BASE, OTHER).to_base(OTHER.encode()) == BASE.encode()


@given(st.lists(st.sampled_from(IDS + SHARED)), st.integers(min_value=1, max_value=999_999_999_999))
def test_any_text_of_any_account_turns_back(texts: list[bytes], number: int) -> None:
    text = b"\n".join(texts)
    account = Account(BASE, f"{number:012}")
    assert account.to_base(Template(BASE, text).render(account)) == text


@given(st.sets(st.integers(min_value=0, max_value=999_999_999_999), min_size=2, max_size=50))
def test_no_two_accounts_share_an_id(numbers: set[int]) -> None:
    found = {rendered(b"i-0123456789abcdef0", f"{number:012}") for number in numbers}
    assert len(found) == len(numbers)
