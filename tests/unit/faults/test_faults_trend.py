"""Whether samples grow."""

from __future__ import annotations

import random

from faults.trend import Bound, trend

BOUND = Bound("MB", 0.05, 8.0)


def test_noise_is_flat() -> None:
    draw = random.Random(1)
    found = trend([(second, 300 + draw.uniform(-10, 10)) for second in range(300)])
    assert found is not None
    assert found.is_flat(BOUND)


def test_growth_is_not() -> None:
    found = trend([(second, 300 + second * 0.1) for second in range(300)])
    assert found is not None
    assert round(found.an_hour) == 360
    assert not found.is_flat(BOUND)


def test_what_shrinks_is_flat_and_a_warm_up_does_not_count() -> None:
    falling = trend([(second, 300 - second * 0.1) for second in range(300)])
    warmed = trend([(second, 100.0 if second < 60 else 400.0) for second in range(300)])
    assert falling is not None and falling.is_flat(BOUND)
    assert warmed is not None and warmed.an_hour == 0


def test_few_samples_say_nothing() -> None:
    assert trend([(second, 1.0) for second in range(9)]) is None
