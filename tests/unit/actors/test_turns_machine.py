"""Jobs of a run and account start in their order, each once; none waits for nothing, and lines take turns."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from actors.turns import Slots, Turns

Line = tuple[bool, str, str]
"""Urgent, run and account."""


class Member(RuleBasedStateMachine):
    """The model keeps a list a line, and when each line started last."""

    @initialize(slots=st.builds(Slots, st.integers(1, 5), st.integers(1, 4), st.integers(1, 2)))
    def begins(self, slots: Slots) -> None:
        self.slots, self.turns = slots, Turns[int](slots)
        self.lines: dict[Line, list[int]] = {}
        self.waits_since: dict[Line, int] = {}
        self.started_at: dict[Line, int] = {}
        self.running: dict[int, Line] = {}
        self.number = self.clock = 0

    @rule(urgent=st.booleans(), run=st.sampled_from("rs"), account=st.sampled_from("abc"))
    def a_job_is_taken(self, *, urgent: bool, run: str, account: str) -> None:
        line = urgent, run, account
        self.clock += 1
        if not self.lines.setdefault(line, []):
            self.waits_since[line] = self.clock
        self.lines[line].append(self.number)
        self.turns.add(self.number, run=run, account=account, urgent=urgent)
        self.number += 1

    def _eligible(self, line: Line) -> bool:
        urgent, _, account = line
        if not self.lines[line]:
            return False
        if urgent:
            return len(self.running) < self.slots.all + self.slots.urgent
        of_account = sum(each[2] == account for each in self.running.values())
        return len(self.running) < self.slots.all and of_account < self.slots.account

    @rule()
    def one_is_to_start(self) -> None:
        self.clock += 1
        eligible = [line for line in self.lines if self._eligible(line)]
        key = self.turns.take()
        assert (key is not None) == bool(eligible)
        if key is None:
            return
        line = next(line for line, keys in self.lines.items() if key in keys)
        assert line in eligible
        assert line[0] or not any(each[0] for each in eligible)  # urgent ones first
        assert self.lines[line][0] == key
        before = self.started_at.get(line, 0)
        for other in eligible:  # whoever waits since this line had its last turn is before it
            if other != line and other[0] == line[0] and before:
                assert max(self.waits_since[other], self.started_at.get(other, 0)) > min(before, self.waits_since[line])
        self.lines[line].pop(0)
        self.started_at[line] = self.waits_since[line] = self.clock
        self.running[key] = line

    @rule(data=st.data())
    def one_ends_or_is_not_wanted_any_more(self, data: st.DataObject) -> None:
        waiting = [key for keys in self.lines.values() for key in keys]
        if not (waiting or self.running):
            self.turns.ended(-1)
            return
        key = data.draw(st.sampled_from(sorted([*waiting, *self.running])))
        self.turns.ended(key)
        if self.running.pop(key, None) is None:
            for keys in self.lines.values():
                if key in keys:
                    keys.remove(key)

    @invariant()
    def no_more_run_than_there_are_slots_for(self) -> None:
        if not hasattr(self, "turns"):
            return
        assert set(self.turns.running) == set(self.running)
        assert len(self.running) <= self.slots.all + self.slots.urgent
        assert sum(not line[0] for line in self.running.values()) <= self.slots.all
        for account in "abc":
            assert sum(line[2] == account and not line[0] for line in self.running.values()) <= self.slots.account

    def teardown(self) -> None:
        if not hasattr(self, "turns"):
            return
        while any(self.lines.values()):
            for key in list(self.running):
                self.turns.ended(key)
                del self.running[key]
            before = sum(map(len, self.lines.values()))
            self.one_is_to_start()
            assert sum(map(len, self.lines.values())) == before - 1
        assert self.turns.take() is None


TestMember = Member.TestCase
TestMember.settings = settings(max_examples=100, stateful_step_count=50, deadline=None, derandomize=True)
