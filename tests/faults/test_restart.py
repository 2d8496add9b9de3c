"""Killing any part in mid-run loses nothing: the run completes, and the graph is that of a run without faults. One that
is cancelled in mid-run deletes nothing.

What is killed is held in mid-run by force, so that no test depends on the speed of the machine: API calls that get no
answer hold the intel actors, a lock in Neo4j holds the ingestion actors. After the kill both are let go.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import neo4j
import psutil
import pytest
from parity.graph import Graph, compare, scope_of, snapshot
from support.commands import EC2, Done, Workers, alive, cartoray, environment, one_line_error, serving, wait_for
from support.databases import empty, open_graph, run, wipe

from actors.modules import modules
from cartoray.cluster.coordinator import read_event
from cartoray.completion import JobState, RunState
from cartoray.events import Event, JobEnded, JobStarted, StepLanded, run_of
from cartoray.kafka import read_all
from cartoray.settings import Settings
from cartoray.stack.simulated_aws import SimulatedAws
from cartoray.topics import topics

pytestmark = [pytest.mark.stack, pytest.mark.ray]

MODULES = ("account", *EC2.split(","))
SCOPE = scope_of([modules()[name] for name in MODULES])
HELD_REGION = "eu-west-1"
# What the run must delete, so that a cleanup that is lost or early shows.
_STALE = """
UNWIND $accounts AS account
MERGE (a:AWSAccount{id: account})
WITH a UNWIND range(1, 20) AS number
CREATE (a)-[:RESOURCE{lastupdated: 1}]->(:AWSEC2Instance{id: a.id + '-gone-' + number, lastupdated: 1})
CREATE (a)-[:RESOURCE{lastupdated: 1}]->(:AWSIpRange{id: a.id + '-gone-' + number, lastupdated: 1})
"""
_LOCK = "MATCH (a:AWSAccount) WHERE a.id IN $accounts SET a.held = true"
_BLOCKED = """
SHOW TRANSACTIONS YIELD status, clientAddress WHERE status STARTS WITH 'Blocked' RETURN DISTINCT clientAddress
"""


@dataclass(frozen=True)
class Crew:
    """Workers that serve all scenarios until one of them kills the driver."""

    settings: Settings
    aws: SimulatedAws
    graph: neo4j.Driver
    folder: Path
    environment: dict[str, str]
    workers: Workers


@dataclass(frozen=True)
class Scenario(Crew):
    """One sync, over a graph with old content."""

    before: frozenset[str]  # runs that were there
    done: Future[Done]

    # --- what is seen ---

    def events(self) -> list[Event]:
        """Of this run, as far as it is planned."""
        return [event for event in _events(self.settings) if run_of(event) not in self.before]

    def state(self) -> RunState:
        events = self.events()
        state = RunState(run_of(events[0]) if events else "")
        for event in events:
            state.apply(event)
        return state

    def attempts(self) -> dict[str, list[JobStarted]]:
        found: defaultdict[str, list[JobStarted]] = defaultdict(list)
        for event in self.events():
            if isinstance(event, JobStarted):
                found[event.job_id].append(event)
        return found

    def unfinished(self) -> list[JobStarted]:
        """Attempts that began and have not ended."""
        events = self.events()
        ended = {event.attempt for event in events if isinstance(event, JobEnded)}
        return [event for event in events if isinstance(event, JobStarted) and event.attempt not in ended]

    def busiest_intel_actor(self) -> tuple[psutil.Process, set[str]]:
        """The one with most jobs under way, and these jobs."""
        jobs: defaultdict[str, set[str]] = defaultdict(set)
        for attempt in self.unfinished():
            jobs[attempt.actor].add(attempt.job_id)
        actor = max(jobs, key=lambda name: len(jobs[name]))
        print(f"unfinished: { {name: len(each) for name, each in jobs.items()} }")
        return psutil.Process(int(actor.rpartition(":")[2])), jobs[actor]

    # --- what is held ---

    def hold_calls(self, accounts: Sequence[str]) -> None:
        """From now on these accounts get no answer in one region; none gets one later than the others."""
        hang = [{"account": account, "region": HELD_REGION, "action": "ec2:*"} for account in accounts]
        self.aws.faults(hang=hang)

    def wait_until_only_held_jobs_are_open(self, accounts: Sequence[str]) -> None:
        """Mid-run: the other accounts' jobs have landed, these accounts' jobs have begun and cannot end."""
        held = len(accounts) * (len(MODULES) - 1)  # all but `account`, which asks no region

        def reached() -> bool:
            assert not self.done.done(), self.done.result()
            jobs = self.state().jobs()
            return jobs[JobState.STARTED] == held and jobs[JobState.LANDED] == jobs.total() - held

        wait_for(reached, f"{held} jobs that are held")
        state = self.state()
        print(f"held at {dict(state.jobs())}, {state.rows_landed} rows landed")
        assert state.rows_landed > 0

    @contextlib.contextmanager
    def accounts_locked(self, accounts: Sequence[str]) -> Iterator[None]:
        """No transaction can make a relationship to these accounts' nodes until the block ends."""
        with self.graph.session() as session, session.begin_transaction() as transaction:
            transaction.run(_LOCK, accounts=list(accounts)).consume()
            yield
            transaction.rollback()

    def blocked_writers(self) -> list[psutil.Process]:
        """Ingestion actors with a transaction that waits for a lock."""
        records, _, _ = self.graph.execute_query(_BLOCKED)
        ports = {int(str(record["clientAddress"]).rpartition(":")[2]) for record in records}
        return [
            process
            for process in self.workers.named("ray::IngestionActor")
            if ports & {connection.laddr.port for connection in process.net_connections() if connection.laddr}
        ]

    def wait_for_blocked_writers(self) -> list[psutil.Process]:
        wait_for(self.blocked_writers, "an ingestion actor that waits for a lock")
        found = self.blocked_writers()
        print(f"blocked: {found}; {self.state().rows_landed} rows landed")
        return found

    # --- the end ---

    def complete(self) -> Graph:
        """The graph, after the sync has ended by itself and well."""
        result = self.done.result().expect(0).result
        assert result["state"] == "complete"
        assert result["jobs"]["landed"] == result["jobs"]["total"] == len(self.aws.accounts) * len(MODULES)
        with self.graph.session() as session:
            return snapshot(session, SCOPE, result["update_tag"])


