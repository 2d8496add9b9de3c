"""What a failed transaction means: driver error → what to do next, with a reason. No clock, no chance, no driver.

A database that is away, or has no leader, is waited for: it is never a reason to give a message up. Only an error that
the data itself causes sends a message to the dead letters, after bisecting found which one it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from cartoray.settings import variable

DELAY_S_MIN = 0.05  # a deadlock's other side needs some milliseconds
DELAY_S_MAX = 5.0  # a leader switch takes seconds; longer would only keep a healthy database waiting
ODD_TRIES = 3  # errors that a race can cause as well as data: tried again before they count as data errors

UNREACHABLE = "Driver.Unreachable"  # no connection, none left, or lost half-way
VALUE = "Driver.Value"  # a value that Bolt has no type for

_AWAY = (
    UNREACHABLE,
    "Neo.TransientError.Database.DatabaseUnavailable",
    "Neo.TransientError.General.DatabaseUnavailable",
    "Neo.ClientError.Cluster.",  # not a leader (any more)
    "Neo.TransientError.Cluster.",
    "Neo.ClientError.General.ForbiddenOnReadOnlyDatabase",
    "Neo.ClientError.General.WriteOnReadOnlyAccessDatabase",
    "Neo.ClientError.Security.AuthenticationRateLimit",
    "Neo.ClientError.Security.AuthorizationExpired",
)
_TOO_LARGE = (
    "Neo.TransientError.General.MemoryPoolOutOfMemoryError",
    "Neo.TransientError.General.TransactionOutOfMemoryError",
    "Neo.TransientError.General.OutOfMemoryError",
    "Neo.TransientError.General.StackOverFlowError",
    "Neo.ClientError.Transaction.TransactionTimedOut",  # and TransactionTimedOutClientConfiguration
)
_REFUSED = ("Neo.ClientError.Security.", "Neo.ClientError.Database.")
_TRANSIENT = (
    "Neo.TransientError.",
    "Neo.ClientError.Statement.EntityNotFound",  # deleted by a cleanup while it was being written
    "Neo.ClientError.Transaction.",
)
_ODD = ("Neo.ClientError.Schema.", "Neo.DatabaseError.")


@dataclass(frozen=True)
class Failure:
    """What the driver or the server said. `code` is Neo4j's, or one of the two above."""

    code: str
    text: str


@dataclass(frozen=True)
class Retry:
    """The same again after a delay."""

    delay_s: float
    reason: str


@dataclass(frozen=True)
class Wait:
    """The same again after a delay, as often as needed: the database is away."""

    delay_s: float
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
    code, reason = failure.code, f"{failure.code}: {failure.text}"
    delay_s = backoff_s(attempt, jitter)
    if code.startswith(_AWAY):
        return Wait(delay_s, reason)
    if code.startswith(_REFUSED):
        return GiveUp(_remedy(failure), refused=True)
    if code.startswith(_TOO_LARGE):
        if splittable:
            return Halve(reason)
        # a single row: the pool may be full of other transactions, so this is not yet the row's fault
        return Retry(delay_s, reason) if attempt <= retries_max else Bisect(reason)
    if code.startswith(_TRANSIENT):
        if attempt <= retries_max:
            return Retry(delay_s, reason)
        return GiveUp(
            f"A transaction failed {attempt} times ({variable('ingestion', 'retries_max')}), last with {reason}",
            refused=False,
        )
    if code.startswith(_ODD) and attempt < ODD_TRIES:
        return Retry(delay_s, reason)
    return Bisect(reason)


def backoff_s(attempt: int, jitter: float) -> float:
    """Doubles with each attempt up to a limit; between half and all of that."""
    full = min(DELAY_S_MAX, DELAY_S_MIN * 2.0 ** min(attempt - 1, 20))
    return full * (0.5 + 0.5 * jitter)


def _remedy(failure: Failure) -> str:
    if failure.code.startswith("Neo.ClientError.Database."):
        return (
            f"Neo4j has no such database ({failure.text}). Set {variable('neo4j', 'database')} to one it has, "
            "or create it."
        )
    return (
        f"Neo4j refuses the login or its rights ({failure.text}). Set {variable('neo4j', 'user')} and "
        f"{variable('neo4j', 'password')} to a user that may read, write and create indexes."
    )
