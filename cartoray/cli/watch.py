"""Follows one run on `run_events` until it has ended, and shows how it goes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping

from rich.live import Live

from cartoray.cli.common import progress_console
from cartoray.cli.render import progress, progress_line
from cartoray.cluster.coordinator import read_event
from cartoray.completion import FollowUps, JobState, RunState
from cartoray.errors import UnreadableMessage, UsageError
from cartoray.events import PoolScaled, run_of
from cartoray.kafka import Follower
from cartoray.settings import KafkaSettings
from cartoray.topics import topics

_POLL_S = 0.1
_LINE_EVERY_S = 2.0
_RATE_OVER_S = 5.0
_NO_WORKER_AFTER_S = 20.0


class _Rate:
    """Rows per second over the last seconds."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, int]] = deque()

    def __call__(self, now: float, rows: int) -> float:
        self._points.append((now, rows))
        while now - self._points[0][0] > _RATE_OVER_S:
            self._points.popleft()
        elapsed = now - self._points[0][0]
        return (rows - self._points[0][1]) / elapsed if elapsed else 0.0


class _Display:
    """Moves on a terminal; elsewhere it prints a line when something changed, at most every two seconds."""

    def __init__(self, *, quiet: bool) -> None:
        self._live = Live(console=progress_console, refresh_per_second=8) if progress_console.is_terminal else None
        self._quiet = quiet
        self._rate, self._began = _Rate(), time.monotonic()
        self._printed, self._line = 0.0, ""
        if self._live and not quiet:
            self._live.start()

    def show(self, state: RunState, *, last: bool = False) -> None:
        now = time.monotonic()
        rate = self._rate(now, state.rows_landed)
        if self._quiet:
            return
        if self._live:
            self._live.update(progress(state, rate, now - self._began))
        elif last or now - self._printed >= _LINE_EVERY_S:
            line = progress_line(state, rate)
            if last or line != self._line:
                progress_console.print(line, highlight=False, soft_wrap=True)
            self._printed, self._line = now, line

    def say(self, text: str) -> None:
        if not self._quiet:
            progress_console.print(text, highlight=False, soft_wrap=True)

    def close(self) -> None:
        if self._live and not self._quiet:
            self._live.stop()


def watch(
    settings: KafkaSettings,
    run_id: str,
    follow_ups: Mapping[str, FollowUps],
    *,
    quiet: bool,
    check: Callable[[], None] = lambda: None,
) -> RunState:
    """The state of the run once it has ended. `check` is called several times a second and may raise to end this.

    Raises KafkaUnavailable, and UsageError when the run was never published as a whole.
    """
    follower = Follower(settings, topics(settings).events.name, "cartoray-watch")
    state, display, began, hinted = RunState(run_id), _Display(quiet=quiet), time.monotonic(), False
    try:
        while True:
            for message in follower.poll(_POLL_S):
                try:
                    event = read_event(message)
                except UnreadableMessage:  # of a newer release: not of this run
                    continue
                if run_of(event) == run_id:
                    state.apply(event)
                elif isinstance(event, PoolScaled) and state.run and event.at_ms >= state.run.planned_at_ms:
                    display.say(f"{event.pool} pool: {event.before} → {event.target} members, {event.reason}")
            if follower.caught_up:
                if state.run is None or not state.published:
                    raise UsageError(f"Run {run_id} is not in Kafka, or its publication was cut off.")
                if state.ended(follow_ups) is not None:
                    display.show(state, last=True)
                    return state
                display.show(state)
                untouched = state.jobs()[JobState.PLANNED] == state.run.jobs_total
                if untouched and not hinted and time.monotonic() - began > _NO_WORKER_AFTER_S:
                    hinted = True
                    display.say("No worker has taken a job yet. Start them elsewhere with `cartoray serve`.")
            check()
    finally:
        display.close()
        follower.close()
