"""Whether something grows: a line through samples, after a warm-up. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

WARM_UP = 0.3  # of the samples, which do not count: caches fill, threads are made
SAMPLES_MIN = 8


@dataclass(frozen=True)
class Bound:
    """What still counts as flat: growth over the whole time of at most `share` of the mean, or of `least`."""

    unit: str
    share: float
    least: float


@dataclass(frozen=True)
class Trend:
    """Of samples: their mean, and by how much the line through them rises in an hour and over their own time."""

    mean: float
    an_hour: float
    over_all: float

    def is_flat(self, bound: Bound) -> bool:
        return self.over_all <= max(bound.least, bound.share * self.mean)


def trend(samples: Sequence[tuple[float, float]]) -> Trend | None:
    """Of (seconds, value), in order; None: too few."""
    counted = samples[int(len(samples) * WARM_UP) :]
    if len(counted) < SAMPLES_MIN:
        return None
    seconds, values = zip(*counted, strict=True)
    slope = statistics.linear_regression(seconds, values).slope
    return Trend(statistics.fmean(values), slope * 3600, slope * (seconds[-1] - seconds[0]))
