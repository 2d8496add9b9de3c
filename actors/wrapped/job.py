"""One attempt at a job that runs Cartography's own code.

A module of AWS runs in a thread of its own, with an event loop of its own, since Cartography leaves loops behind in the
threads that it runs in. See `docs/moving.md` for what else its modules keep for a whole process.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import lru_cache

from actors.cloud import Cloud, Sessions
from actors.extraction import Extracted
from actors.transforms import load_module
from actors.wrapped.aws import run_module
from actors.wrapped.configuration import configuration
from actors.wrapped.session import GraphDriver
from cartoray.errors import CloudDenied
from cartoray.jobs import Job

_LOOK_EVERY_S = 0.2


def _remember_version() -> None:
    """Cartography reads its own version from the files of its distribution, for each query that it builds."""
    version = load_module("cartography.version")
    if not hasattr(version.get_release_version_and_commit_revision, "cache_info"):
        version.get_release_version_and_commit_revision = lru_cache(version.get_release_version_and_commit_revision)


class WrappedJob:
    """`check` is called often, also before each API call, and raises to end the attempt."""

    def __init__(self, job: Job, *, attempt: str, cloud: Cloud, graph: GraphDriver, check: Callable[[], None]) -> None:
        self._job, self._cloud, self._check = job, cloud, check
        self._session = graph.session_of(job, attempt, check)
        self._raised: BaseException | None = None
        self.found = Extracted()

    def acknowledged(self) -> int:
        """How many messages were sent, when Kafka has them all. Raises KafkaUnavailable."""
        return len([report.result() for report in self._session.stream.reports])

    def run(self) -> None:
        """Returns when the module has ended; `found` says how. Raises what the module, or `check`, raises."""
        try:
            _remember_version()
            self._regions = () if self._job.accounts else self._enabled()
            self._config = configuration(self._job.options)
            sessions = self._cloud.sessions(self._job.role_name, self._check)
            self._session.withholds = lambda: bool(sessions.missing)
            thread = threading.Thread(target=self._call, args=(sessions,), name=self._job.job_id, daemon=True)
            thread.start()
            while thread.is_alive():
                thread.join(_LOOK_EVERY_S)
                self._check()
            self.found.calls, self.found.rows = sessions.calls, self._session.rows
            self.found.failures = [f"{text}. Its nodes stay." for text in sessions.missing]
        finally:
            self._session.close()  # a thread that nobody waits for ends at its next call
        if self._raised is not None:
            self._check()  # if it is over as a whole, that is the reason
            raise self._raised

    def _enabled(self) -> tuple[str, ...]:
        """Where to look. Regions that are asked for and not enabled are empty, and would be taken for refused."""
        job = self._job
        try:
            enabled = self._cloud.regions(job.account, job.role_name, self._check)
        except CloudDenied:
            if not job.regions:
                raise
            return job.regions
        self.found.skipped_regions = [region for region in job.regions if region not in enabled]
        return tuple(region for region in job.regions or enabled if region in enabled)

    def _call(self, sessions: Sessions) -> None:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            run_module(self._job, self._session, self._config, sessions, self._regions)
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            self._raised = error
        finally:
            loop.run_until_complete(loop.shutdown_default_executor())
            asyncio.set_event_loop(None)
            loop.close()
