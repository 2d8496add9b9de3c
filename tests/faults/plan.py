"""Which faults, and when: a seed → cases. Pure: the same seed and the same list of faults give the same plan.

A case is one sync with its faults. First each fault alone, at its longest; then mixed ones, until there are as many
faults as were asked for.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

Ray = Literal["local", "cluster"]
Place = Literal["member", "driver", "node", "sync", "kafka", "neo4j", "aws", "messages", "groups"]

MIXED_FEWEST, MIXED_MOST = 3, 5  # faults of one sync
MIXED_S_MAX = 12.0  # that a fault lasts beside others: a mixed case is about meetings, not about endurance
FRESH = 0.6  # share of the syncs that find an empty graph
MOMENT_MAX = 0.8  # of a sync's duration: what comes later finds nothing to disturb
WHILE_JOBS = 0.03  # the same of what needs jobs under way: most of a sync is landing


@dataclass(frozen=True)
class Kind:
    """What the plan must know of a fault. `place`: where it strikes; but for members, one at a time in each place.

    `seconds`: how long it lasts, the least and the most; equal where it is a blow. `ray`: which Ray it needs.
    `latest`: share of a sync's duration after which it would find nothing to strike.
    """

    name: str
    place: Place
    seconds: tuple[float, float] = (0.0, 0.0)
    ray: Ray | None = None
    latest: float = MOMENT_MAX


@dataclass(frozen=True)
class Planned:
    """A fault at its `moment`, a share of what a sync without faults takes; `seed` is for what else it draws."""

    fault: str
    moment: float
    seconds: float
    seed: int


@dataclass(frozen=True)
class Case:
    """One sync and what befalls it, in order of the moments. `fresh`: over an empty graph, else over the last one's."""

    number: int
    alone: bool
    ray: Ray
    fresh: bool
    faults: tuple[Planned, ...]


def plan(seed: int, kinds: Sequence[Kind], faults_min: int) -> list[Case]:
    """Cases with at least `faults_min` faults, those alone counted. Cases that need the same Ray follow each other."""
    draw = random.Random(seed)
    alone = [
        Case(0, True, kind.ray or "local", draw.random() < FRESH, (_planned(draw, kind, kind.seconds[1]),))
        for kind in kinds
    ]
    cases, count = list(alone), len(alone)
    deck: list[Kind] = []
    while count < faults_min:
        mixed = _mixed(draw, kinds, deck)
        cases.append(mixed)
        count += len(mixed.faults)
    ordered = sorted(cases, key=lambda case: (not case.alone, case.ray))
    return [replace(case, number=number) for number, case in enumerate(ordered, 1)]


def together(seed: int, kinds: Mapping[str, Kind], *cases: Sequence[str]) -> list[Case]:
    """Cases whose faults are given by name; moments, in the first half of a sync, and seconds follow from the seed."""
    draw = random.Random(seed)
    kinds = {name: replace(kind, latest=min(kind.latest, 0.5)) for name, kind in kinds.items()}
    return [
        Case(
            number,
            False,
            _ray([kinds[name] for name in names]),
            True,
            _sorted(_short(draw, kinds[name]) for name in names),
        )
        for number, names in enumerate(cases, 1)
    ]


def _mixed(draw: random.Random, kinds: Sequence[Kind], deck: list[Kind]) -> Case:
    """Takes faults that go together from `deck`, to which all are added when few are left: they come equally often."""
    number = draw.randint(MIXED_FEWEST, MIXED_MOST)
    if len(deck) < number:
        deck += draw.sample(kinds, len(kinds))
    ray: Ray = deck[0].ray or "local"
    chosen: list[Kind] = []
    for kind in list(deck):
        free = kind.place == "member" or kind.place not in {other.place for other in chosen}
        if len(chosen) < number and free and kind.ray in (None, ray):
            chosen.append(kind)
            deck.remove(kind)
    return Case(0, False, ray, draw.random() < FRESH, _sorted(_short(draw, kind) for kind in chosen))


def _short(draw: random.Random, kind: Kind) -> Planned:
    least, most = kind.seconds
    return _planned(draw, kind, round(draw.uniform(least, max(least, min(most, MIXED_S_MAX))), 1))


def _planned(draw: random.Random, kind: Kind, seconds: float) -> Planned:
    return Planned(kind.name, round(draw.uniform(0, kind.latest), 3), seconds, draw.randrange(2**32))


def _sorted(faults: Iterator[Planned]) -> tuple[Planned, ...]:
    return tuple(sorted(faults, key=lambda fault: fault.moment))


def _ray(kinds: Sequence[Kind]) -> Ray:
    return next((kind.ray for kind in kinds if kind.ray), "local")
