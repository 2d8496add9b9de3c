"""A run's state does not depend on the order in which its events are told, nor on how often."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cartoray.completion import FollowUp, FollowUps, JobState, Outcome, Runs, RunState
from cartoray.events import (
    BatchLanded,
    Deferral,
    Event,
    JobEnded,
    JobReleased,
    JobStarted,
    MessageRefused,
    QueryLanded,
    RunCancelled,
    RunPlanned,
    RunPublished,
    StepLanded,
    Unresolved,
    key_of,
)
from cartoray.jobs import Account, Run, job_id
from cartoray.steps import DEFERRALS_PER_STEP, CleanupNodes, DeriveLinks, Settle
from cartoray.wire import encode_step

A, B = "111111111111", "222222222222"
RUN = Run(
    run_id="r1",
    update_tag=1000,
    accounts=(Account(id=A), Account(id=B)),
    modules=("account", "x", "y"),
    planned_at_ms=1,
)
X, Y, LINKS = (CleanupNodes(schema_path=name) for name in ("x", "y", "xy"))
FOLLOW_UPS = {
    "x": FollowUps(cleanup=(FollowUp(X),), derive=(FollowUp(DeriveLinks(schema_path="d")),)),
    "y": FollowUps(cleanup=(FollowUp(Y), FollowUp(LINKS, refreshed_by=("x",)))),
}


def planned() -> list[Event]:
    return [RunPlanned(run=RUN), RunPublished(run_id="r1")]


def ended(account: str, module: str, messages: int = 1, *, attempt: str = "a1", failed: str = "") -> JobEnded:
    return JobEnded(
        run_id="r1",
        job_id=job_id("r1", account, module),
        attempt=attempt,
        outcome="failed" if failed else "finished",
        messages=messages,
        rows=messages,
        calls=1,
        duration_ms=1,
        at_ms=5,
        reason=failed,
    )


def landed(account: str, module: str, *sequences: int, attempt: str = "a1", **more: object) -> BatchLanded:
    return BatchLanded(
        run_id="r1",
        job_id=job_id("r1", account, module),
        attempt=attempt,
        sequences=sequences,
        rows=tuple(10 for _ in sequences),
        at_ms=6,
        **more,  # type: ignore[arg-type]
    )


def whole(account: str, module: str) -> list[Event]:
    return [ended(account, module), landed(account, module, 0)]


def everything() -> list[Event]:
    return [event for account in (A, B) for module in RUN.modules for event in whole(account, module)]


def state_after(*events: Event) -> RunState:
    state = RunState("r1")
    for event in events:
        state.apply(event)
    return state


def land_owed(state: RunState) -> None:
    while steps := list(state.owed(FOLLOW_UPS)):
        for step in steps:
            state.apply(StepLanded(run_id="r1", step_id=step.step_id, at_ms=9))


def view(state: RunState) -> object:
    return (
        state.published,
        dict(state.jobs()),
        state.jobs_open,
        state.rows_landed,
        state.failures(),
        list(state.owed(FOLLOW_UPS)),
        state.is_complete(FOLLOW_UPS),
    )


@given(st.randoms(use_true_random=False), st.integers(0, 3))
def test_order_and_repetition_change_nothing(chance: random.Random, repeated: int) -> None:
    events = [
        *planned(),
        *everything(),
        JobStarted(run_id="r1", job_id=job_id("r1", A, "x"), attempt="a0", actor="i", at_ms=2),
        landed(A, "x", 0, attempt="a0", untouched=((0, 1),)),
        ended(B, "y", 2, attempt="a0", failed="denied"),
        MessageRefused(run_id="r1", job_id=job_id("r1", B, "x"), attempt="a7", sequence=0, reason="bad"),
    ]
    told = events + chance.choices(events, k=repeated)
    chance.shuffle(told)
    assert view(state_after(*told)) == view(state_after(*events))


def test_a_run_is_complete_only_when_its_cleanups_have_landed() -> None:
    state = state_after(*planned(), *everything())
    assert state.jobs_open == 0
    assert not state.is_complete(FOLLOW_UPS)
    land_owed(state)
    assert state.is_complete(FOLLOW_UPS)
    assert state.outcome is Outcome.COMPLETE


def test_a_batch_that_was_announced_and_has_not_landed_holds_the_run_and_the_cleanup() -> None:
    events = [event for event in everything() if event != landed(B, "y", 0)]
    state = state_after(*planned(), *events)
    assert state.job_state(B, "y") is JobState.LANDING
    assert [step.account_id for step in state.owed(FOLLOW_UPS)] == [A]
    assert not state.is_complete(FOLLOW_UPS)


def test_rows_that_landed_twice_are_counted_once() -> None:
    state = state_after(*planned(), ended(A, "x", 2), landed(A, "x", 0, 1), landed(A, "x", 1), landed(A, "x", 0))
    assert state.rows_landed == 20


def test_an_attempt_that_died_half_way_neither_counts_nor_holds_the_run() -> None:
    dead = [landed(A, "x", 0, attempt="dead"), landed(A, "x", 1, attempt="dead")]
    state = state_after(*planned(), *dead, *everything())
    assert state.job_state(A, "x") is JobState.LANDED
    assert state.rows_landed == 60


def test_a_failed_job_is_not_cleaned_up_nor_is_what_it_would_have_refreshed() -> None:
    events = [event for event in everything() if getattr(event, "job_id", "") != job_id("r1", A, "x")]
    state = state_after(*planned(), *events, ended(A, "x", 1, failed="denied"), landed(A, "x", 0))
    cleanups = {step.account_id: step.actions for step in state.owed(FOLLOW_UPS) if "/cleanup/" in step.step_id}
    assert cleanups == {A: (Y,), B: (X, Y, LINKS)}
    land_owed(state)
    assert state.outcome is Outcome.WITH_FAILURES
    assert [(failure.job_id, failure.reason) for failure in state.failures()] == [(job_id("r1", A, "x"), "denied")]


def test_cleanup_is_skipped_when_the_module_that_refreshes_is_not_in_the_run() -> None:
    run = RUN.model_copy(update={"modules": ("account", "y"), "accounts": (Account(id=A),)})
    state = state_after(RunPlanned(run=run), RunPublished(run_id="r1"), *whole(A, "account"), *whole(A, "y"))
    assert [step.actions for step in state.owed(FOLLOW_UPS)] == [(Y,)]


def test_a_refused_message_fails_its_job() -> None:
    refused = MessageRefused(run_id="r1", job_id=job_id("r1", A, "x"), attempt="a1", sequence=0, reason="not Arrow")
    state = state_after(*planned(), ended(A, "x"), refused)
    assert state.job_state(A, "x") is JobState.FAILED
    assert state.failures()[0].reason == "not Arrow"


def test_deferred_relationships_are_settled_after_all_jobs_and_before_links_are_derived() -> None:
    deferral = Deferral(partition=3, offset=44, relationship=1, rows=7)
    events = [event for event in everything() if event != landed(A, "x", 0)]
    state = state_after(*planned(), *events, landed(A, "x", 0, deferrals=(deferral,)))
    owed = [step for step in state.owed(FOLLOW_UPS) if "/cleanup/" not in step.step_id and step.account_id == A]
    assert [step.actions for step in owed] == [(Settle(deferrals=(deferral,)),), (DeriveLinks(schema_path="d"),)]


@given(st.randoms(use_true_random=False))
def test_of_two_attempts_that_landed_everybody_counts_the_same(chance: random.Random) -> None:
    """Killed between its end and the commit of its offset, a job is done twice, and what it defers stands twice."""
    twice = [
        event
        for attempt in ("a1", "a2")
        for event in (
            ended(A, "x", attempt=attempt),
            landed(
                A,
                "x",
                0,
                attempt=attempt,
                deferrals=(Deferral(partition=0, offset=len(attempt), relationship=1, rows=int(attempt[1])),),
            ),
        )
    ]
    events = [*planned(), *everything(), *twice]
    ordered = [step.step_id for step in state_after(*events).owed(FOLLOW_UPS)]
    chance.shuffle(events)
    assert [step.step_id for step in state_after(*events).owed(FOLLOW_UPS)] == ordered


def test_what_is_unresolved_is_told_once_per_kind_with_different_samples() -> None:
    state = state_after(*planned(), *everything())
    for number, sample in enumerate((("a", "b"), ("b", "c", "d"))):
        entry = Unresolved(relationship="A-R->B", target_label="B", rows=4, sample=sample)
        state.apply(StepLanded(run_id="r1", step_id=f"s{number}", at_ms=9, unresolved=(entry,)))
    assert state.unresolved() == [Unresolved(relationship="A-R->B", target_label="B", rows=8, sample=("a", "b", "c"))]


def test_sessions_are_no_runs() -> None:
    runs = Runs()
    for event in planned():
        runs.apply(event)
    runs.apply(QueryLanded(run_id="session-1", job_id="session-1/a/b", attempt="a", sequence=0, at_ms=1))
    assert list(runs.states) == ["r1"]
    assert runs.latest() is runs.states["r1"]


def test_a_cleanup_knows_of_all_messages_of_its_account_whose_nodes_were_not_touched() -> None:
    untouched = [
        landed(A, "x", 0, untouched=((0, 7), (0, 5))),
        landed(A, "y", 0, attempt="died", untouched=((0, 5), (0, 6))),
        landed(B, "x", 0, untouched=((1, 1),)),
    ]
    state = state_after(*planned(), *everything(), *untouched)
    of = {step.account_id: step.untouched for step in state.owed(FOLLOW_UPS) if "/cleanup/" in step.step_id}
    assert of == {A: ((0, 5), (0, 6), (0, 7)), B: ((1, 1),)}
    land(state, "cleanup", "settle")
    assert [step.untouched for step in state.owed(FOLLOW_UPS)] == [(), ()]  # what is derived needs to know of none


def test_many_deferred_relationships_are_many_steps_of_a_bounded_size() -> None:
    deferrals = tuple(Deferral(partition=0, offset=at, relationship=1, rows=1) for at in range(3 * DEFERRALS_PER_STEP))
    state = state_after(*planned(), *everything(), landed(A, "x", 0, deferrals=deferrals))
    steps = [step for step in state.owed(FOLLOW_UPS) if "/settle/" in step.step_id]
    assert len(steps) == len({step.step_id for step in steps}) == 3
    assert max(len(encode_step(step)) for step in steps) < 20_000


def test_a_run_whose_publication_was_cut_off_owes_nothing() -> None:
    state = state_after(RunPlanned(run=RUN), *everything())
    assert not list(state.owed(FOLLOW_UPS))
    assert not state.is_complete(FOLLOW_UPS)


def test_a_run_in_which_every_job_failed_has_failed() -> None:
    failed = [ended(account, module, 0, failed="no role") for account in (A, B) for module in RUN.modules]
    state = state_after(*planned(), *failed)
    assert state.is_complete(FOLLOW_UPS)
    assert state.outcome is Outcome.FAILED


def test_a_step_that_cannot_be_done_is_a_failure_with_its_reason() -> None:
    state = state_after(*planned(), *everything())
    step = next(iter(state.owed(FOLLOW_UPS)))
    state.apply(StepLanded(run_id="r1", step_id=step.step_id, at_ms=9, reason="refused"))
    land_owed(state)
    assert state.is_complete(FOLLOW_UPS)
    assert state.outcome is Outcome.WITH_FAILURES


def test_events_that_are_different_facts_have_different_keys() -> None:
    events = [*planned(), *everything()]
    assert len({key_of(event) for event in events}) == len(events)


WAITING = RUN.model_copy(
    update={
        "modules": ("account", "x", "y", "reads", "tags"),
        "once": ("analysis",),
        "wrapped": ("reads", "tags", "analysis"),
        "late": ("tags",),
        "needs": {"reads": ("x",), "tags": ("reads", "y"), "analysis": ("x", "tags")},
        "cleaned": ("x",),
    }
)
DEFERRAL = Deferral(partition=3, offset=44, relationship=1, rows=7)


def waiting() -> list[Event]:
    return [RunPlanned(run=WAITING), RunPublished(run_id="r1")]


def due(state: RunState) -> set[str]:
    return {job.job_id.split("/", 1)[1] for job in state.due(FOLLOW_UPS)}


def land(state: RunState, *step_names: str) -> None:
    """Those steps that are owed under these names."""
    for step in list(state.owed(FOLLOW_UPS)):
        if step.step_id.split("/")[1] in step_names:
            state.apply(StepLanded(run_id="r1", step_id=step.step_id, at_ms=9))


def tell(state: RunState, *events: Event) -> None:
    for event in events:
        state.apply(event)


def test_a_job_is_due_when_what_it_needs_has_landed_and_was_cleaned_up() -> None:
    state = state_after(*waiting())
    assert due(state) == set()
    tell(state, *whole(A, "x"))
    assert due(state) == set()
    land(state, "cleanup-x")
    assert due(state) == {f"{A}/reads"}  # of this account alone
    assert due(state) == {f"{A}/reads"}  # until somebody says that it was released
    tell(state, JobReleased(run_id="r1", job_id=job_id("r1", A, "reads")))
    assert due(state) == set()


def test_a_late_job_waits_for_what_its_account_deferred() -> None:
    state = state_after(*waiting(), landed(A, "x", 0, deferrals=(DEFERRAL,)), ended(A, "x"))
    tell(state, *(event for module in ("account", "y", "reads") for event in whole(A, module)))
    assert due(state) == set()
    land(state, "settle-early")
    assert due(state) == {f"{A}/tags"}


def test_what_was_resolved_before_the_late_jobs_is_not_settled_again() -> None:
    state = state_after(*waiting(), landed(A, "x", 0, deferrals=(DEFERRAL,)), ended(A, "x"))
    tell(state, *(event for account in (A, B) for module in WAITING.modules for event in whole(account, module)))
    settling = [step for step in state.owed(FOLLOW_UPS) if step.step_id.split("/")[1] == "settle-early"]
    entry = Unresolved(relationship="A-R->B", target_label="B", rows=7)
    for unresolved, again in (((), 0), ((entry,), 1)):
        other = state_after(*waiting(), landed(A, "x", 0, deferrals=(DEFERRAL,)), ended(A, "x"))
        tell(other, *(event for account in (A, B) for module in WAITING.modules for event in whole(account, module)))
        tell(other, *(StepLanded(run_id="r1", step_id=s.step_id, at_ms=9, unresolved=unresolved) for s in settling))
        assert sum(step.step_id.split("/")[1] == "settle" for step in other.owed(FOLLOW_UPS)) == again


def test_a_job_for_all_accounts_waits_for_every_account_and_their_steps() -> None:
    state = state_after(*waiting())
    tell(state, *(event for account in (A, B) for module in WAITING.modules for event in whole(account, module)))
    assert due(state) == set()
    land_owed(state)
    assert due(state) == {"all/analysis"}
    assert not state.is_complete(FOLLOW_UPS)
    tell(state, *whole("all", "analysis"))
    assert state.is_complete(FOLLOW_UPS)
    assert state.outcome is Outcome.COMPLETE


def test_what_needs_a_failed_job_is_skipped_and_says_so_and_the_rest_goes_on() -> None:
    state = state_after(*waiting(), ended(A, "x", 0, failed="raised"))
    tell(state, *(event for module in WAITING.modules for event in whole(B, module)))
    tell(state, *(event for module in ("account", "y") for event in whole(A, module)))
    land_owed(state)
    assert {failure.job_id.split("/", 1)[1]: failure.reason for failure in state.skipped()} == {
        f"{A}/reads": "It needs x, which did not land.",
        f"{A}/tags": "It needs reads, which did not land.",
        "all/analysis": "It needs x, tags in every account, which did not land.",
    }
    assert state.is_complete(FOLLOW_UPS)
    assert state.outcome is Outcome.WITH_FAILURES


def test_what_needs_a_job_that_was_refused_a_part_is_done_but_nothing_is_cleaned_up() -> None:
    part = ended(A, "x", failed="denied in one region").model_copy(update={"outcome": "partial"})
    state = state_after(*waiting(), part, landed(A, "x", 0))
    assert state.job_state(A, "x") is JobState.FAILED
    assert due(state) == {f"{A}/reads"}
    tell(state, *(event for module in ("account", "y", "reads", "tags") for event in whole(A, module)))
    assert [step.actions for step in state.owed(FOLLOW_UPS) if "/cleanup" in step.step_id] == [(Y,)]


@given(st.randoms(use_true_random=False))
def test_what_is_due_and_skipped_does_not_depend_on_the_order_of_events(chance: random.Random) -> None:
    events = [
        *waiting(),
        ended(A, "x", 0, failed="raised"),
        *whole(A, "y"),
        *whole(B, "x"),
        *whole(B, "account"),
        StepLanded(run_id="r1", step_id=_cleanup_of_x(B), at_ms=9),
    ]
    expected = state_after(*events)
    assert due(expected) == {f"{B}/reads"}
    chance.shuffle(events)
    state = state_after(*events)
    assert (due(state), view(state)) == (due(expected), view(expected))


def test_a_job_that_lands_after_all_brings_back_what_was_skipped_for_it() -> None:
    state = state_after(*waiting(), ended(A, "x", 0, failed="raised"))
    assert state.job_state(A, "tags") is JobState.SKIPPED
    tell(state, ended(A, "x", attempt="a2"), landed(A, "x", 0, attempt="a2"))
    land(state, "cleanup-x")
    assert state.job_state(A, "tags") is JobState.PLANNED
    assert due(state) == {f"{A}/reads"}


def _cleanup_of_x(account: str) -> str:
    state = state_after(*waiting(), *whole(account, "x"))
    return next(step.step_id for step in state.owed(FOLLOW_UPS))


# ---- runs that are cancelled ---------------------------------------------------------------------------------------


def cancelled(at_ms: int = 7) -> RunCancelled:
    return RunCancelled(run_id="r1", at_ms=at_ms)


def given_up(account: str, module: str, attempt: str, at_ms: int = 8) -> JobEnded:
    """What a worker tells of a job whose run was cancelled."""
    end = ended(account, module, 1, attempt=attempt)
    return end.model_copy(update={"outcome": "cancelled", "at_ms": at_ms})


def started(account: str, module: str, attempt: str = "a1", at_ms: int = 4) -> JobStarted:
    return JobStarted(run_id="r1", job_id=job_id("r1", account, module), attempt=attempt, actor="i", at_ms=at_ms)


def test_a_cancelled_run_ends_when_its_jobs_under_way_have_and_owes_nothing() -> None:
    state = state_after(*planned(), *(event for module in RUN.modules for event in whole(A, module)))
    tell(state, started(B, "x"), ended(B, "y", 2))
    assert [step.account_id for step in state.owed(FOLLOW_UPS)] == [A]
    tell(state, cancelled())
    assert not list(state.owed(FOLLOW_UPS))
    assert state.ended(FOLLOW_UPS) is None
    assert [state.job_state(B, module) for module in RUN.modules] == ["cancelled", "started", "cancelled"]
    tell(state, given_up(B, "x", "a1"))
    assert state.ended(FOLLOW_UPS) is Outcome.CANCELLED
    assert not state.is_complete(FOLLOW_UPS)
    assert dict(state.jobs()) == {JobState.LANDED: 3, JobState.CANCELLED: 3}
    assert (state.failures(), state.skipped()) == ([], [])


def test_a_worker_that_hears_of_the_cancel_first_causes_no_cleanup() -> None:
    """The other jobs have landed, so that without the cancel only the failed one's cleanup would be left out."""
    events = [event for event in everything() if getattr(event, "job_id", "") != job_id("r1", B, "y")]
    state = state_after(*planned(), *events, given_up(B, "y", "a1"))
    assert not list(state.owed(FOLLOW_UPS))
    assert state.ended(FOLLOW_UPS) is Outcome.CANCELLED


