"""Feeds inputs to `fuzz_targets` in processes that may die, and says which input each died of.

    make fuzz
    make fuzz SEED=7 FIRST=4711 INPUTS=1     # one of them again

A process works on every n-th input, and notes which before it begins, so that a crash has a number.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import multiprocessing
import os
import random
import resource
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

# No input may go beyond these. Of memory: 64 MiB of Arrow before and after decompression, `values.VALUES_MAX` Python
# objects of these, twice where the one is made from the other, and what the fuzzer itself needs to make the input.
MEMORY_MB = 1_200  # that a process grows by at its peak
ARROW_MB = 300  # of that in pyarrow's pool
CPU_S = 10.0
HANG_S = 120.0  # by the clock, after which the process is ended
_ADDRESS_SPACE = 8 << 30  # beyond which the system refuses memory, so that no input takes the machine down
_FAILURES_MAX = 20
_TELL_EVERY_S = 5.0

_NUMBER, _BEGAN, _DONE, _MEMORY, _ARROW, _SLOWEST, _SLOWEST_AT, _PLACES = range(8)  # of what a process shares


@dataclass
class Report:
    """`outcomes`: how many inputs of each kind were taken or refused. `failures`: input → what happened."""

    inputs: int = 0
    seconds: float = 0.0
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: dict[int, str] = field(default_factory=dict)
    memory_mb: float = 0.0
    arrow_mb: float = 0.0
    slowest: tuple[float, int] = (0.0, -1)


def fuzz(
    seed: int, inputs: int, *, first: int = 0, processes: int = 2, say: Callable[[str], None] = lambda _: None
) -> Report:
    """Inputs first … first+inputs-1."""
    report, began, told = Report(), time.monotonic(), 0.0
    lines = [_Line(seed, range(first + at, first + inputs, processes)) for at in range(min(processes, inputs))]
    try:
        while any([line.look(report) for line in lines]) and len(report.failures) < _FAILURES_MAX:
            _sum(report, lines, time.monotonic() - began)
            if report.seconds - told >= _TELL_EVERY_S:
                told = report.seconds
                say(progress(report, inputs))
            time.sleep(0.02)
    finally:
        for line in lines:
            line.end()
    _sum(report, lines, time.monotonic() - began)
    return report


def _sum(report: Report, lines: list[_Line], seconds: float) -> None:
    report.seconds, report.inputs = seconds, sum(line.before + int(line.shared[_DONE]) for line in lines)
    report.memory_mb = max(report.memory_mb, *(line.shared[_MEMORY] for line in lines))
    report.arrow_mb = max(report.arrow_mb, *(line.shared[_ARROW] for line in lines))
    report.slowest = max(report.slowest, *((line.shared[_SLOWEST], int(line.shared[_SLOWEST_AT])) for line in lines))


def progress(report: Report, inputs: int) -> str:
    rate = report.inputs / report.seconds if report.seconds else 0
    return (
        f"{report.inputs:,}/{inputs:,} inputs, {rate:,.0f}/s, {len(report.failures)} failed; at most "
        f"{report.memory_mb:,.0f} MB, {report.arrow_mb:,.0f} MB of Arrow, {report.slowest[0]:.2f} s of CPU "
        f"(input {report.slowest[1]})"
    )


class _Line:
    """The inputs of one process, and of those that take its place when it dies."""

    def __init__(self, seed: int, numbers: range) -> None:
        self._seed, self._numbers = seed, numbers
        self._spawning = multiprocessing.get_context("spawn")
        self.before = 0  # inputs that processes did that have died
        self._start()

    def _start(self) -> None:
        self.shared: Any = self._spawning.Array("d", _PLACES, lock=False)
        self.shared[_NUMBER] = -1
        self._answers, theirs = self._spawning.Pipe(duplex=False)
        self._process = self._spawning.Process(
            target=_work, args=(self._seed, self._numbers, self.shared, theirs), daemon=True
        )
        self._process.start()
        theirs.close()

    def look(self, report: Report) -> bool:
        """Takes up what it has to tell; whether it goes on."""
        alive = self._process.is_alive()
        try:
            while self._answers.poll():
                number, outcomes, failure = self._answers.recv()
                report.outcomes.update(outcomes)
                if failure:
                    report.failures[number] = failure
        except EOFError:
            pass
        number, began = int(self.shared[_NUMBER]), self.shared[_BEGAN]
        if alive and number >= 0 and time.monotonic() - began > HANG_S:
            self._process.kill()
            self._process.join()
            report.failures[number] = f"did not end within {HANG_S:g} s"
        elif alive:
            return True
        elif self._process.exitcode == 0:
            return False
        elif number < 0:
            raise RuntimeError(
                f"A process of the fuzzer ended with code {self._process.exitcode} before its first input."
            )
        else:
            report.failures[number] = f"ended the process with code {self._process.exitcode}"
        self.before += int(self.shared[_DONE]) + 1
        self._numbers = range(number + self._numbers.step, self._numbers.stop, self._numbers.step)
        self._start()
        return True

    def end(self) -> None:
        if self._process.is_alive():
            self._process.kill()
        self._process.join()


def _work(seed: int, numbers: range, shared: Any, answers: Any) -> None:
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    import logging

    import fuzz_targets
    import pyarrow as pa
    from fuzz_inputs import Inputs

    logging.disable()
    inputs, pool = Inputs(seed), pa.default_memory_pool()
    for message in inputs.valid:  # caches fill, so that what is measured is the inputs' own
        fuzz_targets.consume(message)
    gc.collect()
    base_mb = _peak_mb()
    outcomes: Counter[tuple[str, str]] = Counter()
    for done, number in enumerate(numbers, 1):
        kind, message = inputs[number]
        shared[_NUMBER], shared[_BEGAN] = number, time.monotonic()
        began_s, failure = time.process_time(), ""
        try:
            outcome = fuzz_targets.consume(message)
        except BaseException:  # noqa: BLE001 - any of them would have ended a member
            outcome, failure = "failed", traceback.format_exc(limit=-8)
        took_s = time.process_time() - began_s
        shared[_MEMORY], shared[_ARROW] = _peak_mb() - base_mb, (pool.max_memory() or 0) / 2**20
        if took_s > shared[_SLOWEST]:
            shared[_SLOWEST], shared[_SLOWEST_AT] = took_s, number
        failure = failure or _beyond(shared, took_s)
        shared[_DONE] = done
        outcomes[kind, outcome] += 1
        if failure:
            answers.send((number, {}, f"{kind} on {message.topic}: {failure}"))
        if done % 500 == 0:
            answers.send((number, outcomes, ""))
            outcomes.clear()
    answers.send((-1, outcomes, ""))
    answers.close()


def _beyond(shared: Any, took_s: float) -> str:
    for what, value, limit in (
        ("MB of memory", shared[_MEMORY], MEMORY_MB),
        ("MB of Arrow", shared[_ARROW], ARROW_MB),
        ("s of CPU", took_s, CPU_S),
    ):
        if value > limit:
            return f"it takes {value:,.1f} {what}, at most {limit:,} are allowed"
    return ""


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description="Damaged and hostile messages, to whatever reads messages.")
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=None, help="by default another one each time")
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    seed = random.randrange(10**9) if given.seed is None else given.seed

    def say(line: str) -> None:
        print(line, flush=True)

    say(f"seed {seed}, {given.inputs:,} inputs, {given.processes} processes")
    report = fuzz(seed, given.inputs, first=given.first, processes=given.processes, say=say)
    for (kind, outcome), count in sorted(report.outcomes.items()):
        say(f"{kind:24} {outcome:8} {count:>10,}")
    say(progress(report, given.inputs))
    for number, failure in sorted(report.failures.items()):
        say(f"\ninput {number}: {failure}\nagain with: make fuzz SEED={seed} FIRST={number} INPUTS=1")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
