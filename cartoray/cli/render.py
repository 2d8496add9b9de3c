"""A run's state for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, Group
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cartoray.completion import FollowUps, JobState, RunState

FAILURES_SHOWN = 20


def as_dict(state: RunState, follow_ups: Mapping[str, FollowUps]) -> dict[str, Any]:
    """The run as JSON: what `--json` prints for one run."""
    jobs = state.jobs()
    complete = state.is_complete(follow_ups)
    return {
        "run_id": state.run_id,
        "state": state_of(state, follow_ups),
        "complete": complete,
        "planned_at": _time(state.run.planned_at_ms) if state.run else None,
        "seconds": seconds(state),
        "update_tag": state.run.update_tag if state.run else None,
        "accounts": len(state.run.accounts) if state.run else None,
        "modules": list(state.run.modules) if state.run else None,
        "jobs": {"total": state.run.jobs_total if state.run else None, **{name.value: jobs[name] for name in JobState}},
        "rows": state.rows_landed,
        "api_calls": state.calls,
        "nodes_deleted": sum(step.nodes_deleted for step in state.steps.values()),
        "relationships_deleted": sum(step.relationships_deleted for step in state.steps.values()),
        "relationships_settled": sum(step.relationships_settled for step in state.steps.values()),
        "failures": [
            {"job": failure.job_id, "reason": failure.reason}
            | ({"traceback": text} if (text := state.traceback(failure.job_id)) else {})
            for failure in state.failures()
        ],
        "skipped": [{"job": failure.job_id, "reason": failure.reason} for failure in state.skipped()],
        "unresolved": [entry.model_dump() for entry in state.unresolved()],
        "skipped_regions": {account: list(regions) for account, regions in state.skipped_regions().items()},
    }


def state_of(state: RunState, follow_ups: Mapping[str, FollowUps]) -> str:
    """One word or a few: what a list of runs says."""
    if state.run is None:
        return "unknown: its plan is no longer in Kafka"
    ended = state.ended(follow_ups)
    if ended is not None:
        return ended.value
    if state.cancelled_ms is not None:
        return "cancelling"
    if not state.published:
        return "cut off while it was being published: sync again"
    return "settling" if state.jobs_open == 0 else "running"


def seconds(state: RunState) -> float:
    """From planning to the last event so far."""
    return round((state.last_event_ms - state.run.planned_at_ms) / 1000, 1) if state.run else 0.0


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds")


def progress_line(state: RunState, rows_per_s: float) -> str:
    """The progress as one plain line, for logs and pipes."""
    jobs = state.jobs()
    total = state.run.jobs_total if state.run else 0
    text = (
        f"{jobs[JobState.LANDED]}/{total} jobs landed, {jobs[JobState.STARTED] + jobs[JobState.LANDING]} under way, "
        f"{jobs[JobState.FAILED]} failed, {jobs[JobState.SKIPPED]} skipped; "
        f"{state.rows_landed:,} rows ({rows_per_s:,.0f}/s)"
    )
    if state.cancelled_ms is not None:
        return f"{text}; cancelled"
    return text if state.jobs_open or not total else f"{text}; cleaning up and settling"


def progress(state: RunState, rows_per_s: float, elapsed_s: float) -> Group:
    """The progress as a picture that moves."""
    jobs = state.jobs()
    total = state.run.jobs_total if state.run else 0
    ended = total - state.jobs_open
    table = Table.grid(padding=(0, 2))
    table.add_row("run", state.run_id)
    table.add_row(
        "jobs",
        f"[green]{jobs[JobState.LANDED]} landed[/]  [cyan]{jobs[JobState.LANDING]} landing[/]  "
        f"[yellow]{jobs[JobState.STARTED]} started[/]  {jobs[JobState.PLANNED]} planned  "
        f"[{'red' if jobs[JobState.FAILED] else 'dim'}]{jobs[JobState.FAILED]} failed[/]  "
        f"[dim]{jobs[JobState.SKIPPED]} skipped[/]"
        + (f"  [yellow]{jobs[JobState.CANCELLED]} cancelled[/]" if jobs[JobState.CANCELLED] else ""),
    )
    table.add_row("rows", f"{state.rows_landed:,} in the graph, {rows_per_s:,.0f}/s")
    table.add_row("steps", f"{len(state.steps)} cleanups and settlements done")
    bar = Table.grid(padding=(0, 2))
    bar.add_row(ProgressBar(total=max(total, 1), completed=ended, width=48), f"{ended}/{total}", f"{elapsed_s:.0f} s")
    return Group(bar, table)


def summary(console: Console, state: RunState, follow_ups: Mapping[str, FollowUps]) -> None:
    """What a person reads when the run has ended, or asks for its status."""
    data = as_dict(state, follow_ups)
    colour = {"complete": "green", "running": "cyan", "settling": "cyan"}.get(data["state"], "yellow")
    console.print(Text.assemble(("run ", "bold"), state.run_id, ": ", (data["state"], f"bold {colour}")))
    if state.run is None:
        return
    table = Table.grid(padding=(0, 2))
    jobs = data["jobs"]
    table.add_row(
        "jobs",
        f"{jobs['total']} ({data['accounts']} accounts × {len(data['modules'])} modules): "
        + ", ".join(f"{jobs[name.value]} {name.value}" for name in JobState if jobs[name.value]),
    )
    table.add_row("rows", f"{data['rows']:,} in {data['seconds']:.1f} s, {data['api_calls']:,} API calls")
    table.add_row("deleted", f"{data['nodes_deleted']:,} nodes, {data['relationships_deleted']:,} relationships")
    if data["relationships_settled"]:
        table.add_row("settled", f"{data['relationships_settled']:,} relationships whose other end came later")
    console.print(table)
    for entry in state.unresolved():
        sample = f", e.g. {escape(', '.join(entry.sample))}" if entry.sample else ""
        console.print(
            f"[yellow]unresolved[/] {entry.rows:,} × {escape(entry.relationship)}: "
            f"no such {entry.target_label}{sample}",
            soft_wrap=True,
        )
    for account, regions in state.skipped_regions().items():
        console.print(f"[dim]account {account}: not enabled there: {', '.join(regions)}[/]")
    for word, failures in (("[red]failed[/]", state.failures()), ("[yellow]skipped[/]", state.skipped())):
        for failure in failures[:FAILURES_SHOWN]:
            name = failure.job_id.split("/", 1)[1]
            console.print(f"{word} {escape(name)}: {escape(failure.reason)}", soft_wrap=True)
        if len(failures) > FAILURES_SHOWN:
            console.print(f"… and {len(failures) - FAILURES_SHOWN} more: cartoray status {state.run_id} --json")
