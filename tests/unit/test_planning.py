"""What is asked for becomes exactly the jobs that a person would expect, or one clear line."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from cartoray.errors import UnknownModule, UsageError
from cartoray.planning import Request, account, plan


@dataclass(frozen=True)
class Declared:
    name: str
    after: tuple[str, ...] = ()


KNOWN = {
    each.name: each
    for each in (
        Declared("ec2:volumes", ("account", "ec2:instance")),
        Declared("ec2:instance", ("account",)),
        Declared("account"),
        Declared("ec2:vpc", ("account",)),
    )
}
ACCOUNTS = (account("111111111111", "one"), account("222222222222"))


def test_jobs_are_accounts_times_modules_with_accounts_alternating() -> None:
    run, jobs = plan(Request(ACCOUNTS), KNOWN, now_ms=1_700_000_000_000, nonce="ab")
    assert run.jobs_total == len(jobs) == 8
    assert [job.account.id[0] for job in jobs] == ["1", "2"] * 4
    assert run.update_tag == 1_700_000_000
    assert run.run_id == "20231114T221320Z-ab"


def test_a_module_stands_behind_those_it_must_not_overtake() -> None:
    _, jobs = plan(Request(ACCOUNTS[:1]), KNOWN, now_ms=0, nonce="x")
    order = [job.module for job in jobs]
    assert order[0] == "account"
    assert order.index("ec2:instance") < order.index("ec2:volumes")


def test_a_job_waits_only_for_modules_that_are_in_the_run() -> None:
    _, jobs = plan(Request(ACCOUNTS[:1], modules=("ec2:volumes",)), KNOWN, now_ms=0, nonce="x")
    assert {job.module: job.after for job in jobs} == {"account": (), "ec2:volumes": ("account",)}


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (Request(()), "No account to sync"),
        (Request((ACCOUNTS[0], ACCOUNTS[0])), "111111111111 is given twice"),
        (Request(ACCOUNTS, regions=("us-east1",)), "'us-east1' is not a region"),
    ],
)
def test_what_cannot_be_is_refused(request_: Request, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        plan(request_, KNOWN, now_ms=0, nonce="x")


def test_an_unknown_module_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownModule, match=r"no module 'ec2:instances'\. Did you mean ec2:instance"):
        plan(Request(ACCOUNTS, modules=("ec2:instances",)), KNOWN, now_ms=0, nonce="x")


@pytest.mark.parametrize(
    "wrong", ["", "12345678901", "1234567890123", "arn:aws:iam::111111111111:root", "11111111111a"]
)
def test_an_account_id_has_twelve_digits(wrong: str) -> None:
    with pytest.raises(UsageError, match="12 digits"):
        account(wrong)
