"""Events of a run → its state: what has landed, what failed, what is still owed, and whether it is complete.

The state is the same whatever the order of the events and however often each is told, because every event is a fact
that is added to a set. So it can be rebuilt from `run_events` by anybody at any time.

A job is *landed* when an attempt finished and all messages it announced are in Neo4j (counted, not guessed from lag);
*failed* when an attempt failed, or a message of it was refused; *skipped* when it needs another that failed or was
skipped. All three have *ended*, and so has one that was *cancelled* with its run. A job that could not have all that it
asked for has failed as well, but what needs it is not skipped: what it did find is in the graph, and true.

A run that is *cancelled* owes nothing any more, and its jobs that are not under way have ended; it has when no job is
left that is. One that was complete when the cancel came stays complete: whether it was, the times of its events say.

What follows is owed to an account, and then to the run, in this order, each as soon as what is before it has landed:

    jobs that need others    one by one, when those have landed, and are cleaned up where that is asked for
    settlement, late jobs    where there are such: relationships whose other end had not landed; jobs that read these
    cleanup                  when all jobs of the account have ended
    settlement, links        when all jobs of all accounts have ended: what is left of the former, and derived links
    jobs that are done once  for all accounts together
    settlement               of these

A run is complete when nothing is left. A cleanup is owed only for modules that landed, and only where every module that
refreshes what it would delete landed too: a failed job never deletes.
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
    JobReleased,
    JobStarted,
    MessageRefused,
    Place,
    PoolScaled,
    QueryLanded,
    RunCancelled,
    RunPlanned,
    RunPublished,
    StepLanded,
    Unresolved,
    run_of,
)
from cartoray.jobs import EVERY_ACCOUNT, SESSION_PREFIX, Account, Job, Run, job_id
from cartoray.steps import Action, CleanupNodes, Settle, Step, settlements

_OfAttempt = JobStarted | JobEnded | BatchLanded | QueryLanded | MessageRefused


class JobState(StrEnum):
    """Where a job stands. *landing*: extracted, its messages not all in Neo4j yet."""

    PLANNED = "planned"
    STARTED = "started"
    LANDING = "landing"
    LANDED = "landed"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


ENDED = frozenset({JobState.LANDED, JobState.FAILED, JobState.SKIPPED, JobState.CANCELLED})


class Standing(StrEnum):
    """What a job is to those that need it."""

    OPEN = "open"
    USABLE = "usable"
    ABSENT = "absent"


class Outcome(StrEnum):
    COMPLETE = "complete"
    WITH_FAILURES = "complete with failed jobs"
    FAILED = "failed"
    CANCELLED = "cancelled"


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
    untouched: set[Place] = field(default_factory=set)

    @property
    def settled(self) -> bool:
        """Everything that it announced has landed or was refused."""
        if self.ended is None:
            return False
        known = self.landed.keys() | self.refused.keys()
        return sum(sequence < self.ended.messages for sequence in known) == self.ended.messages

    @property
    def state(self) -> JobState:
        if self.ended is None:
            return JobState.STARTED
        if self.ended.outcome == "cancelled":
            return JobState.CANCELLED
        if not self.settled:
            return JobState.LANDING
        return JobState.LANDED if self.ended.outcome == "finished" and not self.refused else JobState.FAILED

    @property
    def usable(self) -> bool:
        """What it found is in the graph, and true."""
        told = self.ended is not None and self.ended.outcome not in ("failed", "cancelled")
        return told and self.settled and not self.refused


_BEST = (JobState.LANDED, JobState.LANDING, JobState.FAILED, JobState.CANCELLED, JobState.STARTED)


@dataclass(frozen=True)
class Failure:
    """A job that failed or was skipped, and why, in words that need no log."""

    job_id: str
    reason: str


class RunState:
    """The state of one run. `apply` is commutative and idempotent; everything else only reads."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.run: Run | None = None
        self.published = False
        self.cancelled_ms: int | None = None  # when, if it was
        self.steps: dict[str, StepLanded] = {}
        self.last_event_ms = 0
        self._attempts: dict[str, dict[str, _Attempt]] = {}
        self._jobs: set[str] = set()  # that were planned: what is told of any other changes nothing
        self._released: set[str] = set()
        self._states: dict[str, JobState] = {}
        self._standings: dict[str, Standing] = {}
        self._of_module: dict[str, Counter[Standing]] = {}  # over the accounts
        self._dependents: dict[str, list[str]] = {}
        self._open: Counter[str] = Counter()  # account → jobs that have not ended
        self._open_early: Counter[str] = Counter()  # of those, the ones that are not late
        self._held: dict[str, set[str]] = {}  # account → modules whose jobs are not on `intel_jobs` yet
        self._touched: set[str] = set()  # accounts for which a job may have become due

    def apply(self, event: Event) -> None:
        """Adds a fact. Raises UnreadableMessage for an event of another run."""
        if run_of(event) != self.run_id:
            raise UnreadableMessage(f"An event of run {run_of(event)} for the state of {self.run_id}.")
        if isinstance(event, RunCancelled) or (isinstance(event, JobEnded) and event.outcome == "cancelled"):
            self._cancel(event.at_ms)  # a worker may have heard of it before we did
        else:
            self.last_event_ms = max(self.last_event_ms, getattr(event, "at_ms", 0))
        match event:
            case RunPlanned():
                self._plan(event.run)
            case RunPublished():
                self.published = True
            case StepLanded():
                self.steps.setdefault(event.step_id, event)
                self._touched.update(event.step_id.split("/")[2:3])
            case JobReleased():
                self._released.add(event.job_id)
                self._refresh(event.job_id)
            case PoolScaled() | RunCancelled():
                pass
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
                attempt.untouched.update(event.untouched)
            case QueryLanded():
                attempt.landed[event.sequence] = 0
            case MessageRefused():
                attempt.refused[event.sequence] = event.reason

    def _plan(self, run: Run) -> None:
        if self.run is not None:
            return
        self.run = run
        self.last_event_ms = max(self.last_event_ms, run.planned_at_ms)
        for module, needed in run.needs.items():
            for other in needed:
                self._dependents.setdefault(other, []).append(module)
        for job in run.jobs():
            self._jobs.add(job.job_id)
            self._open[job.account.id] += 1
            self._open_early[job.account.id] += job.module not in run.late
        for job in run.jobs():
            self._refresh(job.job_id)

    def _cancel(self, at_ms: int) -> None:
        known = self.cancelled_ms is not None
        self.cancelled_ms = min(at_ms, self.cancelled_ms) if self.cancelled_ms is not None else at_ms
        if self.run is not None and not known:
            for job in self.run.jobs():
                self._refresh(job.job_id)

    def _refresh(self, job: str) -> None:
        if self.run is None or job not in self._jobs:
            return  # its events are kept, and counted when the plan arrives
        _, account, module = job.split("/")
        before, stood = self._states.get(job, JobState.PLANNED), self._standings.get(job, Standing.OPEN)
        after, stands = self._state_now(job, account, module)
        self._states[job], self._standings[job] = after, stands
        self._touched.add(account)
        held = self._held.setdefault(account, set())
        if self.run.held(module) and after is JobState.PLANNED and job not in self._released:
            held.add(module)
        else:
            held.discard(module)
        ended = (after in ENDED) - (before in ENDED)
        self._open[account] -= ended
        self._open_early[account] -= ended if module not in self.run.late else 0
        if stands is not stood:
            if account != EVERY_ACCOUNT:
                self._of_module.setdefault(module, Counter()).update({stands: 1, stood: -1})
            for dependent in self._dependents.get(module, ()):
                whose = EVERY_ACCOUNT if dependent in self.run.once else account
                self._refresh(job_id(self.run_id, whose, dependent))

    def _state_now(self, job: str, account: str, module: str) -> tuple[JobState, Standing]:
        if attempts := self._attempts.get(job, {}).values():
            state = min((attempt.state for attempt in attempts), key=_BEST.index)
            if any(attempt.usable for attempt in attempts):
                standing = Standing.USABLE
            else:  # not by attempt: one that died half-way is open for ever, and nobody may wait for it
                gone = state in ENDED and state is not JobState.CANCELLED
                standing = Standing.ABSENT if gone else Standing.OPEN
        elif self._absent_needs(account, module):
            state, standing = JobState.SKIPPED, Standing.ABSENT
        else:
            state, standing = JobState.PLANNED, Standing.OPEN
        if self.cancelled_ms is not None and state in (JobState.PLANNED, JobState.LANDING):
            state = JobState.CANCELLED
        return state, standing

    def _absent_needs(self, account: str, module: str) -> list[str]:
        """The needs of a job that failed or were skipped; of one for all accounts, in any of these."""
        needs = self.run.needs.get(module, ()) if self.run else ()
        return [need for need in needs if self._count(account, need, Standing.ABSENT)]

    def _count(self, account: str, need: str, standing: Standing) -> int:
        """How many of the jobs that `need` means to a job of `account` stand so."""
        if account == EVERY_ACCOUNT and self.run and need not in self.run.once:
            return self._of_module.get(need, Counter())[standing]
        return self._standings.get(job_id(self.run_id, account, need)) is standing

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
        """Jobs that failed, and steps that could not be done, with their reasons, by name."""
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

    def skipped(self) -> list[Failure]:
        """Jobs that were not done, and which that they need did not land, by job."""
        found = []
        for job, state in sorted(self._states.items()):
            if state is JobState.SKIPPED:
                _, account, module = job.split("/")
                absent = self._absent_needs(account, module)
                who = " in every account" if account == EVERY_ACCOUNT else ""
                found.append(Failure(job, f"It needs {', '.join(absent)}{who}, which did not land."))
        return found

    def traceback(self, job: str) -> str:
        """Of a job whose module raised; empty for any other."""
        ends = [attempt.ended for attempt in self._attempts.get(job, {}).values() if attempt.ended]
        return next((end.traceback for end in ends if end.traceback), "")

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
        """Jobs that have not ended."""
        return sum(self._open.values())

    def due(self, follow_ups: Mapping[str, FollowUps]) -> list[Job]:
        """Held jobs that are to be put on `intel_jobs` now, and are not known to be there."""
        if self.run is None or not self.published:
            return []
        found = []
        for account in self.run.accounts:
            if account.id in self._touched:
                held = self._held.get(account.id, set())
                due = {name for name in held if self._is_due(account.id, name, follow_ups)}
                found += [self.run.job(account, name) for name in self.run.modules if name in due]
        # due jobs stay to be asked for until somebody says that they were released
        self._touched = {job.account.id for job in found}
        if self._held.get(EVERY_ACCOUNT) and not self._open_of_accounts and not any(self.owed(follow_ups)):
            every = Account(id=EVERY_ACCOUNT)
            for name in self.run.once:
                if name in self._held[EVERY_ACCOUNT] and self._is_due(EVERY_ACCOUNT, name, follow_ups):
                    found.append(self.run.job(every, name))
        return found

    def _is_due(self, account: str, module: str, follow_ups: Mapping[str, FollowUps]) -> bool:
        assert self.run is not None
        if module in self.run.late and (
            self._open_early[account] or any(self._due("settle-early", account, self._settle_early(account)))
        ):
            return False
        return all(self._is_ready(account, need, follow_ups) for need in self.run.needs.get(module, ()))

    def _is_ready(self, account: str, need: str, follow_ups: Mapping[str, FollowUps]) -> bool:
        """Whether a job of `account` may rely on module `need`."""
        assert self.run is not None
        wanted = 1 if account != EVERY_ACCOUNT or need in self.run.once else len(self.run.accounts)
        if self._count(account, need, Standing.USABLE) < wanted:
            return False
        return account == EVERY_ACCOUNT or not any(self._own_cleanup(account, need, follow_ups))

    @property
    def _open_of_accounts(self) -> int:
        return self.jobs_open - self._open[EVERY_ACCOUNT]

    def owed(self, follow_ups: Mapping[str, FollowUps]) -> Iterator[Step]:
        """Steps that are due and have not landed. The same state gives the same steps, ids included."""
        if self.cancelled_ms is None:
            yield from self._owed(follow_ups)

    def _owed(self, follow_ups: Mapping[str, FollowUps]) -> Iterator[Step]:
        """As if it had not been cancelled."""
        if self.run is None or not self.published:
            return
        for account in self.run.accounts:
            for module in self.run.cleaned:
                yield from self._own_cleanup(account.id, module, follow_ups)
            if self.run.late and self._open_early[account.id] == 0:
                yield from self._due("settle-early", account.id, self._settle_early(account.id))
            if self._open[account.id] == 0:
                yield from self._due("cleanup", account.id, self._cleanup(account.id, follow_ups), together=True)
        if self._open_of_accounts == 0:
            for account in self.run.accounts:
                yield from self._due("settle", account.id, self._settle_last(account.id))
                yield from self._due("derive", account.id, self._derive(account.id, follow_ups), together=True)
        if self.jobs_open == 0:
            deferrals = self._deferrals(EVERY_ACCOUNT, self.run.once)
            yield from self._due("settle", EVERY_ACCOUNT, list(settlements(deferrals)))

    def _due(self, name: str, account: str, actions: Sequence[Action], *, together: bool = False) -> Iterator[Step]:
        """The actions as steps, one each or all in one, but for those that have landed."""
        for part in [actions] if together and actions else [[action] for action in actions]:
            step_id = self._step_id(name, account, part)
            if step_id not in self.steps and self.run is not None:
                yield Step(
                    run_id=self.run_id,
                    update_tag=self.run.update_tag,
                    step_id=step_id,
                    account_id=account,
                    actions=tuple(part),
                    untouched=self._untouched(account) if any(isinstance(each, CleanupNodes) for each in part) else (),
                )

    def _step_id(self, name: str, account: str, actions: Sequence[Action]) -> str:
        # it follows the content: should a late event change what is owed, that is another step
        content = "".join(action.model_dump_json() for action in actions)
        return f"{self.run_id}/{name}/{account}/{hashlib.sha256(content.encode()).hexdigest()[:12]}"

    def _own_cleanup(self, account: str, module: str, follow_ups: Mapping[str, FollowUps]) -> Iterator[Step]:
        """Of a module that others wait for: what it needs nobody else for, before all of its account have ended."""
        if self.run and module in self.run.cleaned and self.job_state(account, module) is JobState.LANDED:
            own = [wanted.action for wanted in follow_ups.get(module, FollowUps()).cleanup if not wanted.refreshed_by]
            yield from self._due(f"cleanup-{module}", account, own, together=True)

    def _cleanup(self, account: str, follow_ups: Mapping[str, FollowUps]) -> list[Action]:
        cleaned = self.run.cleaned if self.run else ()
        return [
            action
            for module in self._landed_modules(account)
            for action in self._allowed(
                account,
                [
                    wanted
                    for wanted in follow_ups.get(module, FollowUps()).cleanup
                    if wanted.refreshed_by or module not in cleaned
                ],
            )
        ]

    def _derive(self, account: str, follow_ups: Mapping[str, FollowUps]) -> list[Action]:
        return [
            action
            for module in self._landed_modules(account)
            for action in self._allowed(account, follow_ups.get(module, FollowUps()).derive)
        ]

    def _settle_early(self, account: str) -> list[Settle]:
        """What late jobs read."""
        assert self.run is not None
        early = [module for module in self.run.modules if module not in self.run.late]
        return list(settlements(self._deferrals(account, early)))

    def _settle_last(self, account: str) -> list[Settle]:
        """What was deferred, but for what the settlement before the late jobs has resolved as a whole."""
        assert self.run is not None
        deferrals = self._deferrals(account, self.run.modules)
        for settle in self._settle_early(account) if self.run.late else ():
            landed = self.steps.get(self._step_id("settle-early", account, [settle]))
            if landed is not None and not landed.unresolved and not landed.reason:
                deferrals -= set(settle.deferrals)
        return list(settlements(deferrals))

    def _allowed(self, account: str, wanted: Sequence[FollowUp]) -> list[Action]:
        return [
            follow_up.action
            for follow_up in wanted
            if all(self.job_state(account, module) is JobState.LANDED for module in follow_up.refreshed_by)
        ]

    def _landed_modules(self, account: str) -> list[str]:
        """Native ones: the others have cleaned up and linked themselves."""
        modules = [module for module in self.run.modules if module not in self.run.wrapped] if self.run else ()
        return [module for module in modules if self.job_state(account, module) is JobState.LANDED]

    def _deferrals(self, account: str, modules: Sequence[str]) -> set[Deferral]:
        jobs = [job_id(self.run_id, account, module) for module in modules]
        return {deferral for attempt in self._counting(jobs) for deferral in attempt.deferrals}

    def _untouched(self, account: str) -> tuple[Place, ...]:
        """Of all attempts, also of one that is not counted: what it found was there."""
        jobs = (job_id(self.run_id, account, module) for module in (self.run.modules if self.run else ()))
        attempts = (attempt for job in jobs for attempt in self._attempts.get(job, {}).values())
        return tuple(sorted({place for attempt in attempts for place in attempt.untouched}))

    def is_complete(self, follow_ups: Mapping[str, FollowUps]) -> bool:
        """All jobs have ended, and nothing more is owed; and that was so before it was cancelled, if it was."""
        if self.cancelled_ms is not None and (
            self.last_event_ms > self.cancelled_ms or self.jobs()[JobState.CANCELLED]
        ):
            return False
        return self.published and self.jobs_open == 0 and self.run is not None and not any(self._owed(follow_ups))

    def ended(self, follow_ups: Mapping[str, FollowUps]) -> Outcome | None:
        """How the run ended; None while it goes on."""
        if self.is_complete(follow_ups):
            return self.outcome
        return Outcome.CANCELLED if self.cancelled_ms is not None and self.jobs_open == 0 else None

    @property
    def outcome(self) -> Outcome:
        """Of a complete run."""
        if not self.failures() and not self.skipped():
            return Outcome.COMPLETE
        return Outcome.FAILED if self.jobs()[JobState.LANDED] == 0 else Outcome.WITH_FAILURES

    def _all_attempts(self) -> Iterator[_Attempt]:
        for attempts in self._attempts.values():
            yield from attempts.values()

    def _counting(self, jobs: Sequence[str] | None = None) -> Iterator[_Attempt]:
        """Per job the attempt that its state comes from: one that died half-way is not counted beside its successor.

        Of two that landed the one with the smaller name, so that whoever reads the events in another order agrees.
        """
        for job in self._jobs if jobs is None else jobs:
            attempts = self._attempts.get(job)
            if attempts:
                yield min(sorted(attempts.items()), key=lambda one: _BEST.index(one[1].state))[1]


class Runs:
    """The states of all runs on `run_events`, but for sessions, which are followed by who opened them."""

    def __init__(self) -> None:
        self.states: dict[str, RunState] = {}

    def apply(self, event: Event) -> RunState | None:
        """The state after the event; None if it is of no run. That of a session is not kept."""
        run_id = run_of(event)
        if not run_id:
            return None
        state = self.states.get(run_id) or RunState(run_id)
        if not run_id.startswith(SESSION_PREFIX):
            self.states[run_id] = state
        state.apply(event)
        return state

    def latest(self) -> RunState | None:
        """The run planned last."""
        return max(self.states.values(), key=lambda state: state.run_id, default=None)
