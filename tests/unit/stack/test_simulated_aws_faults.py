"""Which calls the simulated AWS refuses, and what it remembers of its answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cartoray.stack.simulated_aws import account_ids
from cartoray.stack.simulated_aws_faults import (
    Faults,
    Selector,
    TokenBucket,
    chance_problem,
    regions_not_enabled,
    standing_problem,
)
from cartoray.stack.simulated_aws_moto import AnswerCache, HttpRequest, query_call
from cartoray.stack.simulated_aws_protocol import Answer, Call, Problem

REGIONS = ("us-east-1", "eu-west-1")


def call(account: str = "111122223333", region: str = "eu-west-1", operation: str = "DescribeVpcs") -> Call:
    return Call("", account, region, "ec2", operation, "ec2")


def test_a_selector_means_all_calls_unless_it_says_otherwise() -> None:
    assert Selector().selects(call())
    assert Selector(account="111122223333", action="ec2:Describe*").selects(call())
    assert not Selector(account="111122223334").selects(call())
    assert not Selector(region="us-east-1").selects(call())


def test_a_mistyped_field_is_an_error() -> None:
    with pytest.raises(ValidationError):
        Faults.model_validate({"latency": 100})
    with pytest.raises(ValidationError):
        Faults.model_validate({"deny": [{"accounts": "111122223333"}]})


def test_a_region_that_is_not_enabled_wins_over_a_denied_call() -> None:
    faults = Faults(deny=(Selector(),), opt_in_required=(Selector(region="eu-west-1"),))
    assert standing_problem(faults, call(), REGIONS) is Problem.REGION_NOT_ENABLED
    assert standing_problem(faults, call(region="us-east-1"), REGIONS) is Problem.DENIED
    assert standing_problem(Faults(), call(), REGIONS) is None
    assert standing_problem(Faults(), call(region="ap-south-1"), REGIONS) is Problem.REGION_NOT_ENABLED


def test_a_region_is_enabled_account_by_account() -> None:
    faults = Faults(opt_in_required=(Selector(account="1", region="eu-*"),))
    assert regions_not_enabled(faults, "1", REGIONS) == ("eu-west-1",)
    assert regions_not_enabled(faults, "2", REGIONS) == ()


@given(st.floats(min_value=0, max_value=1, exclude_max=True))
def test_chance_follows_the_rates(draw: float) -> None:
    problem = chance_problem(Faults(error_rate=0.25, throttle_rate=0.5), draw)
    wanted = Problem.INTERNAL_ERROR if draw < 0.25 else Problem.THROTTLED if draw < 0.75 else None
    assert problem is wanted
    assert chance_problem(Faults(), draw) is None


@given(st.lists(st.floats(min_value=0, max_value=2), max_size=50))
def test_a_bucket_never_gives_more_than_capacity_and_refill(waits_s: list[float]) -> None:
    bucket, now_s, taken = TokenBucket(5, 2, 5, 0.0), 0.0, 0
    for wait_s in waits_s:
        now_s += wait_s
        taken += bucket.take(now_s)
        assert taken <= 5 + now_s * 2 + 1e-6


def test_an_emptied_bucket_fills_again() -> None:
    bucket = TokenBucket(1, 2, 1, 0.0)
    assert [bucket.take(now_s) for now_s in (0.0, 0.1, 0.6, 0.7)] == [True, False, True, False]


def test_a_bucket_that_was_left_alone_gives_no_more_than_its_capacity() -> None:
    bucket = TokenBucket(2, 2, 2, 0.0)
    assert [bucket.take(now_s) for now_s in (0.0, 0.0, 0.1, 0.6, 0.7)] == [True, True, False, True, False]
    assert [bucket.take(100.0) for _ in range(3)] == [True, True, False]


def test_accounts_are_distinct_and_start_with_the_management_account() -> None:
    ids = account_ids(7, 1000)
    assert len(set(ids)) == 1000
    assert all(len(account) == 12 and account.isdigit() for account in ids)
    assert ids[0] == "123456789012"
    assert ids == account_ids(7, 1000)
    assert not set(ids[1:]) & set(account_ids(8, 1000))


def answer(size: int) -> Answer:
    return Answer(200, (), b"x" * size)


def asked(account: str, operation: str, region: str = "eu-west-1", **parameters: str) -> tuple[Call, HttpRequest]:
    return query_call(account, region, "ec2", operation, parameters)


def keep(cache: AnswerCache, question: tuple[Call, HttpRequest], given: Answer) -> None:
    cache.put(question[0], cache.place(*question), given)


def test_a_change_in_one_account_forgets_only_its_answers() -> None:
    cache = AnswerCache(1000)
    mine, theirs = (asked(account, "DescribeVpcs") for account in "12")
    keep(cache, mine, answer(10))
    keep(cache, theirs, answer(10))
    keep(cache, asked("1", "RunInstances"), answer(10))
    assert cache.get(*mine) is None
    assert cache.get(*theirs) == answer(10)


def test_an_answer_that_a_change_has_overtaken_is_never_found() -> None:
    cache = AnswerCache(1000)
    question = asked("1", "DescribeVpcs")
    place = cache.place(*question)
    cache.forget("1")
    cache.put(question[0], place, answer(10))
    assert cache.get(*question) is None


def test_answers_differ_by_region_and_parameters_not_by_their_order() -> None:
    cache = AnswerCache(1000)
    keep(cache, asked("1", "DescribeVpcs", A="1", B="2"), answer(10))
    assert cache.get(*asked("1", "DescribeVpcs", B="2", A="1")) == answer(10)
    assert cache.get(*asked("1", "DescribeVpcs", A="1")) is None
    assert cache.get(*asked("1", "DescribeVpcs", "us-east-1", A="1", B="2")) is None


def test_the_memory_of_answers_is_bounded_and_an_error_is_not_remembered() -> None:
    cache = AnswerCache(100)
    for number in range(30):
        keep(cache, asked(str(number), "DescribeVpcs"), answer(10))
    assert len(cache) == 10
    assert cache.get(*asked("29", "DescribeVpcs")) == answer(10)
    denied = asked("1", "DescribeSubnets")
    keep(cache, denied, Answer(403, (), b""))
    assert cache.get(*denied) is None
