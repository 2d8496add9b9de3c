"""Runs of one account that land through one member, one after the other, and what stock would make of the same rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import neo4j
from cartography.client.core.tx import load
from ingestion_rows import ACCOUNT, INSTANCE, OTHER, REGION, TAG, messages, run, snapshot
from ingestion_topics import Bench
from support.databases import empty, open_graph

from cartoray import schemas
from cartoray.events import EVENT, BatchLanded, Event, Place, QueryLanded, StepLanded
from cartoray.jobs import Touch
from cartoray.kafka import Follower
from cartoray.messages import Message
from cartoray.queries import Query, encode_query
from cartoray.settings import Settings
from cartoray.steps import CleanupNodes
from cartoray.wire import Origin, query_headers
from ingestion.sink import Sink

Rows = Sequence[dict[str, Any]]


@contextmanager
def shared_syncs(settings: Settings, *names: str) -> Iterator[Syncs]:
    """Into an empty graph. Neo4j knows the `names` of properties: to make one is a transaction that nobody counts."""
    bench = Bench(settings)
    with open_graph(settings.neo4j) as graph, bench.sink() as sink:
        empty(graph)
        for name in names:
            run(graph, "CALL db.createProperty($name)", name=name)
        with closing(Syncs(bench, sink, graph)) as syncs:
            yield syncs
    bench.close()


class Syncs:
    """Of EC2 instances. `tag` is the newest run's."""

    def __init__(self, bench: Bench, sink: Sink, graph: neo4j.Driver) -> None:
        self.bench, self.sink, self.graph = bench, sink, graph
        self.number = 0
        self.queries = 0
        self._follower = Follower(bench.settings.kafka, bench.topics.events.name, "test", from_end=False)
        self._events: list[Event] = []

    def close(self) -> None:
        self._follower.close()

    def start_over(self, rows: Rows) -> Syncs:
        """Nothing but two accounts, and two syncs: during the first one, Neo4j makes what is new to it."""
        run(self.graph, "MATCH (n:AWSEC2Instance) DETACH DELETE n")
        run(self.graph, "UNWIND $ids AS id MERGE (:AWSAccount {id: id, lastupdated: 0})", ids=[ACCOUNT, OTHER])
        for _ in range(2):
            self.sync(rows)
        return self

    @property
    def run_id(self) -> str:
        return f"run-{self.number}"

    @property
    def tag(self) -> int:
        return TAG + self.number

    def sync(self, rows: Rows, touch: Touch = "always", account: str = ACCOUNT) -> int:
        """Answers how many rows were recognised."""
        self.number += 1
        before = self.sink.status().rows_recognised
        self.publish(rows, touch, account)
        return self.sink.status().rows_recognised - before

    def publish(self, rows: Rows, touch: Touch = "always", account: str = ACCOUNT) -> None:
        """In the newest run."""
        before = sum(sum(event.rows) for event in self._batches())
        job = f"module-{account}"
        self.bench.publish(
            messages(
                INSTANCE, rows, account=account, tag=self.tag, run=self.run_id, module=job, per_message=10, touch=touch
            )
        )
        self._until(lambda: sum(sum(event.rows) for event in self._batches()) == before + len(rows))

    def cleanup(
        self, account: str = ACCOUNT, number: int | None = None, untouched: Sequence[Place] | None = None
    ) -> StepLanded:
        """That of an account in the newest run, or in run `number`."""
        number = self.number if number is None else number
        run_id = f"run-{number}"
        if untouched is None:
            batches = [event for event in self._events if isinstance(event, BatchLanded)]
            job = f"{run_id}/{account}/"
            untouched = [place for event in batches if event.job_id.startswith(job) for place in event.untouched]
        step_id = f"{run_id}/cleanup/{account}"
        action = CleanupNodes(schema_path=INSTANCE)
        step = self.bench.step(
            action, step_id=step_id, tag=TAG + number, run=run_id, account=account, untouched=untouched
        )
        self.bench.publish([step])
        self._until(lambda: any(self._steps(step_id)))
        (landed,) = self._steps(step_id)
        return landed

    def query(self, text: str) -> None:
        """As a module of the newest run would send it."""
        self.queries += 1
        origin = Origin(self.run_id, self.tag, f"{self.run_id}/{ACCOUNT}/module", "attempt", self.queries)
        value = encode_query(Query(text, {}))
        self.bench.publish([Message("", 0, 0, ACCOUNT.encode(), value, dict(query_headers(origin)))])
        self._until(lambda: sum(isinstance(event, QueryLanded) for event in self._events) == self.queries)

    def _batches(self) -> list[BatchLanded]:
        events = (event for event in self._events if isinstance(event, BatchLanded))
        return [event for event in events if event.run_id == self.run_id]

    def _steps(self, step_id: str) -> list[StepLanded]:
        events = (event for event in self._events if isinstance(event, StepLanded))
        return [event for event in events if event.step_id == step_id]

    def _until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not done() or self.sink.status().in_flight:
            assert time.monotonic() < deadline, self.sink.status()
            self._events += [EVENT.validate_json(message.value) for message in self._follower.poll(0.05)]

    def check(self, rows: Rows) -> None:
        """Stock, which writes everything, finds nothing to change."""
        ours = snapshot(self.graph)
        write_as_stock(self.graph, rows, self.tag)
        assert snapshot(self.graph) == ours


def write_as_stock(graph: neo4j.Driver, rows: Rows, tag: int) -> None:
    with graph.session() as session:
        load(session, schemas.node_schema(INSTANCE), list(rows), lastupdated=tag, AWS_ID=ACCOUNT, Region=REGION)