def test_a_job_of_a_member_that_died_ends_when_the_next_one_gives_it_up() -> None:
    state = state_after(*planned(), started(A, "x", "died"), cancelled())
    assert state.ended(FOLLOW_UPS) is None
    tell(state, given_up(A, "x", "next"))
    assert state.ended(FOLLOW_UPS) is Outcome.CANCELLED


def test_a_cancel_that_comes_after_all_has_landed_changes_nothing() -> None:
    state = state_after(*planned(), *everything())
    land_owed(state)  # at 9
    tell(state, cancelled(9), given_up(A, "x", "delivered again", at_ms=12))
    assert state.ended(FOLLOW_UPS) is state.outcome is Outcome.COMPLETE
    late = state_after(*planned(), *everything())
    land_owed(late)
    tell(late, cancelled(8))  # the last step was under way then: who waited has seen the run end as cancelled
    assert late.ended(FOLLOW_UPS) is Outcome.CANCELLED


def test_what_was_skipped_before_is_not_called_cancelled_and_what_a_cancelled_job_is_needed_by_is() -> None:
    state = state_after(*waiting(), ended(A, "x", 0, failed="raised"), cancelled())
    assert state.job_state(A, "reads") is JobState.SKIPPED
    assert state.job_state(B, "reads") is JobState.CANCELLED
    assert state.ended(FOLLOW_UPS) is Outcome.CANCELLED
    assert not due(state)


