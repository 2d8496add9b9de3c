"""A run is complete if and only if every job has ended and all that it announced has landed; and it always gets there.

Whatever dies, is done twice, is told twice or in another order, and whoever reads it again from the beginning.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cartoray.completion import ENDED, FollowUp, FollowUps, RunState
from cartoray.events import (
    BatchLanded,
    Deferral,
    Event,
    JobEnded,
    JobReleased,
    JobStarted,
    MessageRefused,
    QueryLanded,
    RunPlanned,
    RunPublished,
    StepLanded,
)
from cartoray.jobs import Account, Job, Run
from cartoray.steps import CleanupNodes, Step

ACCOUNTS = ("111111111111", "222222222222")
RUN = Run(
    run_id="r",
    update_tag=1,
    accounts=tuple(Account(id=each) for each in ACCOUNTS),
    modules=("account", "x", "y", "reads", "tags"),
    once=("analysis",),
    wrapped=("reads", "tags", "analysis"),
    late=("tags",),
    needs={"reads": ("x",), "tags": ("reads", "y"), "analysis": ("x", "tags")},
    cleaned=("x",),
    planned_at_ms=1,
)
CLEAN_X, CLEAN_Y, CLEAN_BOTH = (CleanupNodes(schema_path=name) for name in ("x", "y", "both"))
FOLLOW_UPS = {
    "x": FollowUps(cleanup=(FollowUp(CLEAN_X),)),
    "y": FollowUps(cleanup=(FollowUp(CLEAN_Y), FollowUp(CLEAN_BOTH, refreshed_by=("x",)))),
}
JOBS = {job.job_id: job for job in RUN.jobs()}
OUTCOMES = st.sampled_from(["finished", "finished", "finished", "partial", "failed"])


@dataclass
class Attempt:
    """What really happened: messages that are in Kafka, and what became of each."""

    job: Job
    name: str
    sent: int = 0
    outcome: str = ""  # empty: it runs, or has died
    landed: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)
    dead: bool = False

    @property
    def open(self) -> list[int]:
        return [each for each in range(self.sent) if each not in self.landed | self.refused]

    @property
    def settled(self) -> bool:
        return bool(self.outcome) and not self.open


class World(RuleBasedStateMachine):
    """Workers, ingestion and a coordinator that does what the state says, against what really happened."""

    @initialize(published=st.booleans())
    def is_planned(self, *, published: bool) -> None:
        self.told: list[Event] = []
        self.state = RunState("r")
        self.attempts: list[Attempt] = []
        self.on_topic = {name for name, job in JOBS.items() if not RUN.held(job.module)}
        self.steps: dict[str, Step] = {}  # published
        self.steps_done: set[str] = set()
        self.number = 0
        self._tell(RunPlanned(run=RUN))
        if published:
            self.is_published()

    def _tell(self, event: Event) -> None:
        self.told.append(event)
        self.state.apply(event)

    @rule()
    def is_published(self) -> None:
        self._tell(RunPublished(run_id="r"))

    # ---- workers

    def _of(self, job: str) -> list[Attempt]:
        return [each for each in self.attempts if each.job.job_id == job]

    @rule(data=st.data())
    def a_job_starts(self, data: st.DataObject) -> None:
        """Also one that was done before: its offset was not committed."""
        self._start(data.draw(st.sampled_from(sorted(self.on_topic))))

    def _start(self, job: str) -> Attempt:
        attempt = Attempt(JOBS[job], f"a{self.number}")
        self.number += 1
        self.attempts.append(attempt)
        self._tell(JobStarted(**self._names(attempt), actor="i", at_ms=2))
        return attempt

    def _running(self) -> list[Attempt]:
        return [each for each in self.attempts if not each.outcome and not each.dead]

    @rule(data=st.data(), messages=st.integers(0, 3), outcome=OUTCOMES)
    def a_job_ends(self, data: st.DataObject, messages: int, outcome: str) -> None:
        if running := self._running():
            attempt = data.draw(st.sampled_from(running))
            attempt.sent += messages
            self._end(attempt, outcome)

    def _end(self, attempt: Attempt, outcome: str) -> None:
        attempt.outcome = outcome
        counted = {"rows": attempt.sent, "calls": 1, "duration_ms": 1, "at_ms": 3}
        reason = "" if outcome == "finished" else "denied"
        self._tell(
            JobEnded(**self._names(attempt), outcome=outcome, messages=attempt.sent, reason=reason, **counted)  # type: ignore[arg-type]
        )

    @rule(data=st.data())
    def one_sends_a_message(self, data: st.DataObject) -> None:
        if running := self._running():
            data.draw(st.sampled_from(running)).sent += 1

    @rule(data=st.data())
    def a_worker_dies(self, data: st.DataObject) -> None:
        if running := self._running():
            data.draw(st.sampled_from(running)).dead = True

    # ---- ingestion

    @rule(data=st.data(), refused=st.integers(0, 9), deferred=st.booleans())
    def a_message_lands(self, data: st.DataObject, *, refused: int, deferred: bool) -> None:
        if waiting := [each for each in self.attempts if each.open]:
            attempt = data.draw(st.sampled_from(waiting))
            self._land(attempt, data.draw(st.sampled_from(attempt.open)), refused=refused == 0, deferred=deferred)

    def _land(self, attempt: Attempt, sequence: int, *, refused: bool = False, deferred: bool = False) -> None:
        names = self._names(attempt)
        if refused:
            attempt.refused.add(sequence)
            self._tell(MessageRefused(**names, sequence=sequence, reason="poison"))
        elif attempt.job.wrapped:
            attempt.landed.add(sequence)
            self._tell(QueryLanded(**names, sequence=sequence, at_ms=4))
        else:
            attempt.landed.add(sequence)
            deferrals = (Deferral(partition=0, offset=self.number, relationship=sequence, rows=1),) if deferred else ()
            self._tell(BatchLanded(**names, sequences=(sequence,), rows=(5,), at_ms=4, deferrals=deferrals))

    @rule(data=st.data(), fails=st.integers(0, 9))
    def a_step_lands(self, data: st.DataObject, fails: int) -> None:
        if waiting := sorted(self.steps.keys() - self.steps_done):
            self._do(data.draw(st.sampled_from(waiting)), "cannot be done" if fails == 0 else "")

    def _do(self, step: str, reason: str = "") -> None:
        self.steps_done.add(step)
        self._tell(StepLanded(run_id="r", step_id=step, at_ms=5, reason=reason))

    # ---- coordinators

    @rule()
    def the_coordinator_looks(self) -> None:
        owed = list(self.state.owed(FOLLOW_UPS))
        assert len(owed) == len({step.step_id for step in owed})
        self.steps |= {step.step_id: step for step in owed}
        for step in owed:
            self._is_allowed(step)
        for job in self.state.due(FOLLOW_UPS):
            self._may_start(job)
            self.on_topic.add(job.job_id)
            self._tell(JobReleased(run_id="r", job_id=job.job_id))

    @rule(chance=st.randoms(use_true_random=False), repeated=st.integers(0, 5))
    def everything_is_read_again(self, chance: random.Random, repeated: int) -> None:
        """In another order, since partitions are read side by side, and some of it twice."""
        events = self.told + chance.choices(self.told, k=repeated)
        chance.shuffle(events)
        state = RunState("r")
        for event in events:
            state.apply(event)
        assert _seen(state) == _seen(self.state)
        self.state = state

    @rule(account=st.sampled_from(ACCOUNTS), what=st.sampled_from(["r/{}/other", "s/{}/x", "r/9/{}"]), outcome=OUTCOMES)
    def somebody_tells_of_a_job_that_nobody_planned(self, account: str, what: str, outcome: str) -> None:
        before = _seen(self.state)
        names = {"run_id": "r", "job_id": what.format(account), "attempt": "a"}
        self._tell(JobReleased(run_id="r", job_id=names["job_id"]))
        counted = {"messages": 0, "rows": 0, "calls": 0, "duration_ms": 0, "at_ms": 0}
        self._tell(JobEnded(**names, outcome=outcome, **counted))  # type: ignore[arg-type]
        assert _seen(self.state) == before

    @rule(data=st.data())
    def a_message_lands_that_its_attempt_did_not_count(self, data: st.DataObject) -> None:
        if counted := [each for each in self.attempts if each.outcome]:
            attempt = data.draw(st.sampled_from(counted))
            self._tell(MessageRefused(**self._names(attempt), sequence=attempt.sent + 7, reason="not its own"))
            attempt.refused.add(attempt.sent + 7)

    # ---- what must hold

    def _names(self, attempt: Attempt) -> dict[str, str]:
        return {"run_id": "r", "job_id": attempt.job.job_id, "attempt": attempt.name}

    def _ended(self, job: str) -> bool:
        """Some attempt is through, and none that may still be the better one is on its way into the graph."""
        attempts = self._of(job)
        if any(each.settled and each.outcome == "finished" and not each.refused for each in attempts):
            return True
        return any(each.settled for each in attempts) and not any(each.outcome and each.open for each in attempts)

    def _landed(self, job: str) -> bool:
        return any(each.settled and each.outcome == "finished" and not each.refused for each in self._of(job))

    def _usable(self, job: str) -> bool:
        return any(each.settled and each.outcome != "failed" and not each.refused for each in self._of(job))

    def _skipped(self, job: str) -> bool:
        """What it needs has ended for good, and nothing of it can be used."""
        if self._of(job):
            return False
        return any(
            self._skipped(need) or (self._ended(need) and not self._usable(need)) for need in self._needed(JOBS[job])
        )

    def _needed(self, job: Job) -> Iterator[str]:
        for need in RUN.needs.get(job.module, ()):
            for account in ACCOUNTS if job.account.id == "all" and need not in RUN.once else (job.account.id,):
                yield f"r/{account}/{need}"

    def _may_start(self, job: Job) -> None:
        assert RUN.held(job.module)
        assert all(self._usable(need) for need in self._needed(job))
        if job.account.id == "all":
            others = (each for each in JOBS if not each.startswith("r/all/"))
            assert all(self._ended(each) or self._skipped(each) for each in others)
        if "x" in RUN.needs.get(job.module, ()) and self._landed(f"r/{job.account.id}/x"):
            done = {each for each in self.steps_done if each.startswith(f"r/cleanup-x/{job.account.id}/")}
            assert done

    def _is_allowed(self, step: Step) -> None:
        """A failed job never deletes."""
        for action in step.actions:
            if isinstance(action, CleanupNodes):
                modules = ("x", "y") if action == CLEAN_BOTH else (action.schema_path,)
                assert all(self._landed(f"r/{step.account_id}/{module}") for module in modules)

    @invariant()
    def it_is_complete_only_when_all_has_ended_and_is_done(self) -> None:
        if not hasattr(self, "state"):
            return
        over = {job for job in JOBS if self._ended(job) or self._skipped(job)}
        assert {
            job for job, job_ in JOBS.items() if self.state.job_state(job_.account.id, job_.module) in ENDED
        } == over
        assert self.state.jobs_open == len(JOBS) - len(over)
        owed = {step.step_id for step in self.state.owed(FOLLOW_UPS)}
        assert self.state.is_complete(FOLLOW_UPS) == (self.state.published and len(over) == len(JOBS) and not owed)
        if self.state.is_complete(FOLLOW_UPS):
            done = [step for name, step in self.steps.items() if name in self.steps_done]
            for account in ACCOUNTS:
                for module, action in (("x", CLEAN_X), ("y", CLEAN_Y)):
                    if self._landed(f"r/{account}/{module}"):
                        assert any(step.account_id == account and action in step.actions for step in done)

    def teardown(self) -> None:
        """Whoever died is replaced, and then it comes to its end by itself."""
        if not hasattr(self, "state"):
            return
        self.is_published()
        for _ in range(30):
            self.the_coordinator_looks()
            for attempt in self.attempts:
                for sequence in attempt.open:
                    self._land(attempt, sequence)
            for job in sorted(self.on_topic):
                if not any(each.outcome for each in self._of(job)):
                    self._end(self._start(job), "finished")
            for step in sorted(self.steps.keys() - self.steps_done):
                self._do(step)
            self.it_is_complete_only_when_all_has_ended_and_is_done()
            if self.state.is_complete(FOLLOW_UPS):
                return
        raise AssertionError(f"It never ends: {self.state.jobs()}, owed {list(self.state.owed(FOLLOW_UPS))}")


def _seen(state: RunState) -> object:
    return (
        state.published,
        {job: state.job_state(*job.split("/")[1:]) for job in JOBS},
        state.jobs_open,
        state.rows_landed,
        list(state.owed(FOLLOW_UPS)),
        state.is_complete(FOLLOW_UPS),
        state.skipped(),
    )


TestWorld = World.TestCase
TestWorld.settings = settings(max_examples=40, stateful_step_count=40, deadline=None, derandomize=True)
