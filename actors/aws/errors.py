"""What an answer of AWS means: error code and status → what to do next. No client, no clock, no chance.

Codes are those of the services' API references; botocore's own table of throttling codes
(`botocore.retries.standard`) is a part of it.
"""

from __future__ import annotations

from enum import Enum

DELAY_S_MIN = 0.5  # EC2 gives back 10 to 20 tokens a second: earlier there is hardly one
DELAY_S_MAX = 20.0
_MESSAGE_MAX = 300


class Kind(Enum):
    """What an error says about AWS, the credentials, or the call."""

    THROTTLED = "throttled"
    FAILED = "failed"  # a fault of the service or of the way to it
    EXPIRED = "expired"
    UNKNOWN_HERE = "unknown here"  # valid elsewhere perhaps: what a region that was not opted into answers
    DENIED = "denied"
    REFUSED = "refused"


RETRIED = frozenset({Kind.THROTTLED, Kind.FAILED})

_CODES = {
    Kind.THROTTLED: """BandwidthLimitExceeded EC2ThrottledException LimitExceededException PriorRequestNotComplete
        ProvisionedThroughputExceededException RequestLimitExceeded RequestThrottled RequestThrottledException SlowDown
        ThrottledException Throttling ThrottlingException TooManyRequestsException TransactionInProgressException""",
    Kind.FAILED: """InternalError InternalFailure InternalServerError InternalServerErrorException InternalServiceError
        RequestTimeout RequestTimeoutException ServiceUnavailable Unavailable""",
    Kind.EXPIRED: "ExpiredToken ExpiredTokenException RequestExpired TokenRefreshRequired",
    Kind.UNKNOWN_HERE: """AuthFailure InvalidClientTokenId InvalidToken OptInRequired RegionDisabledException
        UnrecognizedClientException""",
    Kind.DENIED: """AccessDenied AccessDeniedException AuthorizationError AuthorizationErrorException Blocked
        UnauthorizedAccess UnauthorizedOperation""",
}
_KINDS = {code: kind for kind, codes in _CODES.items() for code in codes.split()}


def kind_of(code: str, status: int) -> Kind:
    """The kind of an error answer: by its code if that is known, else by its HTTP status."""
    known = _KINDS.get(code.removeprefix("Client."))
    if known is not None:
        return known
    return Kind.FAILED if status >= 500 else Kind.THROTTLED if status == 429 else Kind.REFUSED


def backoff_s(attempt: int, jitter: float) -> float:
    """How long to wait after the `attempt`-th failure (from 1): anything between nothing and twice the last limit.

    `jitter` is a random number of [0, 1). Full jitter spreads the callers of one bucket best (AWS Architecture Blog,
    "Exponential Backoff And Jitter").
    """
    return jitter * min(DELAY_S_MAX, DELAY_S_MIN * 2.0 ** min(attempt, 20))


def said(code: str, message: str) -> str:
    """Code and message for people, on one line and without AWS's encoded details. Messages of AWS name who and what.

    Of an answer about signatures only the code: its message repeats what was signed.
    """
    if "signature" in code.lower():
        return code
    text = " ".join(message.partition("Encoded authorization failure message")[0].split()).strip()
    return f"{code}: {text[:_MESSAGE_MAX]}" if text else code
