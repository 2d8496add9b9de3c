"""`cartoray status`, `cartoray runs`, `cartoray cancel`: runs, from and through Kafka alone."""

from __future__ import annotations

import difflib
import json
import time
from typing import Annotated

import typer
from rich.table import Table

from cartoray.cancels import publish_cancel
from cartoray.cli.common import JsonOption, progress_console, result_console, settings
from cartoray.cli.render import as_dict, seconds, state_of, summary
from cartoray.completion import JobState, Runs, RunState
from cartoray.errors import UnreadableMessage, UsageError
from cartoray.events import RunCancelled
from cartoray.kafka import Admin, read_all
from cartoray.settings import KafkaSettings
from cartoray.topics import topics


def register(app: typer.Typer) -> None:
    app.command()(status)
    app.command()(runs)
    app.command()(cancel)


def read_runs(kafka: KafkaSettings) -> Runs:
    """All runs that are in Kafka. Raises KafkaUnavailable."""
    from cartoray.cluster.coordinator import read_event

    Admin(kafka).check()
    found = Runs()
    unreadable = 0
    for message in read_all(kafka, topics(kafka).events.name):
        try:
            found.apply(read_event(message))
        except UnreadableMessage:
            unreadable += 1
    if unreadable:
        progress_console.print(f"[yellow]{unreadable} events of a newer release are left out[/]")
    return found


def status(
    run: Annotated[str | None, typer.Argument(help="a run ID, or how it begins; none: the latest run")] = None,
    json_: JsonOption = False,
) -> None:
    """The state of a run: jobs, rows, failures with their reasons, what could not be resolved."""
    from actors.modules import modules
    from cartoray.cluster.follow_ups import follow_ups

    found, wanted = read_runs(settings().kafka), follow_ups(modules())
    state = _one(found, run)
    if json_:
        print(json.dumps(as_dict(state, wanted)))
    else:
        summary(result_console, state, wanted)


def _one(found: Runs, run: str | None) -> RunState:
    """The run whose ID begins so; None: the latest. Raises UsageError."""
    latest = found.latest()
    if latest is None:
        raise UsageError("There is no run in Kafka yet. Start one with `cartoray sync`.")
    if run is None:
        return latest
    matches = [state for run_id, state in found.states.items() if run_id.startswith(run)]
    if len(matches) != 1:
        near = difflib.get_close_matches(run, found.states, n=3) or sorted(found.states)[-3:]
        what = "More than one run begins" if matches else "No run begins"
        raise UsageError(f"{what} with {run!r}. Near: {', '.join(near)}.")
    return matches[0]


def cancel(
    run: Annotated[str, typer.Argument(help="a run ID, or how it begins, as `cartoray runs` lists them")],
    json_: JsonOption = False,
) -> None:
    """Ask a run to stop: no more of its jobs are started, those under way end at their next call.

    What it found so far may be in the graph, and stays; nothing is deleted by it any more. A `cartoray sync` that waits
    for it ends with 5. It is for good: sync again to have the rest.
    """
    from actors.modules import modules
    from cartoray.cluster.follow_ups import follow_ups

    kafka, wanted = settings().kafka, follow_ups(modules())
    state = _one(read_runs(kafka), run)
    if state.is_complete(wanted):
        raise UsageError(f"Run {state.run_id} has ended ({state.outcome.value}): there is nothing to cancel.")
    if state.run is None:
        raise UsageError(f"Run {state.run_id} is too old: its plan and its jobs are no longer in Kafka.")
    before = state.cancelled_ms is not None
    # told again if it was already: whoever told it before may have been cut off half-way
    event = RunCancelled(run_id=state.run_id, at_ms=state.cancelled_ms or time.time_ns() // 1_000_000)
    Admin(kafka).ensure(topics(kafka))
    publish_cancel(kafka, event)
    state.apply(event)
    if json_:
        print(json.dumps(as_dict(state, wanted) | {"cancelled_before": before}))
        return
    progress_console.print(
        "It was cancelled before." if before else "Cancelled. Jobs under way end at their next call.", highlight=False
    )
    summary(result_console, state, wanted)


def runs(
    limit: Annotated[int, typer.Option(help="how many, the latest first", min=1)] = 20,
    json_: JsonOption = False,
) -> None:
    """The runs that Kafka knows, the latest first."""
    from actors.modules import modules
    from cartoray.cluster.follow_ups import follow_ups

    found, wanted = read_runs(settings().kafka), follow_ups(modules())
    latest = sorted(found.states.values(), key=lambda state: state.run_id, reverse=True)[:limit]
    if json_:
        print(json.dumps([as_dict(state, wanted) for state in latest]))
        return
    if not latest:
        result_console.print("No runs yet.")
        return
    table = Table("run", "state", "jobs", "failed", "rows", "seconds")
    for state in latest:
        jobs = state.jobs()
        table.add_row(
            state.run_id,
            state_of(state, wanted),
            f"{jobs[JobState.LANDED]}/{state.run.jobs_total if state.run else '?'}",
            str(jobs[JobState.FAILED]),
            f"{state.rows_landed:,}",
            f"{seconds(state):.1f}",
        )
    result_console.print(table)
