from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cartoray.errors import GraphRefused, GraphUnavailable
from ingestion.attempts import Attempts
from ingestion.recovery import (
    DELAY_S_MAX,
    UNREACHABLE,
    VALUE,
    Bisect,
    Decision,
    Failure,
    GiveUp,
    Halve,
    Retry,
    Wait,
    backoff_s,
    decide,
)
from ingestion.writer import Abandoned, WriteFailed

POOL = "Neo.TransientError.General.MemoryPoolOutOfMemoryError"
DEADLOCK = "Neo.TransientError.Transaction.DeadlockDetected"


def decision(code: str, *, attempt: int = 1, splittable: bool = True) -> Decision:
    return decide(Failure(code, "text"), attempt=attempt, retries_max=5, jitter=0.5, splittable=splittable)


@pytest.mark.parametrize(
    "code",
    [
        UNREACHABLE,
        "Neo.ClientError.Cluster.NotALeader",
        "Neo.TransientError.Database.DatabaseUnavailable",
        "Neo.ClientError.General.WriteOnReadOnlyAccessDatabase",
        "Neo.ClientError.General.ForbiddenOnReadOnlyDatabase",
        "Neo.TransientError.Cluster.ReplicationFailure",
    ],
)
@given(attempt=st.integers(1, 10_000))
def test_a_database_that_is_away_is_waited_for_and_nothing_is_refused(code: str, attempt: int) -> None:
    assert isinstance(decision(code, attempt=attempt), Wait)
    assert isinstance(decision(code, attempt=attempt, splittable=False), Wait)


@pytest.mark.parametrize(
    "code",
    [
        DEADLOCK,
        "Neo.ClientError.Statement.EntityNotFound",
        "Neo.ClientError.Transaction.LockClientStopped",
        "Neo.DatabaseError.Transaction.TransactionCommitFailed",
        "Neo.ClientError.Schema.IndexAlreadyExists",
    ],
)
def test_transient_errors_are_retried_and_in_the_end_the_member_gives_up(code: str) -> None:
    assert isinstance(decision(code, attempt=5), Retry)
    last = decision(code, attempt=6)
    assert isinstance(last, GiveUp)
    assert not last.refused
    assert "CARTORAY_INGESTION_RETRIES_MAX" in last.reason


@pytest.mark.parametrize(
    "code",
    [
        POOL,
        "Neo.TransientError.General.TransactionOutOfMemoryError",
        "Neo.ClientError.Transaction.TransactionTimedOut",
        "Neo.ClientError.Transaction.TransactionTimedOutClientConfiguration",
    ],
)
def test_what_is_too_large_is_halved_and_a_single_row_tried_again_before_it_is_refused(code: str) -> None:
    assert isinstance(decision(code), Halve)
    assert isinstance(decision(code, splittable=False), Retry)
    assert isinstance(decision(code, attempt=6, splittable=False), Bisect)


@pytest.mark.parametrize(
    "code", [VALUE, "Neo.ClientError.Statement.TypeError", "Neo.ClientError.Statement.SyntaxError"]
)
def test_data_errors_are_bisected_at_once(code: str) -> None:
    assert isinstance(decision(code), Bisect)


@pytest.mark.parametrize(
    "code", ["Neo.ClientError.Schema.ConstraintValidationFailed", "Neo.DatabaseError.Statement.ExecutionFailed"]
)
def test_errors_that_a_race_can_cause_are_tried_again_first(code: str) -> None:
    assert isinstance(decision(code, attempt=2), Retry)
    assert isinstance(decision(code, attempt=3), Bisect)


@pytest.mark.parametrize(
    ("code", "setting"),
    [
        ("Driver.Certificate", "CARTORAY_NEO4J_CA_LOCATION"),
        ("Neo.ClientError.Security.Unauthorized", "CARTORAY_NEO4J_PASSWORD"),
        ("Neo.ClientError.Database.DatabaseNotFound", "CARTORAY_NEO4J_DATABASE"),
    ],
)
def test_a_refusal_names_the_setting(code: str, setting: str) -> None:
    found = decision(code)
    assert isinstance(found, GiveUp)
    assert found.refused
    assert setting in found.reason


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_delays_grow_to_a_limit_and_are_never_nothing(attempt: int, jitter: float) -> None:
    assert 0 < backoff_s(attempt, jitter) <= DELAY_S_MAX
    assert backoff_s(attempt, jitter) <= 2 * backoff_s(attempt + 1, jitter)


class Script:
    """A transaction that fails with each code in turn, then succeeds; and the pauses it took."""

    def __init__(self, *codes: str) -> None:
        self.codes = list(codes)
        self.pauses: list[float] = []
        self.troubles: list[str] = []
        self.attempts = Attempts(2, self._pause, self.troubles.append, jitter=lambda: 0.5)

    def _pause(self, delay_s: float) -> bool:
        self.pauses.append(delay_s)
        return False

    def __call__(self) -> str:
        if self.codes:
            raise WriteFailed(Failure(self.codes.pop(0), "text"))
        return "done"


def test_waiting_takes_nothing_from_the_attempts_of_a_transaction() -> None:
    script = Script(*[UNREACHABLE] * 20, DEADLOCK, DEADLOCK)
    assert script.attempts.run(script, splittable=True) == "done"
    assert len(script.pauses) == 22
    assert script.pauses[19] == DELAY_S_MAX * 0.75
    assert script.troubles[-1] == ""


def test_giving_up_says_which_kind_of_trouble_it_is() -> None:
    script = Script(*[DEADLOCK] * 3)
    with pytest.raises(GraphUnavailable):
        script.attempts.run(script, splittable=True)
    script = Script("Neo.ClientError.Security.Forbidden")
    with pytest.raises(GraphRefused):
        script.attempts.run(script, splittable=True)


def test_splits_are_answered_and_a_stop_ends_the_wait() -> None:
    script = Script(POOL)
    assert isinstance(script.attempts.run(script, splittable=True), Halve)
    stopped = Attempts(2, lambda _: True)
    with pytest.raises(Abandoned):
        stopped.run(Script(UNREACHABLE), splittable=True)