def _events(settings: Settings) -> list[Event]:
    return [read_event(message) for message in read_all(settings.kafka, topics(settings.kafka).events.name)]


@pytest.fixture(scope="module")
def crew(
    stack_settings: Settings, simulated_aws: SimulatedAws, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Crew]:
    kafka = stack_settings.kafka.model_copy(update={"topic_prefix": "restart."})
    settings = stack_settings.model_copy(update={"kafka": kafka})
    variables = environment(settings, simulated_aws, CARTORAY_INTEL_ACTORS_MIN="2", CARTORAY_INGESTION_ACTORS_MIN="2")
    folder = tmp_path_factory.mktemp("restart")
    with open_graph(settings.neo4j) as graph:
        empty(graph)
        with serving(variables, folder) as workers:
            yield Crew(settings, simulated_aws, graph, folder, variables, workers)


@contextlib.contextmanager
def scenario(crew: Crew, held: Sequence[str] = ()) -> Iterator[Scenario]:
    wipe(crew.graph)
    assert run(crew.graph, _STALE, accounts=list(crew.aws.accounts))
    with syncing(crew, held) as one:
        yield one


@contextlib.contextmanager
def syncing(crew: Crew, held: Sequence[str] = ()) -> Iterator[Scenario]:
    """Over what is in the graph."""
    regions = [word for region in crew.aws.regions for word in ("--region", region)]
    command = ("sync", "--organization", "--scope", EC2, *regions, "--json")
    before = frozenset(run_of(event) for event in _events(crew.settings))
    with ThreadPoolExecutor(1) as pool:
        try:
            hang = [{"account": account, "region": HELD_REGION, "action": "ec2:*"} for account in held]
            crew.aws.faults(hang=hang)
            done = pool.submit(cartoray, *command, environment=crew.environment, folder=crew.folder)
            yield Scenario(**vars(crew), before=before, done=done)
            assert done.done()
        finally:
            crew.aws.faults(hang=[])


@pytest.fixture(scope="module")
def undisturbed(crew: Crew) -> Graph:
    """The graph of a run without faults."""
    with scenario(crew) as one:
        graph = one.complete()
        assert all(len(attempts) == 1 for attempts in one.attempts().values())
    assert len(graph.nodes) > 500
    assert not any("gone" in str(identity) for identity in graph.nodes)
    return graph


def assert_same(undisturbed: Graph, found: Graph) -> None:
    differences = compare(undisturbed, found)
    assert not differences, "\n".join([f"{len(differences)} differences", *differences[:50]])


def assert_replaced(workers: Workers, title: str, victim: psutil.Process) -> None:
    assert not alive(victim)
    wait_for(lambda: len(workers.named(title)) == 2, f"another {title} in the place of the killed one")


