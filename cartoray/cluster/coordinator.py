"""Watches `run_events` and publishes what the runs owe: cleanups, settlements, derived links; and jobs that were held.

It holds no truth: it reads the topic from its beginning whenever it starts, and publishing a step twice changes
nothing, so any number of coordinators may run at once and any may be killed. A job that is published twice is done
twice at worst; the worker that has done it leaves the repetition out.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

from cartoray.completion import FollowUps, Runs
from cartoray.errors import UnreadableMessage
from cartoray.events import EVENT, Event, JobReleased, key_of
from cartoray.kafka import Follower, Publisher
from cartoray.messages import Message
from cartoray.settings import KafkaSettings
from cartoray.topics import Topics, topics
from cartoray.wire import encode_step, step_headers

log = logging.getLogger(__name__)
_POLL_S = 0.2


def read_event(message: Message) -> Event:
    """Raises UnreadableMessage: not an event, or one of a newer release."""
    try:
        return EVENT.validate_json(message.value)
    except ValueError:
        raise UnreadableMessage(
            f"{message.topic}[{message.partition}]@{message.offset} is not an event that this release knows."
        ) from None


class Coordinator:
    """Publishes owed steps until `stop` is set."""

    def __init__(self, settings: KafkaSettings, follow_ups: Mapping[str, FollowUps]) -> None:
        self._settings, self._follow_ups = settings, follow_ups

    def run(self, stop: threading.Event) -> None:
        """Raises KafkaUnavailable when the client cannot go on, or a step was not taken; it may be called again."""
        self._runs = Runs()
        self._published: set[str] = set()
        names = topics(self._settings)
        follower = Follower(self._settings, names.events.name, "cartoray-coordinator")
        publisher = Publisher(self._settings, "cartoray-coordinator")
        touched: set[str] = set()
        try:
            while not stop.is_set():
                for message in follower.poll(_POLL_S):
                    try:
                        state = self._runs.apply(read_event(message))
                    except UnreadableMessage as error:
                        log.warning("event_skipped reason=%s", error)
                        continue
                    touched |= ({state.run_id} if state else set()) & self._runs.states.keys()
                if follower.caught_up and touched:  # before that, a step may be owed only because it is not read yet
                    for run_id in touched:
                        self._publish_owed(run_id, publisher, names)
                    touched.clear()
        finally:
            follower.close()
            publisher.close()

    def _publish_owed(self, run_id: str, publisher: Publisher, names: Topics) -> None:
        state = self._runs.states[run_id]
        owed = [step for step in state.owed(self._follow_ups) if step.step_id not in self._published]
        jobs = [job for job in state.due(self._follow_ups) if job.job_id not in self._published]
        reports = [
            publisher.publish(names.data.name, step.account_id.encode(), encode_step(step), step_headers(step))
            for step in owed
        ] + [
            publisher.publish(names.jobs.name, job.account.id.encode(), job.model_dump_json().encode()) for job in jobs
        ]
        for report in reports:
            report.result()
        released = [JobReleased(run_id=run_id, job_id=job.job_id) for job in jobs]
        for report in [
            publisher.publish(names.events.name, key_of(event).encode(), event.model_dump_json().encode())
            for event in released
        ]:
            report.result()
        for name in (*(step.step_id for step in owed), *(job.job_id for job in jobs)):
            self._published.add(name)
            log.info("published what=%s", name)
