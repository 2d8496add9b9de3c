"""No message is given up for what the database is to blame for, and none is tried for ever for a fault of its own."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from cartoray.errors import GraphRefused, GraphUnavailable
from ingestion.attempts import Attempts
from ingestion.recovery import ODD_TRIES, UNREACHABLE, VALUE, Bisect, Failure, Halve, Kind, kind_of
from ingestion.writer import Abandoned, WriteFailed

CODES = (
    *(UNREACHABLE, VALUE, "Neo.TransientError.Transaction.DeadlockDetected", "Neo.ClientError.Cluster.NotALeader"),
    *("Neo.TransientError.General.MemoryPoolOutOfMemoryError", "Neo.ClientError.Statement.SyntaxError"),
    *("Neo.ClientError.Schema.ConstraintValidationFailed", "Neo.DatabaseError.General.UnknownError"),
)
RETRIES_MAX = 3
TIRED = 40  # pauses, after which the model wants the batch no longer


class Batch(RuleBasedStateMachine):
    """A batch that is written, halved and bisected as `Landing.rows` does it, on a database that fails as it likes.

    Some of its messages are poison: alone, or with others, they fail as data. Everything else is the database's.
    """

    @initialize(messages=st.integers(1, 9), poison=st.sets(st.integers(0, 8), max_size=3))
    def begins(self, messages: int, poison: set[int]) -> None:
        self.poison = {each for each in poison if each < messages}
        self.pending: list[list[int]] = [list(range(messages))]
        self.written: list[int] = []
        self.refused: list[int] = []
        self.troubles: list[str] = []
        self.over = False

    @precondition(lambda self: not self.pending or self.over)
    @rule(more=st.integers(1, 5))
    def the_next_member_goes_on(self, more: int) -> None:
        self.over = False
        if not self.pending:
            first = len(self.written) + len(self.refused)
            self.pending.append(list(range(first, first + more)))

    @precondition(lambda self: self.pending and not self.over)
    @rule(codes=st.lists(st.sampled_from(CODES), max_size=6))
    def a_part_is_tried(self, codes: list[str]) -> None:
        part, left = self.pending.pop(), list(codes)
        tried: list[str] = []

        def transaction() -> str:
            blame = VALUE if self.poison & set(part) and not left else ""
            if left or blame:
                tried.append(left.pop(0) if left else blame)
                raise WriteFailed(Failure(tried[-1], "text"))
            return "done"

        pauses: list[float] = []

        def pause(delay_s: float) -> bool:
            assert delay_s > 0
            pauses.append(delay_s)
            return len(pauses) >= TIRED

        attempts = Attempts(RETRIES_MAX, pause, self.troubles.append, jitter=lambda: 0.5)
        splittable = len(part) > 1
        try:
            outcome = attempts.run(transaction, splittable=splittable)
        except (GraphRefused, GraphUnavailable, Abandoned):  # the member ends, and its messages are delivered again
            counted = [code for code in tried if kind_of(code) is not Kind.AWAY]
            assert len(counted) > RETRIES_MAX or kind_of(tried[-1]) is Kind.REFUSED
            self.pending.append(part)
            self.over = True
            return
        kinds = [kind_of(code) for code in tried]
        assert len(pauses) == len(tried) - isinstance(outcome, Halve | Bisect)
        if outcome == "done":
            assert not self.poison & set(part)
            self.written += part
            if tried:
                assert self.troubles[-1] == ""
        elif splittable:
            assert kinds[-1] is not Kind.AWAY
            half = len(part) // 2
            self.pending += [part[half:], part[:half]]
        else:
            assert isinstance(outcome, Bisect)
            if kinds[-1] is Kind.ODD:
                assert len([kind for kind in kinds if kind is not Kind.AWAY]) > ODD_TRIES
            assert kinds[-1] in (Kind.DATA, Kind.ODD, Kind.TOO_LARGE)
            self.refused += part

    def teardown(self) -> None:
        """On a database that is well again, only what is poison is refused."""
        if not hasattr(self, "pending"):
            return
        self.over, before = False, list(self.refused)
        while self.pending:
            self.a_part_is_tried([])
        every = sorted([*self.written, *self.refused])
        assert every == list(range(len(every)))
        assert self.written == sorted(self.written)  # in their order, for the later of two rows wins
        assert set(self.refused) - set(before) <= self.poison <= set(self.refused)


TestBatch = Batch.TestCase
TestBatch.settings = settings(max_examples=100, stateful_step_count=20, deadline=None, derandomize=True)
