"""Ray's autoscaler adds nodes because members of a pool are pending, and removes them when the pool has shrunk.

Apart from the other tests: Ray's `AutoscalingCluster` ends every Ray of this machine when it starts and when it ends.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # all of it on loopback; read while Ray is imported

import ray
import ray.cloudpickle
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID, FakeMultiNodeProvider
from ray.cluster_utils import AutoscalingCluster

from cartoray.cluster.membership import State
from cartoray.cluster.pool import NAMESPACE, Pool
from cartoray.cluster.scaling import Bounds
from cartoray.member import Loop, Member
from cartoray.settings import Settings

pytestmark = pytest.mark.timeout(600)

BOUNDS = Bounds(members_min=0, members_max=4, lag_per_member=10, up_after_ms=1_000, down_after_ms=10_000)


@dataclass
class Status:
    trouble: str = ""


class Waiting:
    """Does nothing until it is stopped."""

    def run(self, stop: threading.Event) -> None:
        stop.wait()

    def status(self) -> Status:
        return Status()


class WaitingMember(Member):
    def make(self, settings: Settings, name: str) -> Loop:
        return Waiting()


_COMMANDS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)


class Cluster(AutoscalingCluster):
    """Ray's own, but for a configuration that it reads from a file which its wheel lacks."""

    def _generate_config(
        self, head_resources: dict[str, Any], worker_node_types: dict[str, Any], **more: Any
    ) -> dict[str, Any]:
        head = {"resources": head_resources, "node_config": {}, "max_workers": 0}
        provider = {
            "type": "external",  # for one of its own, Ray reads defaults from a file which its wheel lacks
            "module": f"{FakeMultiNodeProvider.__module__}.{FakeMultiNodeProvider.__name__}",
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "launch_multiple": True,
            "head_node_id": FAKE_HEAD_NODE_ID,
        }
        return {
            "cluster_name": "fake_multinode",
            "max_workers": 8,
            "provider": provider,
            "available_node_types": {**worker_node_types, "ray.head.default": head},
            "head_node_type": "ray.head.default",
            "idle_timeout_minutes": more["idle_timeout_minutes"],
            "file_mounts": {},
            "cluster_synced_files": [],
            **{name: [] for name in _COMMANDS},
        }


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A head that runs no members, and nodes of two CPUs, at most three."""
    node = {"resources": {"CPU": 2}, "node_config": {}, "min_workers": 0, "max_workers": 3}
    made = Cluster(
        head_resources={"CPU": 0}, worker_node_types={"worker": node}, autoscaler_v2=True, idle_timeout_minutes=0.1
    )
    made.start()
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.init("auto", namespace=NAMESPACE)
    yield
    ray.shutdown()
    made.shutdown()


def nodes() -> int:
    """That are there, besides the head."""
    return sum(node["Alive"] for node in ray.nodes()) - 1


def metric(name: str) -> str:
    """Lines of it, as Prometheus would scrape them from the head."""
    head = next(node for node in ray.nodes() if node["Resources"].get("node:__internal_head__"))
    url = f"http://{head['NodeManagerAddress']}:{head['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return "\n".join(line for line in answer.read().decode().splitlines() if line.startswith(name))


class Driven:
    """A pool as the driver turns it, with a lag that the test says."""

    def __init__(self, folder: Path) -> None:
        self.pool = Pool("intel", WaitingMember, BOUNDS, folder)
        self.changes: list[tuple[int, int]] = []

    def until(self, reached: Callable[[], bool], lag: int, what: str, timeout_s: float = 180) -> None:
        deadline = time.monotonic() + timeout_s
        while not reached():
            assert time.monotonic() < deadline, f"{what}: {self.pool.membership.states()}, {nodes()} nodes"
            if (change := self.pool.scale(lag, partitions=64)) is not None:
                self.changes.append((change.before, change.target))
            self.pool.reconcile()
            references = self.pool.references()
            done = ray.wait(references, num_returns=1, timeout=0.25)[0] if references else time.sleep(0.25) or []
            for reference in done:
                self.pool.done(reference)


def test_nodes_come_for_members_and_go_with_them(cluster: None, tmp_path: Path) -> None:
    driven = Driven(tmp_path)
    states = driven.pool.membership.states
    assert nodes() == 0

    driven.until(lambda: states() == [State.RUNNING] * 4, lag=40, what="four members at work")
    assert nodes() == 2
    assert driven.changes == [(0, 4)]
    driven.until(lambda: 'pool="intel"} 4.0' in metric("ray_cartoray_pool_target"), lag=40, what="a metric")
    assert any('state="running"} 4.0' in line for line in metric("ray_cartoray_pool_members").splitlines())
    assert "40.0" in metric("ray_cartoray_pool_lag")

    driven.until(lambda: State.RUNNING not in states() and State.DRAINING not in states(), lag=0, what="all gone")
    assert driven.changes == [(0, 4), (4, 0)]
    driven.until(lambda: nodes() == 0, lag=0, what="idle nodes removed")

    driven.until(lambda: states().count(State.RUNNING) == 1, lag=5, what="one member for the next lag")
    assert nodes() == 1
    driven.pool.kill()
