"""Some inputs of `make fuzz`: nothing that is on a topic ends a process, or takes what it should not."""

from __future__ import annotations

from fuzz_inputs import BOMBS, Inputs
from fuzz_run import fuzz
from fuzz_targets import REFUSED, TAKEN, consume

INPUTS = 4_000


def test_no_input_ends_a_process_or_goes_beyond_its_bounds() -> None:
    report = fuzz(seed=20_260_101, inputs=INPUTS, processes=1)
    assert report.failures == {}
    assert report.inputs == INPUTS
    kinds = {kind for kind, _ in report.outcomes}
    assert len(kinds) == 11
    for outcome in (TAKEN, REFUSED):  # else the inputs would say nothing
        assert sum(count for (_, each), count in report.outcomes.items() if each == outcome) > INPUTS // 20


def test_what_stands_for_very_much_is_refused_in_time() -> None:
    inputs = Inputs(0)
    taken = [number for number in range(BOMBS) if consume(inputs.bomb(number)) == TAKEN]
    assert 0 < len(taken) < BOMBS // 2  # those that are just below the limits, or only look like much


def test_what_is_not_damaged_is_taken() -> None:
    assert {consume(message, signed=False) for message in Inputs(0).valid} == {TAKEN}
