"""What is asked for becomes exactly the jobs that a person would expect, or one clear line."""

from __future__ import annotations

from graphlib import CycleError

import pytest
from support.declared import Declared

from cartoray.errors import UnknownModule, UsageError
from cartoray.planning import Request, account, instance, plan, unmet

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


MIXED = {
    each.name: each
    for each in (
        Declared("account"),
        Declared("ec2:instance", ("account",), cleans=True),
        Declared("ec2:vpc", ("account",), cleans=True),
        Declared("network", ("account", "ec2:instance"), needs=("balancer",)),
        Declared("balancer", ("account",), needs=("ec2:instance",), wrapped=True),
        Declared("tags", ("account",), needs=("balancer", "ec2:vpc"), wrapped=True, late=True),
        Declared("analysis:a", ("account",), needs=("balancer",), wrapped=True, once=True),
        Declared("analysis:b", ("account",), needs=("tags", "analysis:a"), wrapped=True, once=True),
    )
}


def test_jobs_that_need_others_are_held_and_the_rest_is_published() -> None:
    run, jobs = plan(Request(ACCOUNTS), MIXED, now_ms=0, nonce="x")
    assert [job.module for job in jobs[::2]] == ["account", "ec2:instance", "ec2:vpc"]
    assert run.jobs_total == 6 * 2 + 2
    assert run.needs["network"] == ("balancer",)
    assert run.after["network"] == ("account", "ec2:instance")  # between native modules the order of data is enough
    assert run.needs["balancer"] == ("account", "ec2:instance")
    assert (run.late, run.once) == (("tags",), ("analysis:a", "analysis:b"))
    assert set(run.cleaned) == {"ec2:instance", "ec2:vpc"}  # tags reads VPCs: none that is stale
    assert {job.module for job in run.jobs() if job.wrapped} == {"balancer", "tags", "analysis:a", "analysis:b"}
    assert all(len(job.accounts) == 2 for job in run.jobs() if job.account.id == "all")


def test_a_scope_leaves_out_what_is_not_asked_for_and_says_what_is_read_from_there() -> None:
    run, jobs = plan(Request(ACCOUNTS[:1], modules=("tags",)), MIXED, now_ms=0, nonce="x")
    assert run.modules == ("account", "tags")
    assert run.needs == {"tags": ("account",)}
    assert [job.module for job in jobs] == ["account"]
    assert unmet(run, MIXED) == {"tags": ("balancer", "ec2:vpc")}


def test_nodes_are_touched_in_runs_with_modules_whose_cleanups_look_at_when_they_were() -> None:
    run, _ = plan(Request(ACCOUNTS[:1], modules=("native",), touch="lazy"), KNOWN, now_ms=0, nonce="x")
    assert {job.touch for job in run.jobs()} == {"lazy"}
    run, _ = plan(Request(ACCOUNTS[:1], modules=("tags",), touch="lazy"), MIXED, now_ms=0, nonce="x")
    assert {job.touch for job in run.jobs()} == {"always"}


def test_native_and_analysis_stand_for_all_such_modules() -> None:
    run, _ = plan(Request(ACCOUNTS[:1], modules=("native",)), MIXED, now_ms=0, nonce="x")
    assert set(run.modules) == {"account", "ec2:instance", "ec2:vpc", "network"}
    run, _ = plan(Request(ACCOUNTS[:1], modules=("balancer", "analysis")), MIXED, now_ms=0, nonce="x")
    assert run.once == ("analysis:a",)  # the other reads tags, which are not in the scope


def test_modules_that_wait_for_each_other_cannot_be_planned() -> None:
    circle = {
        "a": Declared("a", needs=("b",), wrapped=True),
        "b": Declared("b", needs=("a",), wrapped=True),
    }
    with pytest.raises(CycleError):
        plan(Request(ACCOUNTS), circle, now_ms=0, nonce="x")


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (Request(()), "No account to sync"),
        (Request((ACCOUNTS[0], ACCOUNTS[0])), "111111111111 is given twice"),
        (Request(ACCOUNTS, regions=("us-east1",)), "'us-east1' is not a region"),
        (Request((instance("all"),)), "'all' stands for all of a run"),
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


def test_what_does_the_rest_of_a_module_is_in_a_run_that_names_it() -> None:
    rest = Declared("analysis:rest", ("account",), needs=("iam",), wrapped=True, late=True)
    known = {**KNOWN, "iam": Declared("iam", ("account",), brings=("analysis:rest",)), "analysis:rest": rest}
    assert plan(Request(ACCOUNTS, modules=("iam",)), known, now_ms=0, nonce="x")[0].late == ("analysis:rest",)
    assert plan(Request(ACCOUNTS, modules=("native",)), known, now_ms=0, nonce="x")[0].late == ()
    del known["analysis:rest"]
    assert plan(Request(ACCOUNTS, modules=("iam",)), known, now_ms=0, nonce="x")[0].late == ()


def test_priority_is_that_of_every_job() -> None:
    run, jobs = plan(Request(ACCOUNTS, priority="high"), KNOWN, now_ms=0, nonce="x")
    assert run.priority == "high"
    assert {job.priority for job in jobs} == {"high"}
