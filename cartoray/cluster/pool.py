"""Makes a pool of Ray actors what its membership says."""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.metrics import Counter, Gauge

from cartoray.cluster.membership import Membership, State
from cartoray.cluster.scaling import Bounds, Scaled, Scaling
from cartoray.errors import CartorayError, Permanent
from cartoray.member import Member
from cartoray.settings import PoolName

log = logging.getLogger(__name__)
NAMESPACE = "cartoray"
_ANSWER_S = 1.0


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class Pool:
    """Actors of one class, one per slot, each with one long `run` task: its end is the sign of death.

    The actors are not detached: they end with the driver. Nothing is lost by that, since all they know is in Kafka.
    """

    def __init__(self, name: PoolName, actor: type[Member], bounds: Bounds, directory: Path) -> None:
        self.name: PoolName = name
        self._scaling = Scaling(bounds)
        self.membership = Membership(self._scaling.target)
        self._class: Any = ray.remote(actor)
        self._directory = directory.resolve()
        self._handles: dict[int, Any] = {}
        self._runs: dict[Any, int] = {}  # reference of the run task → slot
        self._starts: dict[Any, int] = {}  # reference that is done when the actor is there → slot
        self._works: dict[Any, int] = {}  # reference that is done when it has been given work → slot
        self._troubles: dict[int, str] = {}  # slot → what was told last
        tags = ("pool",)  # what Ray exports of these begins with `ray_`
        self._lag_gauge = Gauge("cartoray_pool_lag", "messages that are not done", tags)
        self._target_gauge = Gauge("cartoray_pool_target", "members that there are to be", tags)
        self._members_gauge = Gauge("cartoray_pool_members", "members by state", (*tags, "state"))
        self._changes = Counter("cartoray_pool_changes", "of the number of members that there are to be", tags)

    def references(self) -> list[Any]:
        """Of what is waited for: a member that starts, is given work, or ends."""
        return [*self._starts, *self._works, *self._runs]

    def scale(self, lag: int, partitions: int) -> Scaled | None:
        """Decides how many members there are to be, and tells those to finish that are too many."""
        change = self._scaling.decide(_now_ms(), lag, pending=self.membership.pending, partitions=partitions)
        self._measure(lag)
        if change is not None:
            self._changes.inc(tags={"pool": self.name})
            log.info(
                *("pool_scaled pool=%s before=%d target=%d reason=%s", self.name),
                *(change.before, change.target, change.reason),
            )
            for slot in self.membership.resize(change.target):
                self._handles[slot].drain.remote()
        return change

    def _measure(self, lag: int) -> None:
        pool: dict[str, str] = {"pool": self.name}
        self._lag_gauge.set(lag, pool)
        self._target_gauge.set(self._scaling.target, pool)
        states = self.membership.states()
        for state in State:
            self._members_gauge.set(states.count(state), {**pool, "state": state.value})

    def reconcile(self) -> None:
        """Starts what is due. Does not block: an actor without a node stays pending, which is Ray's sign to add one."""
        for slot in self.membership.due(_now_ms()):
            # a name for each life: that of a dead actor is free only some time later
            name = f"{self.name}-{slot:03d}-{secrets.token_hex(2)}"
            handle = self._class.options(
                name=name,
                namespace=NAMESPACE,
                num_cpus=1,
                max_restarts=0,  # the driver replaces members itself: with back-off, and an end to it
                max_concurrency=8,
                scheduling_strategy="SPREAD",
            ).remote(name, str(self._directory))
            self._handles[slot] = handle
            self._starts[handle.__ray_ready__.remote()] = slot
            self._runs[handle.run.remote()] = slot
            self._works[handle.working.remote()] = slot
            self.membership.start(slot, _now_ms())

    def done(self, reference: Any) -> None:
        """A member has started, was given work, or ended. Raises its own error when starting it again cannot help."""
        if (started := self._starts.pop(reference, None)) is not None:
            if self.membership[started].state is State.STARTING:
                self.membership.ready(started)  # one that died meanwhile is told by the end of its run
            return
        if (working := self._works.pop(reference, None)) is not None:
            with contextlib.suppress(RayError):  # it died before
                ray.get(reference)
                self.membership.worked(working)
            return
        slot = self._runs.pop(reference)
        self._starts = {start: other for start, other in self._starts.items() if other != slot}
        self._works = {work: other for work, other in self._works.items() if other != slot}
        self._handles.pop(slot, None)
        self._troubles.pop(slot, None)
        draining = self.membership[slot].state is State.DRAINING
        try:
            ray.get(reference)
            reason = "ended without being asked to"
        except RayTaskError as error:
            if isinstance(error.cause, Permanent) and not draining:
                raise error.cause from None
            reason = str(error.cause) if isinstance(error.cause, CartorayError) else repr(error.cause)
        except RayError as error:
            reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        if draining:
            self.membership.stopped(slot)
            return
        log.warning("member_died pool=%s slot=%d reason=%s", self.name, slot, reason)
        self.membership.died(slot, _now_ms(), reason)

    def drain(self) -> None:
        """Asks every member to finish what is under way and return from `run`."""
        self.membership.drain()
        for handle in self._handles.values():
            handle.drain.remote()

    def kill(self) -> None:
        """Ends what is left, at once."""
        for handle in self._handles.values():
            ray.kill(handle)
        self._handles.clear()
        self._starts.clear()
        self._works.clear()
        self._runs.clear()

    def tell_troubles(self) -> None:
        """Logs what members say that keeps them from working, such as a Neo4j that is away, when it changes."""
        asked = {handle.status.remote(): slot for slot, handle in self._handles.items()}
        ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_S) if asked else ([], [])
        for reference in ready:
            try:
                trouble = ray.get(reference).get("trouble", "")
            except RayError:  # it died between the question and the answer: `ended` will see it
                continue
            slot = asked[reference]
            if trouble != self._troubles.get(slot, ""):
                log.warning("member_trouble pool=%s slot=%d reason=%s", self.name, slot, trouble or "none any more")
            self._troubles[slot] = trouble
