"""The Ray driver: the only file that knows both pools.

Started by `cartoray serve`: alone it brings up a local Ray, under `ray job submit` it joins that cluster. It may be
killed at any instant; a new one goes on where Kafka says.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

# Ray reads these while it is imported: a driver under `uv run` would make every worker run uv again, and a tool that
# touches cloud credentials sends no usage statistics unless somebody asks for it.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# A Ray of our own listens on loopback only: so Ray does by itself on a Mac, elsewhere this is the way to ask for it.
if "RAY_ADDRESS" not in os.environ:
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")

import ray

from actors.intel_actor import IntelActor
from actors.modules import modules
from cartoray.cluster.coordinator import Coordinator
from cartoray.cluster.follow_ups import follow_ups
from cartoray.cluster.lags import Lags
from cartoray.cluster.pool import NAMESPACE, Pool
from cartoray.cluster.scaling import Bounds
from cartoray.errors import CartorayError, KafkaRefused, StackError
from cartoray.events import PoolScaled, key_of
from cartoray.kafka import Admin, Publisher
from cartoray.settings import IngestionSettings, IntelSettings, Settings
from cartoray.topics import topics
from ingestion.ingestion_actor import IngestionActor
from ingestion.writer import check_graph

log = logging.getLogger(__name__)
_TICK_S = 0.25
_ASK_EVERY_S = 5.0


@dataclass(frozen=True)
class Serving:
    """What a driver that is ready tells its user."""

    intel_actors: Bounds
    ingestion_actors: Bounds
    ray_address: str
    dashboard_url: str


@contextlib.contextmanager
def _ray(cpus: int, *, dashboard: bool) -> Iterator[tuple[str, str]]:
    """Joins the Ray cluster that RAY_ADDRESS names, else starts a local one for as long as the block lasts."""
    if os.environ.get("RAY_ADDRESS"):
        try:
            context: Any = ray.init(namespace=NAMESPACE, logging_level=logging.WARNING)
        except (ConnectionError, ValueError) as error:
            address = os.environ["RAY_ADDRESS"]
            raise StackError(f"Ray at {address} (RAY_ADDRESS) cannot be joined: {_line(error)}") from None
        session = None
    else:
        context = _local_ray(cpus, dashboard=dashboard)
        session = Path(context.address_info["session_dir"])
    try:
        yield context.address_info["address"], context.dashboard_url or ""
    finally:
        ray.shutdown()
        if session is not None:
            shutil.rmtree(session, ignore_errors=True)  # sockets and logs, tens of megabytes a day


def _local_ray(cpus: int, *, dashboard: bool) -> Any:
    """Starts Ray on this machine. Raises StackError: it did not start, twice."""
    start = partial(
        ray.init,
        address="local",  # else it would join any cluster that it finds on this machine
        namespace=NAMESPACE,
        # logical CPUs: an actor waits for the network most of its time, so a laptop runs more than it has cores
        num_cpus=max(cpus, os.cpu_count() or 1),
        include_dashboard=dashboard,
        object_store_memory=80 * 1024 * 1024,  # nothing travels through Ray's object store; 75 MiB is its minimum
        logging_level=logging.WARNING,
        _node_ip_address="127.0.0.1",
    )
    try:
        return start()
    except Exception as error:  # noqa: BLE001 - it has no class of its own for a node that is not up within 30 s
        log.warning("ray_start_failed reason=%s: once more", _line(error))
        ray.shutdown()
    try:
        return start()
    except Exception as error:  # noqa: BLE001 - the same
        ray.shutdown()
        raise StackError(
            f"Ray does not start on this machine: {_line(error)} Free some CPU and memory and try again, or name a "
            "cluster that is up with RAY_ADDRESS."
        ) from None


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


class Driver:
    """Keeps both pools and the coordinator running until it is told to stop.

    `directory`: where the workers look for `cartoray.toml` and the embedded stack; no setting travels through Ray,
    whose dashboard shows what does.
    """

    def __init__(self, settings: Settings, directory: Path, *, dashboard: bool = True) -> None:
        self._settings, self._directory, self._dashboard = settings, directory, dashboard
        self._refused: KafkaRefused | None = None  # what ended the coordinator

    def serve(self, stop: threading.Event, ready: Callable[[Serving], None]) -> None:
        """Returns after `stop` was set and the pools have drained.

        Raises KafkaUnavailable, GraphUnavailable or SettingError when it cannot begin, StackError when a pool's members
        die again and again, KafkaRefused and GraphRefused whenever it or a member is refused what it needs.
        """
        settings = self._settings
        names = topics(settings.kafka)
        Admin(settings.kafka).ensure(names)
        check_graph(settings.neo4j)
        intel = self._bounds(settings.intel, settings.intel.jobs_per_member)
        ingestion = self._bounds(settings.ingestion, settings.ingestion.messages_per_member)
        members_max = intel.members_max + ingestion.members_max
        with _ray(members_max, dashboard=self._dashboard) as (address, dashboard_url):
            pools = (
                Pool("intel", IntelActor, intel, self._directory),
                Pool("ingestion", IngestionActor, ingestion, self._directory),
            )
            publishing = contextlib.closing(Publisher(settings.kafka, "driver"))
            with self._coordinator(stop), Lags(settings.kafka) as lags, publishing as publisher:
                ready(Serving(intel, ingestion, address, dashboard_url))
                try:
                    self._supervise(pools, lags, publisher, stop)
                finally:
                    self._drain(pools)

    def _bounds(self, pool: IntelSettings | IngestionSettings, lag_per_member: int) -> Bounds:
        scaling = self._settings.scaling
        return Bounds(
            members_min=pool.actors_min,
            members_max=pool.actors_max,
            lag_per_member=lag_per_member,
            up_after_ms=int(scaling.up_after_s * 1000),
            down_after_ms=int(scaling.down_after_s * 1000),
        )

    @contextlib.contextmanager
    def _coordinator(self, stop: threading.Event) -> Iterator[None]:
        ended = threading.Event()
        coordinator = Coordinator(self._settings.kafka, follow_ups(modules()))

        def keep_running() -> None:
            while not ended.is_set():
                try:
                    coordinator.run(ended)
                except KafkaRefused as error:
                    self._refused = error
                    return
                except CartorayError as error:  # Kafka went away: it reads everything again when it is back
                    log.warning("coordinator_restarts reason=%s", error)
                except Exception:  # without it no run would ever be complete
                    log.exception("coordinator_restarts")
                ended.wait(1)

        thread = threading.Thread(target=keep_running, name="coordinator", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(self._settings.kafka.timeout_s)

    def _supervise(self, pools: tuple[Pool, ...], lags: Lags, publisher: Publisher, stop: threading.Event) -> None:
        asked_s = time.monotonic()
        events = topics(self._settings.kafka).events.name
        while not stop.is_set():
            if self._refused is not None:
                raise self._refused
            self._turn(pools)
            for pool in pools:
                lag = lags.take(pool.name)
                change = pool.scale(lag.messages, lag.partitions) if lag else None
                if change is not None:
                    event = PoolScaled(pool=pool.name, **vars(change), at_ms=time.time_ns() // 1_000_000)
                    publisher.publish(events, key_of(event).encode(), event.model_dump_json().encode())
            if time.monotonic() - asked_s > _ASK_EVERY_S:
                asked_s = time.monotonic()
                for pool in pools:
                    pool.tell_troubles()
            for pool in pools:
                if (slot := pool.membership.given_up) is not None:
                    raise StackError(
                        f"Actor {slot.number} of pool {pool.name} died {slot.deaths} times in a row: {slot.last_reason}"
                    )

    def _turn(self, pools: tuple[Pool, ...]) -> None:
        for pool in pools:
            pool.reconcile()
        references = {reference: pool for pool in pools for reference in pool.references()}
        if not references:
            time.sleep(_TICK_S)
            return
        done, _ = ray.wait(list(references), num_returns=1, timeout=_TICK_S)
        for reference in done:
            references[reference].done(reference)

    def _drain(self, pools: tuple[Pool, ...]) -> None:
        """Both stop taking more and finish what is under way, within the larger of their budgets."""
        deadline = time.monotonic() + max(self._settings.intel.drain_s, self._settings.ingestion.drain_s) + 2
        for pool in pools:
            pool.drain()
        while time.monotonic() < deadline:
            references = {reference: pool for pool in pools for reference in pool.references()}
            if not references:
                return
            done, _ = ray.wait(list(references), num_returns=1, timeout=_TICK_S)
            for reference in done:
                references[reference].done(reference)
        for pool in pools:
            pool.kill()
