"""How many calls AWS takes: a token bucket for each account, region and API. Pure: time is an argument.

Of EC2, Lambda and KMS as AWS documents it, the rest assumed, since AWS does not say:
https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html
https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
https://docs.aws.amazon.com/kms/latest/developerguide/requests-per-second.html
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from cartoray.stack.simulated_aws_faults import TokenBucket
from cartoray.stack.simulated_aws_protocol import READS, Call


@dataclass(frozen=True)
class Limit:
    """Of one API; if `shared`, of all APIs of the service that have no limit of their own."""

    capacity: float
    refill_per_s: float
    shared: bool = False


LIMITS = {
    "ec2": Limit(100, 20),
    "ec2 unfiltered": Limit(50, 10),  # neither a filter nor a page size
    "ec2 changing": Limit(50, 5),
    "lambda": Limit(15, 15, shared=True),
    "lambda:GetFunction": Limit(100, 100),
    "lambda:GetPolicy": Limit(15, 15),
    "kms": Limit(100, 100),
    "kms:DescribeKey": Limit(2000, 2000),
    "kms:GetKeyPolicy": Limit(1000, 1000),
    "kms:GetKeyRotationStatus": Limit(1000, 1000),
    "kms:ListAliases": Limit(500, 500),
    "kms:ListKeys": Limit(500, 500),
    "kms:ListResourceTags": Limit(2000, 2000),
    "iam": Limit(40, 20),
    "s3": Limit(200, 100),
    "": Limit(40, 10),  # of any other service
}


class Limits:
    """All buckets, each full at first. `scale`: 2 allows twice as much as AWS does."""

    def __init__(self, scale: float) -> None:
        self._scale = scale
        self._buckets: dict[tuple[str, str, str], TokenBucket] = {}
        self._allowed: Counter[tuple[str, str, str]] = Counter()

    @property
    def least_s(self) -> float:
        """Seconds that the calls which were allowed take at least, however they are spread."""
        return max(
            (
                (self._allowed[place] - bucket.capacity) / bucket.refill_per_s
                for place, bucket in self._buckets.items()
                if self._allowed[place] > bucket.capacity
            ),
            default=0.0,
        )

    def allow(self, call: Call, operation: str, now_s: float) -> bool:
        """Whether AWS would answer the call now; `operation` as IAM names it."""
        name, limit = _limit(call, operation)
        place = (call.account, call.region, name)
        bucket = self._buckets.get(place)
        if bucket is None:
            capacity = max(1.0, limit.capacity * self._scale)
            bucket = TokenBucket(capacity, limit.refill_per_s * self._scale, capacity, now_s)
            self._buckets[place] = bucket
        taken = bucket.take(now_s)
        self._allowed[place] += taken
        return taken


def _limit(call: Call, operation: str) -> tuple[str, Limit]:
    """Which bucket the call takes from, and how large that is."""
    if operation in LIMITS:
        return operation, LIMITS[operation]
    if call.service == "ec2":
        if not call.operation.startswith(READS):
            return operation, LIMITS["ec2 changing"]
        if not call.parameters.keys() - {"Action", "Version"}:
            return f"{operation} unfiltered", LIMITS["ec2 unfiltered"]
    limit = LIMITS.get(call.service, LIMITS[""])
    return call.service if limit.shared else operation, limit
