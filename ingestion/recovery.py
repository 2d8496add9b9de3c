"""What a failed transaction means: driver error → what to do next, with a reason. No clock, no chance, no driver.

A database that is away, or has no leader, is waited for: it is never a reason to give a message up. Only an error that
the data itself causes sends a message to the dead letters, after bisecting found which one it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from cartoray.settings import variable

DELAY_S_MIN = 0.05  # a deadlock's other side needs some milliseconds
DELAY_S_MAX = 5.0  # a leader switch takes seconds; longer would only keep a healthy database waiting
ODD_TRIES = 2  # errors that a race can cause as well as data: tried again before they count as data errors

UNREACHABLE = "Driver.Unreachable"  # no connection, none left, or lost half-way
CERTIFICATE = "Driver.Certificate"  # the server's is not trusted
VALUE = "Driver.Value"  # a value that Bolt has no type for


class Kind(Enum):
    """What an error says about the database, us, or the data."""

    AWAY = "away"
    REFUSED = "refused"
    TOO_LARGE = "too large"
    TRANSIENT = "transient"
    ODD = "odd"  # a race can cause it as well as data
    DATA = "data"


_KINDS: tuple[tuple[str, Kind], ...] = (  # beginning of a code; the first that fits counts
    (UNREACHABLE, Kind.AWAY),
    (CERTIFICATE, Kind.REFUSED),
    ("Neo.TransientError.Database.DatabaseUnavailable", Kind.AWAY),
    ("Neo.TransientError.General.DatabaseUnavailable", Kind.AWAY),
    ("Neo.TransientError.Cluster.", Kind.AWAY),
    ("Neo.ClientError.Cluster.", Kind.AWAY),  # not a leader (any more)
    ("Neo.ClientError.General.ForbiddenOnReadOnlyDatabase", Kind.AWAY),
    ("Neo.ClientError.General.WriteOnReadOnlyAccessDatabase", Kind.AWAY),
    ("Neo.ClientError.Security.AuthenticationRateLimit", Kind.AWAY),
    ("Neo.ClientError.Security.AuthorizationExpired", Kind.AWAY),
    ("Neo.ClientError.Security.", Kind.REFUSED),
    ("Neo.ClientError.Database.", Kind.REFUSED),
    ("Neo.TransientError.General.MemoryPoolOutOfMemoryError", Kind.TOO_LARGE),
    ("Neo.TransientError.General.TransactionOutOfMemoryError", Kind.TOO_LARGE),
    ("Neo.TransientError.General.OutOfMemoryError", Kind.TOO_LARGE),
    ("Neo.TransientError.General.StackOverFlowError", Kind.TOO_LARGE),
    ("Neo.ClientError.Transaction.TransactionTimedOut", Kind.TOO_LARGE),  # and TransactionTimedOutClientConfiguration
    ("Neo.ClientError.Statement.EntityNotFound", Kind.TRANSIENT),  # a cleanup deleted it while it was being written
    ("Neo.ClientError.Transaction.", Kind.TRANSIENT),
    ("Neo.TransientError.", Kind.TRANSIENT),
    ("Neo.ClientError.Schema.ConstraintValidationFailed", Kind.ODD),
    ("Neo.DatabaseError.Statement.", Kind.ODD),
    ("Neo.ClientError.Schema.", Kind.TRANSIENT),  # of making indexes; no data is at fault
    ("Neo.DatabaseError.", Kind.TRANSIENT),  # a full disk, say: data must not be given up for it
)


@dataclass(frozen=True)
class Failure:
    """What the driver or the server said. `code` is Neo4j's, or one of the three above."""

    code: str
    text: str


@dataclass(frozen=True)
class Retry:
    """The same again after a delay."""

    delay_s: float
    reason: str


@dataclass(frozen=True)
class Wait:
    """The same again after `backoff_s` of the waits so far, as often as needed: the database is away."""

    reason: str


@dataclass(frozen=True)
class Halve:
    """Too much for one transaction: in two."""

    reason: str


@dataclass(frozen=True)
class Bisect:
    """The data is at fault: in two, until it is a single message; that one is refused."""

    reason: str


@dataclass(frozen=True)
class GiveUp:
    """Nothing that is written here can succeed. `refused`: Neo4j refuses us, rather than being in trouble itself."""

    reason: str
    refused: bool


Decision = Retry | Wait | Halve | Bisect | GiveUp


def decide(failure: Failure, *, attempt: int, retries_max: int, jitter: float, splittable: bool) -> Decision:
    """What to do after the `attempt`-th failure (from 1) of the same transaction.

    `jitter` is a random number of [0, 1) that keeps siblings from colliding again; `splittable`: it has two rows.
    """
    reason = f"{failure.code}: {failure.text}"
    tries_max = retries_max
    match kind_of(failure.code):
        case Kind.AWAY:
            return Wait(reason)
        case Kind.REFUSED:
            return GiveUp(_remedy(failure), refused=True)
        case Kind.TOO_LARGE if splittable:
            return Halve(reason)
        case Kind.TRANSIENT if attempt > retries_max:
            setting = variable("ingestion", "retries_max")
            return GiveUp(f"A transaction failed {attempt} times ({setting}), last with {reason}", refused=False)
        case Kind.TOO_LARGE | Kind.TRANSIENT:
            pass  # a single row too large: the pool may be full of other transactions, so it is not yet the row's fault
        case Kind.ODD:
            tries_max = min(ODD_TRIES, retries_max)
        case Kind.DATA:
            tries_max = 0
    return Retry(backoff_s(attempt, jitter), reason) if attempt <= tries_max else Bisect(reason)


def kind_of(code: str) -> Kind:
    return next((kind for beginning, kind in _KINDS if code.startswith(beginning)), Kind.DATA)


def backoff_s(attempt: int, jitter: float) -> float:
    """Doubles with each attempt up to a limit; between half and all of that."""
    full = min(DELAY_S_MAX, DELAY_S_MIN * 2.0 ** min(attempt - 1, 20))
    return full * (0.5 + 0.5 * jitter)


def _remedy(failure: Failure) -> str:
    if failure.code == CERTIFICATE:
        return (
            f"Neo4j's certificate is not trusted ({failure.text}). Set {variable('neo4j', 'ca_location')} to the "
            f"authorities that signed it, and {variable('neo4j', 'uri')} to the name that it is for."
        )
    if failure.code.startswith("Neo.ClientError.Database."):
        return (
            f"Neo4j has no such database ({failure.text}). Set {variable('neo4j', 'database')} to one it has, "
            "or create it."
        )
    return (
        f"Neo4j refuses the login or its rights ({failure.text}). Set {variable('neo4j', 'user')} and "
        f"{variable('neo4j', 'password')} to a user that may read, write and create indexes."
    )
