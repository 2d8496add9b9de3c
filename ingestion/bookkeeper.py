"""Keeps a member's `ingestion.ledger` and the topic in step: read when a run begins, written after each batch."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future

from cartoray.kafka import Publisher, read_all
from cartoray.settings import KafkaSettings
from cartoray.topics import topics
from ingestion.ledger import BASE_KEY, Judgement, Ledger, Mark, Written

log = logging.getLogger(__name__)

_TRIES, _PAUSE_S = 3, 0.1  # a sibling may have committed what it has not counted yet


class Bookkeeper:
    """Its calls come from one thread. They block until Kafka has answered, and raise KafkaUnavailable."""

    def __init__(self, settings: KafkaSettings, publisher: Publisher, *, fingerprints: bool) -> None:
        """`fingerprints`: whether any are to be relied on, and written."""
        self.ledger = Ledger()
        self._settings = settings
        self._topic = topics(settings).ledger.name
        self._publisher = publisher
        self._fingerprints = fingerprints
        self._published: dict[str, Written] = {}  # by database

    def begin(self, run_id: str, newest: Callable[[], Mark | None], commits: Mapping[str, int]) -> None:
        """Before a member's first batch of a run: looks whether others wrote since the run before it began.

        Again when it has more partitions: whoever had them may have done more.

        `newest` asks the database for its newest transaction; `commits` are those of this member, by database.
        """
        self.ledger.committed(commits)
        judgement = None
        for left in reversed(range(_TRIES if self._fingerprints else 0)):
            if (now := newest()) is None:
                break
            self._read()
            judgement = self.ledger.judge(run_id, now)
            if judgement.others == 0 or left == 0:
                break
            time.sleep(_PAUSE_S)
        if judgement is not None and judgement.is_new:
            judgement = self._publish(run_id, judgement)
        self.ledger.begin(run_id, judgement)

    def _publish(self, run_id: str, judgement: Judgement) -> Judgement:
        """Of several that members publish at once the first one counts."""
        if judgement.others:
            log.info("graph_changed_by_others run=%s transactions=%d", run_id, judgement.others)
        base = judgement.base
        self._publisher.publish(self._topic, BASE_KEY, base.model_dump_json().encode()).result()
        self._read()
        return self.ledger.judge(run_id, Mark(base.database, base.number))

    def _read(self) -> None:
        self.ledger.read((message.key, message.value) for message in read_all(self._settings, self._topic))

    def count(self, commits: Mapping[str, int]) -> list[Future[tuple[int, int]]]:
        """Publishes what this member did, if that is more than the last time; answers what Kafka will acknowledge."""
        self.ledger.committed(commits)
        reports = []
        for database in commits:
            written = self.ledger.written(database)
            if written != self._published.get(database):
                self._published[database] = written
                key, value = self.ledger.member.encode(), written.model_dump_json().encode()
                reports.append(self._publisher.publish(self._topic, key, value))
        return reports
