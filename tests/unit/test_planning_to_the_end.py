"""Whatever modules declare, a run that can be planned comes to its end when its jobs land, in any order they allow."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from support.declared import Declared

from cartoray.completion import FollowUp, FollowUps, JobState, Outcome, RunState
from cartoray.events import JobEnded, JobReleased, RunPlanned, RunPublished, StepLanded
from cartoray.jobs import Job, Run
from cartoray.planning import Request, account, plan
from cartoray.steps import CleanupNodes

ACCOUNTS = (account("111111111111"), account("222222222222"))


@st.composite
def declarations(draw: st.DrawFn) -> dict[str, Declared]:
    """Each relies on modules before it alone; what is done once is wrapped, and nobody but such relies on it."""
    known: dict[str, Declared] = {"account": Declared("account")}
    for number in range(draw(st.integers(0, 6))):
        kind = draw(st.sampled_from(["native", "native", "wrapped", "late", "once"]))
        usable = [name for name, each in known.items() if kind == "once" or not each.once]
        if kind not in {"late", "once"}:
            usable = [name for name in usable if not known[name].late]
        some = st.lists(st.sampled_from(usable), unique=True, max_size=3).map(tuple)
        name = f"m{number}"
        known[name] = Declared(
            name,
            after=draw(some) if kind == "native" else ("account",),
            needs=draw(some),
            wrapped=kind != "native",
            once=kind == "once",
            late=kind == "late",
            cleans=kind == "native" and draw(st.booleans()),
        )
    return known


@given(declarations(), st.data())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_a_run_that_can_be_planned_ends(known: dict[str, Declared], data: st.DataObject) -> None:
    asked = tuple(data.draw(st.lists(st.sampled_from(sorted(known)), unique=True, max_size=4)))
    run, jobs = plan(Request(ACCOUNTS, modules=asked), known, now_ms=1_000, nonce="x")
    assert Run.model_validate_json(run.model_dump_json()) == run
    everything = [job.job_id for job in run.jobs()]
    assert len(everything) == len(set(everything)) == run.jobs_total
    assert {job.module for job in run.jobs()} >= {*asked, "account"}
    for job in run.jobs():
        assert all(other in {*run.modules, *run.once} for other in (*job.after, *run.needs.get(job.module, ())))
    published = {job.job_id: at for at, job in enumerate(jobs)}
    for job in jobs:
        assert not run.needs.get(job.module)
        for other in job.after:  # stands before it in its partition, unless it is held itself
            before = f"{run.run_id}/{job.account.id}/{other}"
            assert before not in published or published[before] < published[job.job_id]
    _to_the_end(run, jobs, data)


def _to_the_end(run: Run, jobs: tuple[Job, ...], data: st.DataObject) -> None:
    follow_ups = {name: FollowUps(cleanup=(FollowUp(CleanupNodes(schema_path=name)),)) for name in run.modules}
    state = RunState(run.run_id)
    state.apply(RunPlanned(run=run))
    state.apply(RunPublished(run_id=run.run_id))
    waiting = {job.job_id: job for job in jobs}
    done: set[str] = set()
    while not state.is_complete(follow_ups):
        due = state.due(follow_ups)
        for job in due:
            needed = run.needs.get(job.module, ())
            accounts = [each.id for each in run.accounts] if job.account.id == "all" else [job.account.id]
            assert all(
                f"{run.run_id}/{each}/{need}" in done for need in needed if need not in run.once for each in accounts
            )
            waiting[job.job_id] = job
            state.apply(JobReleased(run_id=run.run_id, job_id=job.job_id))
        steps = [step.step_id for step in state.owed(follow_ups)]
        assert waiting or steps, f"It stands still: {state.jobs()}"
        one = data.draw(st.sampled_from(sorted([*waiting, *steps])))
        if one in waiting:
            del waiting[one]
            done.add(one)
            counted = {"messages": 0, "rows": 0, "calls": 0, "duration_ms": 0, "at_ms": 0}
            names = {"run_id": run.run_id, "job_id": one, "attempt": "a"}
            state.apply(JobEnded(**names, outcome="finished", **counted))  # type: ignore[arg-type]
        else:
            state.apply(StepLanded(run_id=run.run_id, step_id=one, at_ms=1))
    assert state.jobs() == {JobState.LANDED: run.jobs_total}
    assert state.outcome is Outcome.COMPLETE
