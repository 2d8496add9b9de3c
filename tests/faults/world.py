"""Kafka, Neo4j, a simulated AWS, Ray and the workers: all that faults strike, and how one sync after the other goes.

Servers stay up from sync to sync. The graph is emptied in between, and holds then what the next sync must delete.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import neo4j
import psutil
from faults.plan import Ray
from faults.points import FOLDER
from faults.proxy import Proxy
from faults.ray_nodes import RayNodes
from faults.servers import OwnServer, advertise, own_kafka, own_neo4j
from parity.graph import Graph, Scope, compare, scope_of, snapshot
from support.commands import COMMAND, EC2, Workers, alive, environment, serving, wait_for
from support.databases import empty, run, wipe

from actors.modules import modules
from cartoray.cli.sync import EXIT_CODES
from cartoray.cluster.coordinator import read_event
from cartoray.cluster.follow_ups import follow_ups
from cartoray.completion import JobState, Outcome, RunState
from cartoray.errors import CartorayError
from cartoray.events import BatchLanded, Event, JobEnded, JobStarted, StepLanded, run_of
from cartoray.kafka import Admin, Follower, GroupLag, read_all
from cartoray.settings import KafkaSettings, Neo4jSettings, Settings, StackSettings
from cartoray.stack import artifacts
from cartoray.stack.launch import LOOPBACK
from cartoray.stack.simulated_aws import SimulatedAws, start_simulated_aws
from cartoray.topics import group, topics

SYNC_S_MAX = 420.0  # with its faults, the longest of which takes a minute
SETTLE_S_MAX = 120.0
REGIONS = ("us-east-1", "eu-west-1")
MODULES = f"{EC2},iam,s3"
SERVE = (sys.executable, "-m", "faults.serve")
MEMBERS = 2  # of each pool
FOLLOW_UPS = follow_ups(modules())
HALF = "-half"  # of the name of a run whose publication was cut off
_TESTS = Path(__file__).parents[1]
# What the run must delete, so that a cleanup that is lost or early shows.
_STALE = """
UNWIND $accounts AS account
MERGE (a:AWSAccount{id: account})
WITH a UNWIND range(1, 20) AS number
CREATE (a)-[:RESOURCE{lastupdated: 1}]->(:AWSEC2Instance{id: a.id + '-gone-' + number, lastupdated: 1})
CREATE (a)-[:RESOURCE{lastupdated: 1}]->(:AWSIpRange{id: a.id + '-gone-' + number, lastupdated: 1})
"""
Progress = JobStarted | JobEnded | BatchLanded | StepLanded


class Events:
    """What is on `run_events`, folded as it comes by a thread."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._states: dict[str, RunState] = {}  # in the order in which runs were planned
        self._of: defaultdict[str, list[Event]] = defaultdict(list)
        self._open: dict[str, JobStarted] = {}
        self._progress: list[Progress] = []
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="events", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        follower = Follower(self._settings, topics(self._settings).events.name, "faults")
        while not self._closed.is_set():
            for message in follower.poll(0.1):
                with self._lock:
                    self._take(read_event(message))
        follower.close()

    def _take(self, event: Event) -> None:
        run_id = run_of(event)
        if not run_id:
            return
        self._of[run_id].append(event)
        self._states.setdefault(run_id, RunState(run_id)).apply(event)
        if isinstance(event, JobStarted):
            self._open[event.attempt] = event
        elif isinstance(event, JobEnded):
            self._open.pop(event.attempt, None)
        if isinstance(event, Progress):
            self._progress.append(event)

    def close(self) -> None:
        self._closed.set()
        self._thread.join()

    def runs(self) -> list[str]:
        """Those that are planned."""
        with self._lock:
            return [run_id for run_id, state in self._states.items() if state.run is not None]

    def of(self, run_id: str) -> list[Event]:
        with self._lock:
            return list(self._of[run_id])

    def state(self, run_id: str) -> RunState:
        """To be looked at when it changes no more."""
        with self._lock:
            return self._states[run_id]

    def is_complete(self, run_id: str) -> bool:
        with self._lock:
            return self._states[run_id].is_complete(FOLLOW_UPS)

    def is_published(self, run_id: str) -> bool:
        with self._lock:
            return self._states[run_id].published

    def begin(self) -> None:
        """Of a case: what came before it does not count as progress, and whose attempts never ended never will."""
        with self._lock:
            self._progress.clear()
            self._open.clear()

    def went_on_since(self, at_ms: float, how: tuple[type[Progress], ...]) -> bool:
        """Whether there was an event like that after `at_ms`, of any run."""
        with self._lock:
            return any(each.at_ms >= at_ms and isinstance(each, how) for each in self._progress)

    def unfinished(self) -> list[JobStarted]:
        """Attempts that began and have not ended."""
        with self._lock:
            return list(self._open.values())


