"""Calls come as fast as AWS gives them, and slower after it said no."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.aws.rates import LIMITS, Bucket, Limit, limit_of


def test_a_burst_goes_at_once_and_what_follows_at_the_rate() -> None:
    bucket = Bucket(Limit(per_s=10, burst=5), 0.0)
    assert [bucket.take(0.0) for _ in range(7)] == pytest.approx([0, 0, 0, 0, 0, 0.1, 0.1])
    assert [bucket.take(0.101) for _ in range(2)] == pytest.approx([0, 0.099])


def test_tokens_come_back_up_to_the_burst() -> None:
    bucket = Bucket(Limit(per_s=10, burst=5), 0.0)
    for _ in range(5):
        bucket.take(0.0)
    assert [bucket.take(100.0) for _ in range(6)] == pytest.approx([0, 0, 0, 0, 0, 0.1])


def test_a_throttled_call_slows_down_all_that_follow_and_time_makes_up_for_it() -> None:
    bucket = Bucket(Limit(per_s=10, burst=5), 0.0)
    bucket.throttled(0.0, 1.0)
    assert bucket.rate == pytest.approx(7)
    assert bucket.take(1.0) > 0
    assert bucket.take(70.0) == 0
    assert bucket.rate == 10


def test_calls_that_were_under_way_together_slow_down_once() -> None:
    bucket = Bucket(Limit(per_s=10, burst=5), 0.0)
    for _ in range(50):
        bucket.throttled(0.5, 1.0)
    assert bucket.rate == pytest.approx(7)


def test_it_never_stands_still() -> None:
    bucket = Bucket(Limit(per_s=10, burst=5), 0.0)
    for number in range(100):
        bucket.throttled(number, number + 0.1)
    assert bucket.rate >= 0.5


def test_a_share_is_what_is_left_to_the_account_itself() -> None:
    assert limit_of("ec2", 0.5) == Limit(LIMITS["ec2"].per_s / 2, LIMITS["ec2"].burst / 2)
    assert limit_of("ec2", 0.001).burst == 1


@settings(deadline=None, max_examples=30)
@given(
    true_rate=st.floats(2, 20),
    true_burst=st.integers(5, 50),
    calls=st.integers(50, 300),
    latency_s=st.floats(0.02, 0.3),
)
def test_behind_a_smaller_bucket_than_is_known_calls_pass_nearly_as_fast_as_it_lets_them(
    true_rate: float, true_burst: int, calls: int, latency_s: float
) -> None:
    """Sixteen callers; AWS's bucket is an exact one; a call that it refuses is made again, until all have passed."""
    ours, tokens, seen_s, left, refused = Bucket(Limit(20, 50), 0.0), float(true_burst), 0.0, calls, 0
    callers = [(0.0, number) for number in range(16)]
    while left:
        now_s, number = heapq.heappop(callers)
        wait_s = ours.take(now_s)
        if not wait_s:
            wait_s = latency_s
            tokens, seen_s = min(true_burst, tokens + (now_s - seen_s) * true_rate), now_s
            if tokens >= 1:
                tokens, left = tokens - 1, left - 1
            else:
                refused += 1
                ours.throttled(now_s, now_s + latency_s)
        heapq.heappush(callers, (now_s + wait_s, number))
    least_s = max(0.0, (calls - true_burst) / true_rate)
    assert seen_s <= 1.3 * least_s + calls * latency_s / 16 + 5
    assert refused <= calls / 2
