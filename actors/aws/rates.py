"""How fast an account's API may be called in a region: a token bucket that shrinks when AWS throttles. No clock.

AWS has a bucket per account, region and API, and the account's own software draws from the same one. So calls begin at
a share of what AWS gives (`aws.rate_share`), and never go beyond that.
"""

from __future__ import annotations

from dataclasses import dataclass

_DECREASE = 0.7  # of the rate, when a call was throttled
_RECOVERY_S = 60.0  # from nothing to the whole rate
_RATE_MIN = 0.5  # calls a second
_WAIT_S_MIN = 0.001  # less may be nothing when it is added to a clock


@dataclass(frozen=True)
class Limit:
    """Calls a second that AWS gives an account in a region, and how many at once after a while without any."""

    per_s: float
    burst: float


# EC2: "Request throttling for the Amazon EC2 API", non-mutating actions that are paginated or filtered. Lambda: "Lambda
# quotas", control plane. KMS: "Request quotas", the lowest of those in use. S3: its buckets' own are far above this.
# AWS tells none for the others.
LIMITS = {"ec2": Limit(20, 100), "lambda": Limit(15, 15), "kms": Limit(100, 100), "s3": Limit(200, 200)}
OTHERS = Limit(20, 40)


def limit_of(service: str, share: float) -> Limit:
    """`share` of the limit of a service, as botocore names it."""
    of = LIMITS.get(service, OTHERS)
    return Limit(of.per_s * share, max(1.0, of.burst * share))


class Bucket:
    """Of one account, region and service. Times are in seconds of one clock."""

    def __init__(self, limit: Limit, now_s: float) -> None:
        self._limit = limit
        self._rate = limit.per_s
        self._tokens = limit.burst
        self._seen_s = self._shrunk_s = now_s

    @property
    def rate(self) -> float:
        """Calls a second at present."""
        return self._rate

    def take(self, now_s: float) -> float:
        """0, and a call may be made; else it may not, and it is worth asking again after so many seconds."""
        self._refill(now_s)
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return max(_WAIT_S_MIN, (1 - self._tokens) / self._rate)

    def throttled(self, began_s: float, now_s: float) -> None:
        """A call that began at `began_s` was throttled. Calls from before the last decrease say nothing new."""
        if began_s < self._shrunk_s:
            return
        self._refill(now_s)
        self._shrunk_s = now_s
        self._rate = max(min(_RATE_MIN, self._limit.per_s), self._rate * _DECREASE)
        self._tokens = min(self._tokens, 0.0)  # AWS has none left either

    def _refill(self, now_s: float) -> None:
        elapsed_s = max(0.0, now_s - self._seen_s)
        self._seen_s = max(self._seen_s, now_s)
        self._tokens = min(self._limit.burst, self._tokens + elapsed_s * self._rate)
        self._rate = min(self._limit.per_s, self._rate + elapsed_s * self._limit.per_s / _RECOVERY_S)
