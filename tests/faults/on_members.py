"""Faults of the workers: members of both pools, the driver, and the nodes that they are on."""

from __future__ import annotations

import contextlib
import signal
import time
from collections import Counter
from typing import ClassVar

import psutil
from faults.fault import Fault, Missed
from faults.plan import WHILE_JOBS, Kind
from faults.ray_nodes import RayNodes
from faults.world import REGIONS
from neo4j.exceptions import DriverError, Neo4jError
from support.commands import alive, wait_for

from cartoray.events import BatchLanded, JobStarted, StepLanded

_BLOCKED = """
SHOW TRANSACTIONS YIELD status, clientAddress WHERE status STARTS WITH 'Blocked' RETURN count(*) AS blocked
"""
FROZEN_S = (12.0, 20.0)  # a member counts as gone after 10 s without a heartbeat


class OfMembers(Fault):
    def is_over(self) -> bool:
        return self.world.is_whole()


class IntelKilled(OfMembers):
    """Held by calls that get no answer, so that it surely has jobs under way."""

    kind = Kind("intel actor killed with jobs under way", "member", latest=WHILE_JOBS)

    def inject(self) -> str:
        world = self.world
        world.aws.faults(hang=[{"region": REGIONS[1], "action": "ec2:*"}])
        try:
            self.until(world.busiest_intel_actor, "an intel actor with jobs")
            time.sleep(self.draw.uniform(0.5, 2))
            victim = world.busiest_intel_actor()
            if victim is None:
                raise Missed("its jobs had just ended")
            self.interrupted = [each for each in world.events.unfinished() if each.actor.endswith(f":{victim.pid}")]
            victim.kill()
            wait_for(lambda: not alive(victim), "its end")
        finally:
            world.aws.faults(hang=[])
        return f"{len(self.interrupted)} jobs under way"

    def is_over(self) -> bool:
        """And its jobs were taken again."""
        events = self.world.events.of(self.run_id)
        begun = Counter(event.job_id for event in events if isinstance(event, JobStarted))
        return super().is_over() and all(begun[each.job_id] > 1 for each in self.interrupted)


class IngestionKilled(OfMembers):
    """Held by a lock inside of its transaction, so that it surely is in one."""

    kind = Kind("ingestion actor killed inside of a transaction", "member")
    goes_on_with = (BatchLanded, StepLanded)

    def inject(self) -> str:
        try:
            with self.world.accounts_locked():
                self.until(self._blocked, "a transaction that waits")
                victims = self.world.members("ray::IngestionActor")
                if not victims:
                    raise Missed("there was no ingestion actor")
                victim = self.draw.choice(victims)
                victim.kill()
                wait_for(lambda: not alive(victim), "its end")
        except (DriverError, Neo4jError) as error:
            raise Missed(f"Neo4j was away: {error}") from None
        return "while transactions waited for a lock"

    def _blocked(self) -> bool:
        records, _, _ = self.world.graph.execute_query(_BLOCKED)
        return bool(records[0]["blocked"])


class KilledAtPoint(OfMembers):
    """Exactly between two steps of the order on which data depends; see `faults.points`."""

    point: ClassVar[str]

    def inject(self) -> str:
        file = self.world.points / self.point
        file.touch()
        try:
            self.until(lambda: not file.exists(), f"a member that reaches {self.point}")
        except Missed:
            with contextlib.suppress(FileNotFoundError):
                file.unlink()
                raise
        return f"at {self.point}"


class IntelKilledBeforeEnd(KilledAtPoint):
    kind = Kind("intel actor killed between its rows and its end", "member", latest=WHILE_JOBS)
    point = "intel.after_acknowledge"


class IntelKilledBeforeCommit(KilledAtPoint):
    kind = Kind("intel actor killed between its end and the commit", "member", latest=WHILE_JOBS)
    point = "intel.after_end"


