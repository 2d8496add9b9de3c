"""The members of a pool: which slots are to be started, and when to give up. No Ray, no clock.

    state      start      ready     died       drain      stopped
    waiting    starting   –         –          stopped    –
    starting   –          running   waiting    draining   stopped
    running    –          –         waiting    draining   stopped
    draining   –          –         stopped    draining   stopped
    stopped    –          –         –          stopped    –

A step that the table does not have raises IllegalTransition and changes nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from cartoray.errors import IllegalTransition


class State(StrEnum):
    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"
    STOPPED = "stopped"


_ACTIVE = (State.WAITING, State.STARTING, State.RUNNING)


class Signal(StrEnum):
    START = "start"
    READY = "ready"
    DIED = "died"
    DRAIN = "drain"
    STOPPED = "stopped"


_TABLE: Mapping[State, Mapping[Signal, State]] = {
    State.WAITING: {Signal.START: State.STARTING, Signal.DRAIN: State.STOPPED},
    State.STARTING: {
        Signal.READY: State.RUNNING,
        Signal.DIED: State.WAITING,
        Signal.DRAIN: State.DRAINING,
        Signal.STOPPED: State.STOPPED,
    },
    State.RUNNING: {Signal.DIED: State.WAITING, Signal.DRAIN: State.DRAINING, Signal.STOPPED: State.STOPPED},
    State.DRAINING: {Signal.DIED: State.STOPPED, Signal.DRAIN: State.DRAINING, Signal.STOPPED: State.STOPPED},
    State.STOPPED: {Signal.DRAIN: State.STOPPED},
}


def step(state: State, signal: Signal) -> State:
    """The state after `signal`. Raises IllegalTransition."""
    try:
        return _TABLE[state][signal]
    except KeyError:
        raise IllegalTransition(f"A member that is {state} cannot be told {signal}.") from None


@dataclass(frozen=True)
class Policy:
    """How dead members are replaced.

    A member that lived `healthy_ms`, or had work, starts a new count of deaths. Serve and Ray Data cap consecutive
    deaths as well: what dies at once, every time, does not get better by starting it for ever. What dies of its work is
    counted with that (`cartoray.deaths`).
    """

    back_off_first_ms: int = 500
    back_off_last_ms: int = 15_000
    deaths_max: int = 8
    healthy_ms: int = 30_000


@dataclass(frozen=True)
class Slot:
    number: int
    state: State = State.WAITING
    deaths: int = 0  # in a row, none of them healthy before
    start_at_ms: int = 0
    started_ms: int = 0
    last_reason: str = ""


class Membership:
    """The slots of one pool. One that has stopped is forgotten with the next `resize`, and its number given again."""

    def __init__(self, size: int, policy: Policy | None = None) -> None:
        self._policy = policy or Policy()
        self._slots: dict[int, Slot] = {}
        self.resize(size)

    def __getitem__(self, number: int) -> Slot:
        return self._slots[number]

    def resize(self, size: int) -> list[int]:
        """Adds slots, or drains those of the highest numbers; answers the slots whose members are to be told to."""
        self._slots = {number: slot for number, slot in self._slots.items() if slot.state is not State.STOPPED}
        active = sorted(number for number, slot in self._slots.items() if slot.state in _ACTIVE)
        unused = (number for number in itertools.count() if number not in self._slots)
        for number in itertools.islice(unused, max(0, size - len(active))):
            self._slots[number] = Slot(number)
        for number in active[size:]:
            self._move(number, Signal.DRAIN)
        return [number for number in active[size:] if self._slots[number].state is State.DRAINING]

    @property
    def pending(self) -> int:
        """Members that are to start, or are starting."""
        return sum(slot.state in (State.WAITING, State.STARTING) for slot in self._slots.values())

    def due(self, now_ms: int) -> list[int]:
        """Slots to start now."""
        return [
            number for number, slot in self._slots.items() if slot.state is State.WAITING and slot.start_at_ms <= now_ms
        ]

    def start(self, number: int, now_ms: int) -> None:
        self._move(number, Signal.START, started_ms=now_ms)

    def ready(self, number: int) -> None:
        self._move(number, Signal.READY)

    def worked(self, number: int) -> None:
        """The member has been given work."""
        self._slots[number] = replace(self._slots[number], deaths=0)

    def died(self, number: int, now_ms: int, reason: str) -> None:
        """The member is gone without having been asked to go; it is started again after a back-off."""
        slot = self._slots[number]
        deaths = 1 if now_ms - slot.started_ms >= self._policy.healthy_ms else slot.deaths + 1
        wait_ms = min(self._policy.back_off_first_ms * 2 ** (deaths - 1), self._policy.back_off_last_ms)
        self._move(number, Signal.DIED, deaths=deaths, start_at_ms=now_ms + wait_ms, last_reason=reason)

    def drain(self) -> None:
        for number in self._slots:
            self._move(number, Signal.DRAIN)

    def stopped(self, number: int) -> None:
        self._move(number, Signal.STOPPED)

    @property
    def given_up(self) -> Slot | None:
        """A slot that died too often in a row, if any: the driver ends then, rather than turning in circles."""
        return next((slot for slot in self._slots.values() if slot.deaths > self._policy.deaths_max), None)

    def states(self) -> list[State]:
        return [slot.state for slot in self._slots.values()]

    def _move(self, number: int, signal: Signal, **changes: object) -> None:
        slot = self._slots[number]
        self._slots[number] = replace(slot, state=step(slot.state, signal), **changes)  # type: ignore[arg-type]
