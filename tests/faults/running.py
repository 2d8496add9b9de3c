"""Cases: a sync, its faults at their moments, and then the graph against that of a sync without."""

from __future__ import annotations

import random
import statistics
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from faults import on_members, on_servers, on_work
from faults.fault import Fault, Missed
from faults.plan import Case, Kind, Planned
from faults.world import World, differences
from parity.graph import Graph
from support.commands import wait_for

from cartoray.completion import Outcome
from cartoray.errors import KafkaUnavailable

# a new fault is a class in one of these files and a line in its list
FAULTS: Mapping[str, type[Fault]] = {
    fault.kind.name: fault for fault in (*on_members.FAULTS, *on_servers.FAULTS, *on_work.FAULTS)
}
KINDS: Mapping[str, Kind] = {name: fault.kind for name, fault in FAULTS.items()}
HEALED_S_MAX = 300.0


@dataclass
class Struck:
    """What came of one fault. `recovery_s`: from its end until the sync went on and what was struck was whole again."""

    fault: str
    alone: bool
    at_s: float = 0.0
    lasted_s: float = 0.0
    recovery_s: float | None = None
    what: str = ""
    missed: bool = False
    error: str = ""

    def __str__(self) -> str:
        if self.missed:
            return f"{self.fault}: missed, {self.what}"
        recovered = "not recovered" if self.recovery_s is None else f"recovered after {self.recovery_s:.1f} s"
        text = f"{self.fault}: at {self.at_s:.1f} s for {self.lasted_s:.1f} s, {self.what}; {recovered}"
        return f"{text}; {self.error}" if self.error else text


@dataclass
class Result:
    """Of one case. `wrong`: what was not as it has to be."""

    case: Case
    seconds: float = 0.0
    struck: list[Struck] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class Suite:
    """Faults in a world, held against `expected`, the graph of a sync without any."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.expected: Graph | None = None
        self.sync_s = 0.0

    def undisturbed(self) -> None:
        """Two syncs without faults: the first warms Neo4j, and found what is no longer there at the second."""
        self.world.prepare("local")
        self.world.earlier, _ = self._sync([])
        self.world.aws.mutate(1)
        self.world.prepare("local")
        began_s = time.monotonic()
        _, self.expected = self._sync([])
        self.sync_s = time.monotonic() - began_s
        assert len(self.expected.nodes) > 500
        assert not any("gone" in str(identity) for identity in self.expected.nodes)

    def run(self, case: Case) -> Result:
        result = Result(case)
        began_s = time.monotonic()
        try:
            self.world.prepare(case.ray, fresh=case.fresh)
            refused = self.world.dead_letters()
            began_s = time.monotonic()
            result.struck = [Struck(planned.fault, case.alone) for planned in case.faults]
            _, found = self._sync(list(zip(case.faults, result.struck, strict=True)))
            assert self.expected is not None
            result.wrong += differences(self.expected, found)
            if more := self.world.dead_letters() - refused:
                result.wrong.append(f"{more} messages were refused")
        except Exception as error:  # noqa: BLE001 - the next case may do
            traceback.print_exc()
            result.wrong.append(f"{type(error).__name__}: {error}")
        result.wrong += [f"{struck.fault}: {struck.error}" for struck in result.struck if struck.error]
        result.seconds = time.monotonic() - began_s
        return result

    def _sync(self, faults: Sequence[tuple[Planned, Struck]]) -> tuple[str, Graph]:
        world = self.world
        world.syncs = []
        run_id = world.start_sync().run_id
        began_s = time.monotonic()
        threads = [
            threading.Thread(target=self._strike, args=(planned, struck, run_id, began_s), name=planned.fault)
            for planned, struck in faults
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        may_end = frozenset({Outcome.COMPLETE}).union(*(FAULTS[planned.fault].may_end for planned, _ in faults))
        state = world.wait_until_complete(may_end)
        if may_end != {Outcome.COMPLETE}:
            return self._sync([])
        return run_id, world.found(state)

    def _strike(self, planned: Planned, struck: Struck, run_id: str, began_s: float) -> None:
        fault = FAULTS[planned.fault](self.world, run_id, random.Random(planned.seed))
        time.sleep(max(0.0, began_s + planned.moment * self.sync_s - time.monotonic()))
        try:
            if self.world.events.is_complete(run_id):
                raise Missed("the sync was complete before its moment")
            try:
                struck.what = fault.inject()
                struck.at_s = time.monotonic() - began_s
                time.sleep(planned.seconds)
            finally:
                fault.heal()
            healed_s, healed_ms = time.monotonic(), time.time() * 1000
            struck.lasted_s = healed_s - began_s - struck.at_s
            wait_for(lambda: self._went_on(fault, run_id, healed_ms), "the recovery", HEALED_S_MAX)
            struck.recovery_s = time.monotonic() - healed_s
        except (Missed, KafkaUnavailable) as missed:  # in mixed cases one may keep another from its work
            struck.missed, struck.what = True, str(missed)
        except Exception as error:  # noqa: BLE001 - told with the case
            traceback.print_exc()
            struck.error = f"{type(error).__name__}: {error}"

    def _went_on(self, fault: Fault, run_id: str, healed_ms: float) -> bool:
        world = self.world
        moves = world.events.went_on_since(healed_ms, fault.goes_on_with) or world.events.is_complete(run_id)
        return moves and fault.is_over()


def table(results: Iterable[Result]) -> Iterator[str]:
    """Lines: each fault, how often it struck, and how long recovery took, median and most, alone and mixed."""
    found: defaultdict[str, list[Struck]] = defaultdict(list)
    for result in results:
        for struck in result.struck:
            found[struck.fault].append(struck)
    yield "| fault | struck | missed | recovery alone | mixed, median | mixed, most |"
    yield "|---|---|---|---|---|---|"
    for name in FAULTS:
        struck = [each for each in found.get(name, ()) if not each.missed]
        missed = len(found.get(name, ())) - len(struck)
        alone = [each.recovery_s for each in struck if each.alone and each.recovery_s is not None]
        mixed = [each.recovery_s for each in struck if not each.alone and each.recovery_s is not None]
        cells = [_seconds(alone, max), _seconds(mixed, statistics.median), _seconds(mixed, max)]
        yield f"| {name} | {len(struck)} | {missed} | {' | '.join(cells)} |"


def _seconds(values: Sequence[float], of: object) -> str:
    return f"{of(values):.1f} s" if values and callable(of) else "–"