class IngestionKilledBeforeReport(KilledAtPoint):
    kind = Kind("ingestion actor killed between Neo4j's commit and its event", "member")
    goes_on_with = (BatchLanded, StepLanded)
    point = "ingestion.after_write"


class IngestionKilledBeforeCommit(KilledAtPoint):
    kind = Kind("ingestion actor killed between its event and Kafka's commit", "member")
    goes_on_with = (BatchLanded, StepLanded)
    point = "ingestion.after_report"


class Frozen(OfMembers):
    """As a virtual machine that is paused: the group goes on without it, then it comes back and knows of nothing."""

    title: ClassVar[str]
    victim: psutil.Process | None = None

    def inject(self) -> str:
        members = self.world.members(self.title)
        if not members:
            raise Missed("there was no such member")
        self.victim = self.draw.choice(members)
        self.victim.send_signal(signal.SIGSTOP)
        return f"one of {len(members)}"

    def heal(self) -> None:
        if self.victim is not None and alive(self.victim):
            self.victim.send_signal(signal.SIGCONT)


class IntelFrozen(Frozen):
    kind = Kind("intel actor frozen, then goes on", "member", FROZEN_S, latest=WHILE_JOBS)
    title = "ray::IntelActor"


class IngestionFrozen(Frozen):
    kind = Kind("ingestion actor frozen, then goes on", "member", FROZEN_S)
    title = "ray::IngestionActor"


class DriverKilled(OfMembers):
    kind = Kind("driver killed, started again", "driver", (0.0, 5.0))

    def inject(self) -> str:
        workers = self.world.workers
        if workers is None:
            raise Missed("there was no driver")
        workers.kill()
        return "cartoray serve, SIGKILL"

    def heal(self) -> None:
        self.world.stop_serving()
        self.world.serve()


class DriverStopped(OfMembers):
    kind = Kind("driver stopped, started again", "driver", (0.0, 5.0))

    def inject(self) -> str:
        workers = self.world.workers
        if workers is None:
            raise Missed("there was no driver")
        code = workers.stop()
        assert code == 0, f"`cartoray serve` ended with {code}"
        return "cartoray serve, SIGTERM"

    heal = DriverKilled.heal


class OfNodes(OfMembers):
    def victim(self) -> psutil.Popen:
        nodes = self.world.nodes
        assert nodes is not None
        self.until(lambda: any(nodes.on(node, "Actor") for node in nodes.nodes), "a node with members")
        return max(nodes.nodes, key=lambda node: len(nodes.on(node, "Actor")))


class NodeLost(OfNodes):
    kind = Kind("Ray node lost, another comes", "node", (0.0, 10.0), "cluster")
    node: psutil.Popen | None = None

    def inject(self) -> str:
        nodes, self.node = self.world.nodes, self.victim()
        assert nodes is not None
        members = len(nodes.on(self.node, "Actor"))
        self.strike(nodes, self.node)
        return f"with {members} members"

    def strike(self, nodes: RayNodes, node: psutil.Popen) -> None:
        nodes.lose(node)

    def heal(self) -> None:
        nodes = self.world.nodes
        if nodes is None or self.node is None:
            return
        if self.node in nodes.nodes:
            nodes.lose(self.node)
        nodes.add()


class NodeDrained(NodeLost):
    """The cloud takes a machine back: it is told some seconds before it is gone."""

    kind = Kind("Ray node drained, then gone, another comes", "node", (8.0, 8.0), "cluster")

    def strike(self, nodes: RayNodes, node: psutil.Popen) -> None:
        nodes.drain(node, self.kind.seconds[0])


FAULTS: tuple[type[Fault], ...] = (
    IntelKilled,
    IntelKilledBeforeEnd,
    IntelKilledBeforeCommit,
    IngestionKilled,
    IngestionKilledBeforeReport,
    IngestionKilledBeforeCommit,
    IntelFrozen,
    IngestionFrozen,
    DriverKilled,
    DriverStopped,
    NodeLost,
    NodeDrained,
)