def test_a_run_completes_when_an_intel_actor_is_killed_with_calls_in_flight(crew: Crew, undisturbed: Graph) -> None:
    held = crew.aws.accounts[1:]
    with scenario(crew, held) as one:
        one.wait_until_only_held_jobs_are_open(held)
        victim, interrupted = one.busiest_intel_actor()
        assert interrupted
        victim.kill()
        wait_for(lambda: not alive(victim), "the actor's end")
        crew.aws.faults(hang=[])
        found = one.complete()
        attempts = one.attempts()
        assert all(len(attempts[job]) > 1 for job in interrupted), "the killed actor's jobs were not taken again"
        assert_replaced(one.workers, "ray::IntelActor", victim)
    assert_same(undisturbed, found)


def test_a_run_completes_when_an_ingestion_actor_is_killed_inside_of_a_transaction(
    crew: Crew, undisturbed: Graph
) -> None:
    held = crew.aws.accounts[1:]
    with scenario(crew, held) as one:
        one.wait_until_only_held_jobs_are_open(held)
        with one.accounts_locked(held):
            crew.aws.faults(hang=[])
            victim = one.wait_for_blocked_writers()[0]
            landed = one.state().rows_landed
            victim.kill()
            wait_for(lambda: not alive(victim), "the actor's end")
        found = one.complete()
        assert one.state().rows_landed > landed
        assert_replaced(one.workers, "ray::IngestionActor", victim)
    assert_same(undisturbed, found)


def test_a_run_that_is_cancelled_ends_at_once_deletes_nothing_and_the_next_one_is_whole(
    crew: Crew, undisturbed: Graph
) -> None:
    def said(*command: str) -> Done:
        return cartoray(*command, environment=crew.environment, folder=crew.folder)

    accounts = crew.aws.accounts
    crew.aws.faults(latency_ms=200)
    try:
        with scenario(crew, accounts) as one:
            one.wait_until_only_held_jobs_are_open(accounts)
            run_id = one.state().run_id
            began_s = time.monotonic()
            told = said("cancel", run_id, "--json").expect(0).result
            ended = one.done.result(60).expect(5).result
            took_s = time.monotonic() - began_s
            events = one.events()
    finally:
        crew.aws.faults(latency_ms=0)
    print(f"ended {took_s:.1f} s after it was to be cancelled")
    assert took_s < 30  # half of that are the two commands' own beginnings; calls without answer take 60 s
    assert (told["state"], ended["state"]) == ("cancelling", "cancelled")
    held = len(accounts) * (len(MODULES) - 1)
    assert (ended["jobs"]["cancelled"], ended["jobs"]["landed"]) == (held, len(accounts))
    assert (ended["nodes_deleted"], ended["failures"], ended["skipped"]) == (0, [], [])
    assert not [event for event in events if isinstance(event, StepLanded)]
    stale = "MATCH (n) WHERE n.id CONTAINS '-gone-' RETURN count(n)"
    with crew.graph.session() as session:
        assert session.run(stale).single(strict=True).value() == 40 * len(accounts)
    assert said("status", run_id, "--json").expect(0).result["state"] == "cancelled"
    assert said("runs", "--json").expect(0).result[0]["state"] == "cancelled"
    assert said("cancel", run_id, "--json").expect(0).result["cancelled_before"]
    assert "No run begins with 'x'" in one_line_error(said("cancel", "x").expect(2))
    with syncing(crew) as following:
        found = following.complete()
    whole = one_line_error(said("cancel", following.state().run_id).expect(2))
    assert whole.endswith("has ended (complete): there is nothing to cancel.")
    assert_same(undisturbed, found)


def test_a_run_completes_when_the_driver_is_killed_and_started_again(crew: Crew, undisturbed: Graph) -> None:
    held = crew.aws.accounts[1:]
    with scenario(crew, held) as one:
        one.wait_until_only_held_jobs_are_open(held)
        with one.accounts_locked(held):
            one.hold_calls(held[1:])
            one.wait_for_blocked_writers()
            interrupted = {attempt.job_id for attempt in one.unfinished()}
            assert interrupted
            one.workers.kill()
            wait_for(lambda: not one.workers.look(), "Ray's processes to follow the driver")
        assert not one.done.done(), "the run was over before the driver was killed"
        crew.aws.faults(hang=[])
        with serving(one.environment, one.folder) as again:
            found = one.complete()
            attempts = one.attempts()
            assert all(len(attempts[job]) > 1 for job in interrupted), "the jobs in flight were not taken again"
            assert again.stop() == 0
    assert_same(undisturbed, found)
