"""Events of a run → its state: what has landed, what failed, what is still owed, and whether it is complete.

The state is the same whatever the order of the events and however often each is told, because every event is a fact
that is added to a set. So it can be rebuilt from `run_events` by anybody at any time.

A job is *landed* when an attempt finished and all messages it announced are in Neo4j (counted, not guessed from lag),
and *failed* when an attempt failed, or a message of it was refused. When all jobs of an account are one or the other,
the account's **cleanup** is owed; when all jobs of the run are, relationships whose other end had not landed are to be
**settled**, and links derived. A run is complete when all this has landed as well.

A cleanup is owed only for modules that landed, and only where every module that refreshes what it would delete landed
too: a failed job never deletes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from cartoray.errors import UnreadableMessage
from cartoray.events import (
    BatchLanded,
    Deferral,
    Event,
    JobEnded,
    JobStarted,
    MessageRefused,
    QueryLanded,
    RunPlanned,
    RunPublished,
    StepLanded,
    Unresolved,
    run_of,
)
from cartoray.jobs import SESSION_PREFIX, Run, job_id
from cartoray.steps import Action, Step, settlements

_OfAttempt = JobStarted | JobEnded | BatchLanded | QueryLanded | MessageRefused


class JobState(StrEnum):
    """Where a job stands. *landing*: extracted, its messages not all in Neo4j yet."""

    PLANNED = "planned"
    STARTED = "started"
    LANDING = "landing"
    LANDED = "landed"
    FAILED = "failed"


ENDED = frozenset({JobState.LANDED, JobState.FAILED})


class Outcome(StrEnum):
    COMPLETE = "complete"
    WITH_FAILURES = "complete with failed jobs"
    FAILED = "failed"


@dataclass(frozen=True)
class FollowUp:
    """What a module wants done once its account has landed, and whose data that relies on."""

    action: Action
    refreshed_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class FollowUps:
    """Of one module: `cleanup` per account as soon as it has landed, `derive` when the run has been settled."""

    cleanup: tuple[FollowUp, ...] = ()
    derive: tuple[FollowUp, ...] = ()


@dataclass
class _Attempt:
    ended: JobEnded | None = None
    landed: dict[int, int] = field(default_factory=dict)  # sequence → rows
    refused: dict[int, str] = field(default_factory=dict)
    deferrals: set[Deferral] = field(default_factory=set)

    @property
    def settled(self) -> bool:
        """Everything that it announced has landed or was refused."""
        return self.ended is not None and len(self.landed.keys() | self.refused.keys()) >= self.ended.messages

    @property
    def state(self) -> JobState:
        if self.ended is None:
            return JobState.STARTED
        if not self.settled:
            return JobState.LANDING
        return JobState.LANDED if self.ended.outcome == "finished" and not self.refused else JobState.FAILED


_BEST = (JobState.LANDED, JobState.LANDING, JobState.FAILED, JobState.STARTED, JobState.PLANNED)


@dataclass(frozen=True)
class Failure:
    """A job that failed, and why, in words that need no log."""

    job_id: str
    reason: str


class RunState:
    """The state of one run. `apply` is commutative and idempotent; everything else only reads."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.run: Run | None = None
        self.published = False
        self.steps: dict[str, StepLanded] = {}
        self.last_event_ms = 0
        self._attempts: dict[str, dict[str, _Attempt]] = {}
        self._states: dict[str, JobState] = {}
        self._open: Counter[str] = Counter()  # account → jobs that have not ended

    def apply(self, event: Event) -> None:
        """Adds a fact. Raises UnreadableMessage for an event of another run."""
        if run_of(event) != self.run_id:
            raise UnreadableMessage(f"An event of run {run_of(event)} for the state of {self.run_id}.")
        self.last_event_ms = max(self.last_event_ms, getattr(event, "at_ms", 0))
        match event:
            case RunPlanned():
                self._plan(event.run)
            case RunPublished():
                self.published = True
            case StepLanded():
                self.steps.setdefault(event.step_id, event)
            case _:
                self._apply_to_attempt(event)
                self._refresh(event.job_id)

    def _apply_to_attempt(self, event: _OfAttempt) -> None:
        attempt = self._attempts.setdefault(event.job_id, {}).setdefault(event.attempt, _Attempt())
        match event:
            case JobEnded():
                attempt.ended = event
            case BatchLanded():
                attempt.landed.update(zip(event.sequences, event.rows, strict=True))
                attempt.deferrals.update(event.deferrals)
            case QueryLanded():
                attempt.landed[event.sequence] = 0
            case MessageRefused():
                attempt.refused[event.sequence] = event.reason

    def _plan(self, run: Run) -> None:
        if self.run is not None:
            return
        self.run = run
        self.last_event_ms = max(self.last_event_ms, run.planned_at_ms)
        for account in run.accounts:
            self._open[account.id] = len(run.modules)
            for module in run.modules:
                self._refresh(job_id(run.run_id, account.id, module))

    def _refresh(self, job: str) -> None:
        if self.run is None:
            return  # its events are kept, and counted when the plan arrives
        before = self._states.get(job, JobState.PLANNED)
        states = {attempt.state for attempt in self._attempts.get(job, {}).values()}
        after = next((state for state in _BEST if state in states), JobState.PLANNED)
        self._states[job] = after
        self._open[job.split("/")[1]] += (before in ENDED) - (after in ENDED)

    # ---- what has happened -------------------------------------------------------------------------------------

    def job_state(self, account: str, module: str) -> JobState:
        return self._states.get(job_id(self.run_id, account, module), JobState.PLANNED)

    def jobs(self) -> Counter[JobState]:
        """How many jobs are in each state."""
        return Counter(self._states.values())

    @property
    def rows_landed(self) -> int:
        """Rows in Neo4j, of the attempts that count."""
        return sum(sum(attempt.landed.values()) for attempt in self._counting())

    @property
    def calls(self) -> int:
        """API calls made by all attempts that ended."""
        return sum(attempt.ended.calls for attempt in self._all_attempts() if attempt.ended)

    def failures(self) -> list[Failure]:
        """Failed jobs with their reasons, by job."""
        found = []
        for job, state in sorted(self._states.items()):
            if state is JobState.FAILED:
                reasons = [
                    reason
                    for attempt in self._attempts[job].values()
                    for reason in (attempt.ended.reason if attempt.ended else "", *attempt.refused.values())
                    if reason
                ]
                found.append(Failure(job, reasons[-1] if reasons else "no reason given"))
        for step in sorted(self.steps.values(), key=lambda step: step.step_id):
            if step.reason:
                found.append(Failure(step.step_id, step.reason))
        return found

    def unresolved(self) -> list[Unresolved]:
        """Relationships whose other end never came, one entry per kind."""
        merged: dict[tuple[str, str], Unresolved] = {}
        for step in self.steps.values():
            for entry in step.unresolved:
                key = (entry.relationship, entry.target_label)
                seen = merged.get(key)
                merged[key] = entry.model_copy(
                    update={
                        "rows": entry.rows + (seen.rows if seen else 0),
                        "sample": tuple(dict.fromkeys((seen.sample if seen else ()) + entry.sample))[:3],
                    }
                )
        return sorted(merged.values(), key=lambda entry: entry.relationship)

    def skipped_regions(self) -> dict[str, tuple[str, ...]]:
        """Account → regions that are not enabled for it, as its jobs found."""
        found: dict[str, set[str]] = {}
        for job, attempts in self._attempts.items():
            for attempt in attempts.values():
                if attempt.ended and attempt.ended.skipped_regions:
                    found.setdefault(job.split("/")[1], set()).update(attempt.ended.skipped_regions)
        return {account: tuple(sorted(regions)) for account, regions in sorted(found.items())}

    # ---- what is owed ------------------------------------------------------------------------------------------

    @property
    def jobs_open(self) -> int:
        """Jobs that have neither landed nor failed."""
        return sum(self._open.values())

    def owed(self, follow_ups: Mapping[str, FollowUps]) -> Iterator[Step]:
        """Steps that are due and have not landed. The same state gives the same steps, ids included."""
        if self.run is None or not self.published:
            return
        for account in self.run.accounts:
            if self._open[account.id] == 0:
                yield from self._due("cleanup", account.id, self._cleanup(account.id, follow_ups))
        if self.jobs_open == 0:
            for account in self.run.accounts:
                for settle in settlements(self._deferrals(account.id)):
                    yield from self._due("settle", account.id, [settle])
                yield from self._due("derive", account.id, self._derive(account.id, follow_ups))

    def _due(self, name: str, account: str, actions: Sequence[Action]) -> Iterator[Step]:
        if not actions or self.run is None:
            return
        # the id follows the content: should a late event change what is owed, that is another step
        content = "".join(action.model_dump_json() for action in actions)
        digest = hashlib.sha256(content.encode()).hexdigest()[:12]
        step_id = f"{self.run_id}/{name}/{account}/{digest}"
        if step_id not in self.steps:
            yield Step(
                run_id=self.run_id,
                update_tag=self.run.update_tag,
                step_id=step_id,
                account_id=account,
                actions=tuple(actions),
            )

    def _cleanup(self, account: str, follow_ups: Mapping[str, FollowUps]) -> list[Action]:
        return [
            action
            for module in self._landed_modules(account)
            for action in self._allowed(account, follow_ups.get(module, FollowUps()).cleanup)
        ]

    def _derive(self, account: str, follow_ups: Mapping[str, FollowUps]) -> list[Action]:
        return [
            action
            for module in self._landed_modules(account)
            for action in self._allowed(account, follow_ups.get(module, FollowUps()).derive)
        ]

    def _allowed(self, account: str, wanted: Sequence[FollowUp]) -> list[Action]:
        return [
            follow_up.action
            for follow_up in wanted
            if all(self.job_state(account, module) is JobState.LANDED for module in follow_up.refreshed_by)
        ]

    def _landed_modules(self, account: str) -> list[str]:
        modules = self.run.modules if self.run else ()
        return [module for module in modules if self.job_state(account, module) is JobState.LANDED]

    def _deferrals(self, account: str) -> set[Deferral]:
        if self.run is None:
            return set()
        jobs = [job_id(self.run_id, account, module) for module in self.run.modules]
        return {deferral for attempt in self._counting(jobs) for deferral in attempt.deferrals}

    def is_complete(self, follow_ups: Mapping[str, FollowUps]) -> bool:
        """All jobs ended, all they announced has landed, and nothing more is owed."""
        return self.published and self.jobs_open == 0 and self.run is not None and not any(self.owed(follow_ups))

    @property
    def outcome(self) -> Outcome:
        """Of a complete run."""
        failed = len(self.failures())
        if not failed:
            return Outcome.COMPLETE
        return Outcome.FAILED if self.jobs()[JobState.LANDED] == 0 else Outcome.WITH_FAILURES

    def _all_attempts(self) -> Iterator[_Attempt]:
        for attempts in self._attempts.values():
            yield from attempts.values()

    def _counting(self, jobs: Sequence[str] | None = None) -> Iterator[_Attempt]:
        """Per job the attempt that its state comes from: one that died half-way is not counted beside its successor.

        Of two that landed the one with the smaller name, so that whoever reads the events in another order agrees.
        """
        for job in self._attempts if jobs is None else jobs:
            attempts = self._attempts.get(job)
            if attempts:
                yield min(sorted(attempts.items()), key=lambda one: _BEST.index(one[1].state))[1]


class Runs:
    """The states of all runs on `run_events`, but for sessions, which are followed by who opened them."""

    def __init__(self) -> None:
        self.states: dict[str, RunState] = {}

    def apply(self, event: Event) -> RunState:
        """The state after the event. That of a session is not kept."""
        run_id = run_of(event)
        state = self.states.get(run_id) or RunState(run_id)
        if not run_id.startswith(SESSION_PREFIX):
            self.states[run_id] = state
        state.apply(event)
        return state

    def latest(self) -> RunState | None:
        """The run planned last."""
        return max(self.states.values(), key=lambda state: state.run_id, default=None)