@given(st.randoms(use_true_random=False), st.integers(0, 3))
def test_of_a_cancelled_run_too_order_and_repetition_change_nothing(chance: random.Random, repeated: int) -> None:
    events = [
        *planned(),
        *[event for event in everything() if getattr(event, "job_id", "").split("/")[1:] != [B, "y"]],
        started(B, "y"),
        given_up(B, "y", "a1"),
        ended(A, "x", 2, attempt="a3"),
        cancelled(7),
        cancelled(6),
    ]
    told = events + chance.choices(events, k=repeated)
    chance.shuffle(told)
    expected, state = state_after(*events), state_after(*told)
    assert (view(state), state.cancelled_ms) == (view(expected), 6)
    assert state.ended(FOLLOW_UPS) is expected.ended(FOLLOW_UPS) is Outcome.CANCELLED


class _Play:
    """A run as workers, ingestion and a coordinator carry it out, one move after the other, in any order."""

    def __init__(self, chance: random.Random) -> None:
        self.chance, self.state, self.now_ms = chance, RunState("r1"), 1
        self.jobs = [job for job in WAITING.jobs() if not WAITING.held(job.module)]  # on `intel_jobs`
        self.known = {job.job_id for job in self.jobs}
        self.under_way: list[tuple[str, str, str]] = []  # account, module, attempt
        self.rows: list[tuple[str, str, str]] = []  # on `graph_data`, as are the steps
        self.steps: list[str] = []
        self.published: list[tuple[int, str]] = []
        tell(self.state, *waiting())

    def moves(self) -> list[str]:
        ready = {"take": self.jobs, "end": self.under_way, "die": self.under_way, "land": self.rows, "do": self.steps}
        return [name for name, what in ready.items() if what]

    def any_of(self, what: list[Any]) -> Any:
        return what.pop(self.chance.randrange(len(what)))

    def move(self, name: str, *, heard: bool) -> None:
        """`heard`: worker and ingestion know that the run was cancelled."""
        self.now_ms += 1
        match name:
            case "take":
                job = self.any_of(self.jobs)
                whose = job.account.id, job.module, f"a{self.now_ms}"
                if heard:
                    tell(self.state, given_up(*whose, at_ms=self.now_ms))
                else:
                    self.under_way.append(whose)
                    tell(self.state, started(*whose, at_ms=self.now_ms))
            case "end":
                whose = self.any_of(self.under_way)
                if heard:
                    tell(self.state, given_up(*whose, at_ms=self.now_ms))
                else:
                    self.rows.append(whose)
                    end = ended(whose[0], whose[1], attempt=whose[2])
                    tell(self.state, end.model_copy(update={"at_ms": self.now_ms}))
            case "die":  # and is delivered again
                account, module, _ = self.any_of(self.under_way)
                self.jobs.append(WAITING.job(Account(id=account), module))
            case "land":
                account, module, attempt = self.any_of(self.rows)
                if not heard:
                    batch = landed(account, module, 0, attempt=attempt).model_copy(update={"at_ms": self.now_ms})
                    tell(self.state, batch)
            case "do":
                step = self.any_of(self.steps)
                if not heard:
                    tell(self.state, StepLanded(run_id="r1", step_id=step, at_ms=self.now_ms))

    def coordinate(self) -> None:
        for step in self.state.owed(FOLLOW_UPS):
            if step.step_id not in {name for _, name in self.published}:
                self.published.append((self.now_ms, step.step_id))
                self.steps.append(step.step_id)
        for job in self.state.due(FOLLOW_UPS):
            if job.job_id not in self.known:
                self.known.add(job.job_id)
                self.jobs.append(job)
            tell(self.state, JobReleased(run_id="r1", job_id=job.job_id))


@given(st.randoms(use_true_random=False), st.integers(0, 60))
def test_cancelled_at_any_moment_a_run_ends_and_nothing_is_cleaned_up_after(chance: random.Random, at: int) -> None:
    play = _Play(chance)
    play.coordinate()
    count = 0
    while count < at and (moves := play.moves()):
        dies = "die" in moves and chance.random() < 0.05
        play.move("die" if dies else chance.choice([move for move in moves if move != "die"]), heard=False)
        play.coordinate()
        count += 1
    before = play.state.ended(FOLLOW_UPS)
    assert (before is None) == bool(play.moves()), "the play goes on until the run is complete"
    play.now_ms += 1
    cancelled_ms = play.now_ms
    tell(play.state, cancelled(cancelled_ms))
    while moves := play.moves():
        # some hear of it later than others
        play.move(chance.choice([move for move in moves if move != "die"]), heard=chance.random() < 0.7)
        play.coordinate()
    assert all(published_ms < cancelled_ms for published_ms, _ in play.published)
    assert play.state.ended(FOLLOW_UPS) is (before or Outcome.CANCELLED)
    assert not list(play.state.owed(FOLLOW_UPS))
    assert not play.state.due(FOLLOW_UPS)
