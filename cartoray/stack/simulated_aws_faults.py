"""What goes wrong in the simulated AWS, and when: settings and decisions. Pure: chance and time are arguments."""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from pydantic import BaseModel, ConfigDict, Field

from cartoray.stack.simulated_aws_protocol import Call, Problem


class Selector(BaseModel):
    """Which calls are meant. Each field is a shell pattern: `*`, the default, is all, `ec2:Describe*` a family."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    account: str = "*"
    region: str = "*"
    action: str = "*"

    def selects(self, call: Call) -> bool:
        """Whether the call is one of those."""
        return (
            fnmatchcase(call.account, self.account)
            and fnmatchcase(call.region, self.region)
            and fnmatchcase(call.action, self.action)
        )


class Faults(BaseModel):
    """The faults in force. `POST /_cartoray/faults` changes the fields that it names and leaves the others."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    latency_ms: float = Field(default=0.0, ge=0)
    """From the arrival of a request to its answer, moto's own time included. AWS takes 50 to 300 ms."""
    throttle_rate: float = Field(default=0.0, ge=0, le=1)
    """The share of calls that are throttled by chance."""
    bucket_capacity: int = Field(default=0, ge=0)
    """Calls that an account may make at once to one operation of one region; 0 is without limit. EC2: 50 to 100."""
    bucket_refill_per_s: float = Field(default=10.0, gt=0)
    """How fast that bucket fills again. EC2: 10 to 20 for Describe calls."""
    error_rate: float = Field(default=0.0, ge=0, le=1)
    """The share of calls that end in a 500."""
    session_s: int = Field(default=3600, gt=0)
    """How long assumed credentials live. AWS allows no less than 900; a test of renewal wants seconds."""
    deny: tuple[Selector, ...] = ()
    opt_in_required: tuple[Selector, ...] = ()
    """Regions that an account has not enabled; `action` is of no account here."""
    hang: tuple[Selector, ...] = ()
    """Calls that get no answer until the faults change."""


def regions_not_enabled(faults: Faults, account: str, regions: Iterable[str]) -> tuple[str, ...]:
    """The regions of `regions` that the account has not opted into."""
    return tuple(
        region
        for region in regions
        if any(
            fnmatchcase(account, selector.account) and fnmatchcase(region, selector.region)
            for selector in faults.opt_in_required
        )
    )


def standing_problem(faults: Faults, call: Call, regions: tuple[str, ...]) -> Problem | None:
    """The refusal that a call meets every time, whatever the load; AWS checks the region before the policy.

    A region that the organization does not have is not enabled. us-east-1 always is: the global services sign for it.
    """
    known = call.region in (*regions, "us-east-1", "aws-global")
    if not known or regions_not_enabled(faults, call.account, (call.region,)):
        return Problem.REGION_NOT_ENABLED
    if any(selector.selects(call) for selector in faults.deny):
        return Problem.DENIED
    return None


def chance_problem(faults: Faults, draw: float) -> Problem | None:
    """What befalls a call for which `draw`, evenly spread over 0 to 1, came up."""
    if draw < faults.error_rate:
        return Problem.INTERNAL_ERROR
    if draw < faults.error_rate + faults.throttle_rate:
        return Problem.THROTTLED
    return None


@dataclass(slots=True)
class TokenBucket:
    """AWS's way to limit calls: each takes a token, and tokens come back at a steady rate up to the capacity."""

    capacity: float
    refill_per_s: float
    tokens: float
    updated_s: float

    def take(self, now_s: float) -> bool:
        """Whether there was a token; it is gone then."""
        self.tokens = min(self.capacity, self.tokens + (now_s - self.updated_s) * self.refill_per_s)
        self.updated_s = now_s
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True