class SyncRefused(Exception):
    """A `cartoray sync` that ended before it had planned, since Kafka was away."""


@dataclass
class Sync:
    """A `cartoray sync`. `killed`: how it ends is of no account then."""

    run_id: str
    process: psutil.Popen
    log: Path
    killed: bool = False


class World:
    """All parts. `with World(folder) as world`: the servers are up; `prepare` brings up the workers as well."""

    def __init__(self, folder: Path, *, names: str = MODULES, latency_ms: float = 150, accounts: int = 3) -> None:
        self.folder = folder
        self.names = names
        self._latency_ms, self._accounts = latency_ms, accounts
        self._stack = contextlib.ExitStack()
        self._serving = contextlib.ExitStack()
        self.ray: Ray | None = None
        self.nodes: RayNodes | None = None
        self.workers: Workers | None = None
        self.syncs: list[Sync] = []
        self.earlier = ""  # a run that found what is no longer there
        self.scope: Scope = scope_of([modules()[name] for name in ("account", *names.split(","))])

    # ---- what there is ------------------------------------------------------------------------------------------

    def __enter__(self) -> World:
        with contextlib.ExitStack() as stack:
            self._begin(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _begin(self, stack: contextlib.ExitStack) -> None:
        jars = artifacts.fetch(("kafka", "neo4j"), StackSettings())
        self.points = self.folder / "points"
        self.points.mkdir(parents=True)
        self.kafka: OwnServer = own_kafka(self.folder, jars["kafka"])
        self.neo4j, login = own_neo4j(self.folder, jars["neo4j"])
        self.kafka_proxy = stack.enter_context(Proxy(self.kafka.ports["client"]))
        self.neo4j_proxy = stack.enter_context(Proxy(self.neo4j.ports["bolt"]))
        advertise(self.kafka, self.kafka_proxy.port)
        for server in (self.kafka, self.neo4j):
            stack.callback(server.kill)
            server.start()
        self.aws: SimulatedAws = stack.enter_context(
            start_simulated_aws(accounts=self._accounts, regions=REGIONS, size=6, latency_ms=self._latency_ms)
        )
        direct = Neo4jSettings.model_validate(login)
        proxied = direct.model_copy(update={"uri": f"bolt://{LOOPBACK}:{self.neo4j_proxy.port}"})
        shape = {"jobs_partitions": 8, "data_partitions": 4, "timeout_s": 10}
        self.settings = Settings(
            kafka=KafkaSettings(bootstrap_servers=f"{LOOPBACK}:{self.kafka_proxy.port}", **shape), neo4j=proxied
        )
        # of the suite itself, beside the proxies
        self.direct = KafkaSettings(bootstrap_servers=f"{LOOPBACK}:{self.kafka.ports['direct']}", **shape)
        self.graph: neo4j.Driver = stack.enter_context(_open(direct))
        empty(self.graph)
        Admin(self.direct).ensure(topics(self.direct))
        self.events = Events(self.direct)
        stack.callback(self.events.close)
        self.environment = environment(
            self.settings,
            self.aws,
            CARTORAY_INTEL_ACTORS_MIN=str(MEMBERS),
            CARTORAY_INTEL_ACTORS_MAX=str(MEMBERS),
            CARTORAY_INGESTION_ACTORS_MIN=str(MEMBERS),
            CARTORAY_INGESTION_ACTORS_MAX=str(MEMBERS),
            PYTHONPATH=os.pathsep.join(filter(None, (str(_TESTS), os.environ.get("PYTHONPATH", "")))),
            **{FOLDER: str(self.points)},
        )
        stack.callback(self.stop_serving)
        stack.callback(self.end_syncs)

    # ---- the workers --------------------------------------------------------------------------------------------

    def serve(self, ray: Ray | None = None) -> None:
        """Starts the workers, in a Ray of their own or on the nodes of a cluster. None: as before."""
        self.ray = ray or self.ray
        variables = dict(self.environment)
        if self.ray == "cluster":
            if self.nodes is None:
                self.nodes = self._stack.enter_context(RayNodes(self.environment))
            variables["RAY_ADDRESS"] = self.nodes.address
        self._serving = contextlib.ExitStack()
        until_s = time.monotonic() + SETTLE_S_MAX
        while self.workers is None:
            try:
                self.workers = self._serving.enter_context(serving(variables, self.folder / "serve", command=SERVE))
            except AssertionError:  # with Kafka or Neo4j away it does not begin, and is started again as by Kubernetes
                if time.monotonic() > until_s:
                    raise

    def stop_serving(self) -> None:
        self.workers = None
        self._serving.close()

    def members(self, title: str) -> list[psutil.Process]:
        """Processes of this title that live, e.g. `ray::IntelActor`, wherever Ray has put them."""
        if self.ray == "cluster" and self.nodes is not None:
            return self.nodes.named(title)
        return self.workers.named(title) if self.workers is not None else []

    def is_whole(self) -> bool:
        """All members of both pools are there, and the driver."""
        pools = ("ray::IntelActor", "ray::IngestionActor")
        driver = self.workers is not None and alive(self.workers.process)
        return driver and all(len(self.members(pool)) == MEMBERS for pool in pools)

    def busiest_intel_actor(self) -> psutil.Process | None:
        """The one with most jobs under way."""
        jobs: defaultdict[int, int] = defaultdict(int)
        for attempt in self.events.unfinished():
            jobs[int(attempt.actor.rpartition(":")[2])] += 1
        living = [each for each in self.members("ray::IntelActor") if each.pid in jobs]
        return max(living, key=lambda each: jobs[each.pid], default=None)

    # ---- one sync -----------------------------------------------------------------------------------------------

    def prepare(self, ray: Ray, *, fresh: bool = True) -> None:
        """Workers that are whole and have nothing to do, and a graph with old content, and no other if `fresh`."""
        self._restore()
        if self.workers is None or not alive(self.workers.process) or self.ray != ray:
            self.stop_serving()
            self.serve(ray)
        wait_for(self.is_whole, "both pools to be whole", SETTLE_S_MAX)
        self.wait_until_nothing_lags()
        if fresh:
            wipe(self.graph)
        assert run(self.graph, _STALE, accounts=list(self.aws.accounts))
        self.syncs = []
        self.events.begin()

    def _restore(self) -> None:
        """What a case that went wrong may have left behind."""
        for server in (self.kafka, self.neo4j):
            if server.process is None or server.process.poll() is not None:
                server.kill()
                server.start()
        for proxy in (self.kafka_proxy, self.neo4j_proxy):
            proxy.slow(0)
            proxy.go_on()
        self.aws.faults(throttle_rate=0, error_rate=0, hang=[])
        for file in self.points.iterdir():
            file.unlink()
        self.end_syncs()

    def start_sync(self) -> Sync:
        """Returns as soon as its plan is in Kafka. Raises SyncRefused."""
        known = set(self.events.runs())
        regions = [word for region in REGIONS for word in ("--region", region)]
        log = self.folder / f"sync-{time.monotonic_ns()}.log"
        with log.open("w") as output:
            process = psutil.Popen(
                [*COMMAND, "sync", "--organization", "--scope", self.names, *regions, "--json"],
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        new: list[str] = []

        def planned() -> bool:
            new[:] = [each for each in self.events.runs() if each not in known and not each.endswith(HALF)]
            if not new and process.poll() is not None:
                raise SyncRefused(log.read_text())
            return bool(new)

        wait_for(planned, "the plan")
        self.syncs.append(Sync(new[0], process, log))
        return self.syncs[-1]

    def end_syncs(self) -> None:
        for sync in self.syncs:
            if sync.process.poll() is None:
                sync.process.kill()
            sync.process.wait()

    def wait_until_complete(self, may_end: Collection[Outcome] = (Outcome.COMPLETE,)) -> RunState:
        """All syncs, and all is landed that was delivered twice, so that nothing comes after the graph was looked at.

        Answers the newest run, whose the graph is.
        """
        try:
            wait_for(
                lambda: all(self.events.is_complete(each.run_id) for each in self.syncs), "the end", SYNC_S_MAX, 0.2
            )
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.describe()}") from None
        for sync in self.syncs:
            state = self.events.state(sync.run_id)
            assert state.outcome in may_end, f"{state.outcome}: {state.failures()[:5]}"
            code = None if sync.killed else sync.process.wait(60)
            assert code in (None, EXIT_CODES[state.outcome]), (
                f"`cartoray sync` ended with {code}: {sync.log.read_text()}"
            )
        self.wait_until_nothing_lags()
        return self.events.state(max(each.run_id for each in self.syncs))

    def describe(self) -> str:
        state = self.events.state(self.syncs[0].run_id)
        open_ = [job for job, found in state._states.items() if found is not JobState.LANDED]
        return f"{dict(state.jobs())}, open: {open_[:10]}, steps landed: {len(state.steps)}; lags {self.lags()}"

    def found(self, state: RunState) -> Graph:
        assert state.run is not None
        with self.graph.session() as session:
            return snapshot(session, self.scope, state.run.update_tag)

    # ---- Kafka --------------------------------------------------------------------------------------------------

    def lags(self) -> dict[str, int]:
        names = topics(self.direct)
        found = {}
        for pool, topic in (("intel", names.jobs.name), ("ingestion", names.data.name)):
            with contextlib.closing(GroupLag(self.direct, topic, group(self.direct, pool))) as lag:
                found[pool] = lag.messages()
        return found

    def wait_until_nothing_lags(self) -> None:
        def landed() -> bool:
            try:
                return not any(self.lags().values())
            except CartorayError:
                return False

        wait_for(landed, "all messages to be done", SETTLE_S_MAX, every_s=0.3)

    def dead_letters(self) -> int:
        return sum(1 for _ in read_all(self.direct, topics(self.direct).dead_letters.name))

    @contextlib.contextmanager
    def accounts_locked(self) -> Iterator[None]:
        """No transaction can make a relationship to the accounts' nodes until the block ends."""
        with self.graph.session() as session, session.begin_transaction() as transaction:
            query = "MATCH (a:AWSAccount) WHERE a.id IN $accounts SET a.held = true"
            transaction.run(query, accounts=list(self.aws.accounts)).consume()
            try:
                yield
            finally:
                transaction.rollback()


def _open(settings: Neo4jSettings) -> neo4j.Driver:
    """Looks at each connection before it is used: the server may have been restarted since."""
    login = (settings.user, settings.password.get_secret_value())
    return neo4j.GraphDatabase.driver(settings.uri, auth=login, liveness_check_timeout=0)


def differences(expected: Graph, found: Graph) -> list[str]:
    return compare(expected, found)
