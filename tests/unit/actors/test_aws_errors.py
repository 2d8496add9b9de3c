from __future__ import annotations

import pytest
from botocore.retries.standard import ThrottledRetryableChecker, TransientRetryableChecker
from hypothesis import given
from hypothesis import strategies as st

from actors.aws.errors import DELAY_S_MAX, DELAY_S_MIN, RETRIED, Kind, backoff_s, kind_of, said

ENCODED = "Encoded authorization failure message: 4-GIOHlTkIaWHQ"


@pytest.mark.parametrize("code", ThrottledRetryableChecker._THROTTLED_ERROR_CODES)
def test_what_botocore_calls_throttling_is_throttling(code: str) -> None:
    assert kind_of(code, 400) is Kind.THROTTLED


@pytest.mark.parametrize("code", TransientRetryableChecker._TRANSIENT_ERROR_CODES)
def test_what_botocore_calls_transient_is_tried_again(code: str) -> None:
    assert kind_of(code, 400) in RETRIED


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("RequestLimitExceeded", 503, Kind.THROTTLED),
        ("Client.RequestLimitExceeded", 503, Kind.THROTTLED),
        ("Throttling", 400, Kind.THROTTLED),
        ("InternalError", 500, Kind.FAILED),
        ("Unavailable", 503, Kind.FAILED),
        ("RequestExpired", 400, Kind.EXPIRED),
        ("ExpiredToken", 403, Kind.EXPIRED),
        ("ExpiredTokenException", 400, Kind.EXPIRED),
        ("AuthFailure", 401, Kind.UNKNOWN_HERE),
        ("InvalidClientTokenId", 403, Kind.UNKNOWN_HERE),
        ("UnrecognizedClientException", 400, Kind.UNKNOWN_HERE),
        ("OptInRequired", 403, Kind.UNKNOWN_HERE),
        ("UnauthorizedOperation", 403, Kind.DENIED),
        ("Client.UnauthorizedOperation", 403, Kind.DENIED),
        ("AccessDenied", 403, Kind.DENIED),
        ("AccessDeniedException", 400, Kind.DENIED),
        ("InvalidParameterValue", 400, Kind.REFUSED),
        ("SignatureDoesNotMatch", 403, Kind.REFUSED),
    ],
)
def test_a_code_says_what_to_do_next(code: str, status: int, kind: Kind) -> None:
    assert kind_of(code, status) is kind


@pytest.mark.parametrize(
    ("status", "kind"),
    [(500, Kind.FAILED), (503, Kind.FAILED), (599, Kind.FAILED), (429, Kind.THROTTLED), (400, Kind.REFUSED)],
)
def test_of_a_code_that_nobody_knows_the_status_decides(status: int, kind: Kind) -> None:
    assert kind_of("SomethingNew", status) is kind
    assert kind_of("502", status) is kind  # what botocore makes of an answer without a code


def test_a_known_code_counts_more_than_its_status() -> None:
    assert kind_of("RequestLimitExceeded", 400) is kind_of("RequestLimitExceeded", 503) is Kind.THROTTLED
    assert kind_of("AuthFailure", 500) is Kind.UNKNOWN_HERE


def test_what_repeating_does_not_change_is_not_repeated() -> None:
    assert {Kind.THROTTLED, Kind.FAILED} == RETRIED


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_the_wait_is_never_negative_nor_longer_than_its_limit(attempt: int, jitter: float) -> None:
    delay_s = backoff_s(attempt, jitter)
    assert 0 <= delay_s <= DELAY_S_MAX
    assert delay_s <= DELAY_S_MIN * 2.0 ** min(attempt, 100)


@given(st.integers(1, 100), st.floats(0.01, 1, exclude_max=True))
def test_the_wait_grows_up_to_twofold_with_every_attempt(attempt: int, jitter: float) -> None:
    earlier, later = backoff_s(attempt, jitter), backoff_s(attempt + 1, jitter)
    assert earlier <= later <= 2 * earlier * (1 + 1e-9)


def test_the_wait_is_spread_over_all_of_its_range() -> None:
    assert backoff_s(3, 0) == 0
    assert backoff_s(3, 0.5) == backoff_s(3, 0.25) * 2 > 0
    assert backoff_s(50, 0.999) > 0.99 * DELAY_S_MAX


def test_an_answer_is_told_by_its_code_and_its_message() -> None:
    message = "User: arn:aws:iam::1:user/x is not authorized to perform: ec2:DescribeVpcs"
    assert said("UnauthorizedOperation", message) == f"UnauthorizedOperation: {message}"
    assert said("Throttling", "") == said("Throttling", " \n ") == "Throttling"


def test_what_aws_encodes_for_its_own_decoder_is_left_out() -> None:
    assert said("UnauthorizedOperation", f"You are not authorized.\n {ENCODED}") == (
        "UnauthorizedOperation: You are not authorized."
    )
    assert said("UnauthorizedOperation", ENCODED) == "UnauthorizedOperation"


def test_a_long_answer_is_cut() -> None:
    assert said("Code", "x" * 1_000) == f"Code: {'x' * 300}"


@given(st.text(max_size=600), st.booleans())
def test_whatever_aws_says_is_one_short_line(message: str, encoded: bool) -> None:  # noqa: FBT001
    text = said("Code", f"{message}{ENCODED}" if encoded else message)
    assert len(text.splitlines()) == 1
    assert len(text) <= 310
    assert "GIOHlTkIaWHQ" not in text


@pytest.mark.parametrize(
    "code",
    [
        "SignatureDoesNotMatch",
        "IncompleteSignature",
        # what the services of the JSON protocols (Organizations is one) call the same
        "InvalidSignatureException",
        "IncompleteSignatureException",
    ],
)
def test_of_an_answer_about_signatures_only_the_code_is_told(code: str) -> None:
    message = (
        "The Canonical String for this request should have been 'POST / host:sts.amazonaws.com "
        "x-amz-security-token:IQoJb3JpZ2luX2VjEXAMPLE'"
    )
    assert said(code, message) == code
