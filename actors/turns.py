"""Which of the jobs that a member has taken is next: urgent ones first, and no account has all slots. Pure.

One that must be alone goes before all others, and waits until nothing runs.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Collection, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
_Lines = OrderedDict[tuple[str, str], deque[K]]  # by run and account, the one whose turn is next first


@dataclass(frozen=True)
class Slots:
    """Jobs that run at once: `all` of them, of one account `account`, and `urgent` more for those that are."""

    all: int
    account: int
    urgent: int


def slots(jobs_at_once: int) -> Slots:
    """A large account's jobs may take hours, so half of the slots are for others; a quarter more is kept for urgent."""
    return Slots(jobs_at_once, -(-jobs_at_once // 2), -(-jobs_at_once // 4))


class Turns(Generic[K]):
    """Jobs by a key of theirs. Those of one run and account start in the order in which they came.

    So a job may wait for an earlier one of these while it runs: that one has a slot already.
    """

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._urgent: _Lines[K] = OrderedDict()
        self._others: _Lines[K] = OrderedDict()
        self._running: dict[K, str] = {}  # → account
        self._of_account: Counter[str] = Counter()
        self._alone: set[K] = set()  # that wait or run

    @property
    def running(self) -> Collection[K]:
        """Jobs that have a slot."""
        return self._running.keys()

    def add(self, key: K, *, run: str, account: str, urgent: bool, alone: bool = False) -> None:
        if alone:
            self._alone.add(key)
        lines = self._urgent if urgent else self._others
        lines.setdefault((run, account), deque()).append(key)

    def take(self) -> K | None:
        """A job that is to start now, if there is a slot for any."""
        if self._alone:
            return self._take_alone()
        free = self._slots.all - len(self._running)
        if free > -self._slots.urgent:
            for line in self._urgent:
                return self._start(self._urgent, line)
        if free > 0:
            for line in self._others:
                if self._of_account[line[1]] < self._slots.account:
                    return self._start(self._others, line)
        return None

    def _take_alone(self) -> K | None:
        """The first that must be alone; before it those that it may wait for while it runs, which have to end."""
        if self._alone & self._running.keys():
            return None
        for lines in (self._urgent, self._others):
            for line, keys in lines.items():
                room = 1 if keys[0] in self._alone else self._slots.all
                if not self._alone.isdisjoint(keys) and len(self._running) < room:
                    return self._start(lines, line)
        return None

    def ended(self, key: K) -> None:
        """The job has run, or nobody wants it any more."""
        self._alone.discard(key)
        if (account := self._running.pop(key, None)) is not None:
            self._of_account[account] -= 1
            return
        for lines in (self._urgent, self._others):
            for line in [line for line, keys in lines.items() if key in keys]:
                lines[line].remove(key)
                if not lines[line]:
                    del lines[line]

    def _start(self, lines: _Lines[K], line: tuple[str, str]) -> K:
        key = lines[line].popleft()
        lines.move_to_end(line)
        if not lines[line]:
            del lines[line]
        self._running[key] = line[1]
        self._of_account[line[1]] += 1
        return key
