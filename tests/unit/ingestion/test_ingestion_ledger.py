from __future__ import annotations

import base64
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from ingestion.ledger import BASE_KEY, RUNS_MAX, Judgement, Ledger, Mark, mark

DATABASE = bytes(range(16)).hex()


def bookmark(number: bytes, database: bytes = bytes(range(16)), end: bytes = b"\x90") -> str:
    return "FB:" + base64.b64encode(b"\x91\xcc\x10" + database + number + end).decode().rstrip("=")


@pytest.mark.parametrize(
    ("packed", "number"),
    [
        (b"\x07", 7),
        (b"\xc8\x90", -112),
        (b"\xc9\x07\xd0", 2000),
        (b"\xca\x00\x01\x00\x00", 65536),
        (b"\xcb\x00\x00\x00\x01\x00\x00\x00\x00", 2**32),
    ],
)
def test_a_bookmark_names_the_newest_transaction(packed: bytes, number: int) -> None:
    assert mark([bookmark(packed)]) == Mark(DATABASE, number)


def test_a_bookmark_of_neo4j_is_read() -> None:
    assert mark(["FB:kcwQH+z/c9L3TA2HrZSI3fvSwg2Q"]) == Mark("1fecff73d2f74c0d87ad9488ddfbd2c2", 13)


@pytest.mark.parametrize(
    "bookmarks",
    [
        (),
        ("neo4j:bookmark:v1:tx42",),
        ("FB:",),
        ("FB:not base64!",),
        (bookmark(b"\xc9\x07"),),
        (bookmark(b"\x07", database=b"short"),),
        (bookmark(b"\x07", end=b"\x91\x01"),),
        (bookmark(b"\x07"), bookmark(b"\x08")),
    ],
)
def test_of_any_other_bookmark_nothing_is_concluded(bookmarks: tuple[str, ...]) -> None:
    assert mark(bookmarks) is None


@given(st.binary(max_size=40))
def test_no_bytes_break_it(noise: bytes) -> None:
    mark(["FB:" + base64.b64encode(noise).decode()])


Topic = list[tuple[bytes, bytes]]


def begin(ledger: Ledger, run_id: str, number: int, topic: Topic, *, database: str = DATABASE) -> Judgement:
    """As the bookkeeper does."""
    ledger.read(topic)
    judgement = ledger.judge(run_id, Mark(database, number))
    if judgement.is_new:
        topic.append((BASE_KEY, judgement.base.model_dump_json().encode()))
        ledger.read(topic)
        again = ledger.judge(run_id, Mark(database, number))
        assert not again.is_new
        judgement = again
    ledger.begin(run_id, judgement)
    return judgement


def count(ledger: Ledger, commits: int, topic: Topic) -> None:
    ledger.committed({DATABASE: commits})
    topic.append((ledger.member.encode(), ledger.written(DATABASE).model_dump_json().encode()))


def salts(ledgers: Iterable[Ledger], run_id: str) -> set[bytes | None]:
    return {ledger.trust.salts.get(run_id) for ledger in ledgers}


def test_runs_go_on_with_one_salt_until_somebody_else_writes() -> None:
    topic: Topic = []
    one, two = Ledger(), Ledger()
    begin(one, "run-1", 10, topic)
    count(one, 3, topic)
    begin(two, "run-1", 13, topic)  # while the first one writes
    count(two, 2, topic)
    (first,) = salts((one, two), "run-1")
    later = Ledger()  # of a process that has just started
    begin(later, "run-2", 15, topic)
    assert salts([later], "run-2") == {first}
    count(later, 1, topic)
    begin(later, "run-3", 17, topic)  # 16 are ours
    (other,) = salts([later], "run-3")
    assert other not in (first, None)
    begin(later, "run-4", 17, topic)
    assert salts([later], "run-4") == {other}


def test_a_member_that_died_before_it_counted_is_somebody_else() -> None:
    topic: Topic = []
    begin(Ledger(), "run-1", 10, topic)
    begin(Ledger(), "run-2", 11, topic)
    assert len({base.decode() for _, base in topic}) == 2
    bases = [Ledger() for _ in range(2)]
    begin(bases[0], "run-1", 12, topic)
    begin(bases[1], "run-2", 12, topic)
    assert bases[0].trust.salts["run-1"] != bases[1].trust.salts["run-2"]


def test_a_database_that_went_back_or_is_another_one_is_in_doubt() -> None:
    topic: Topic = []
    ledger = Ledger()
    begin(ledger, "run-1", 10, topic)
    begin(ledger, "run-2", 9, topic)
    begin(ledger, "run-3", 9, topic, database="ab" * 16)
    assert len({ledger.trust.salts[run_id] for run_id in ("run-1", "run-2", "run-3")}) == 3


def test_of_bases_that_members_publish_at_once_the_first_counts() -> None:
    topic: Topic = []
    one, two = Ledger(), Ledger()
    judgements = [ledger.judge("run-1", Mark(DATABASE, 10)) for ledger in (one, two)]
    topic += [(BASE_KEY, judgement.base.model_dump_json().encode()) for judgement in judgements]
    for ledger in (one, two):
        begin(ledger, "run-1", 10, topic)
    assert salts((one, two), "run-1") == {bytes.fromhex(judgements[0].base.salt)}


def test_what_queries_set_is_volatile_for_all_members_of_later_runs() -> None:
    topic: Topic = []
    one = Ledger()
    begin(one, "run-1", 10, topic)
    one.queried(frozenset({"exposed"}))
    assert one.trust.volatile == {"exposed"}
    count(one, 1, topic)
    later = Ledger()
    begin(later, "run-2", 11, topic)
    assert later.trust.volatile == {"exposed"}
    assert salts([later], "run-2") == salts([one], "run-1")


def test_a_query_that_may_set_anything_ends_the_trust() -> None:
    topic: Topic = []
    one = Ledger()
    begin(one, "run-1", 10, topic)
    before = one.trust.salts["run-1"]
    one.queried(None)
    assert one.trust.salts == {}
    begin(one, "run-1", 10, topic)  # it got more partitions
    assert one.trust.salts == {}
    count(one, 1, topic)
    begin(later := Ledger(), "run-1", 11, topic)
    assert later.trust.salts == {}
    begin(later, "run-2", 11, topic)
    assert salts([later], "run-2").isdisjoint({before, None})


def test_records_that_nobody_can_read_are_in_doubt_and_runs_without_a_mark_have_no_salt() -> None:
    topic: Topic = []
    ledger = Ledger()
    begin(ledger, "run-1", 10, topic)
    topic += [(b"member", b"{"), (b"member", b'{"kind":"other"}')]
    begin(ledger, "run-2", 11, topic)
    assert ledger.trust.salts["run-1"] != ledger.trust.salts["run-2"]
    ledger.begin("run-3", None)
    assert "run-3" not in ledger.trust.salts


def test_runs_are_forgotten_one_by_one() -> None:
    topic: Topic = []
    ledger = Ledger()
    for number in range(RUNS_MAX + 5):
        begin(ledger, f"run-{number}", 10, topic)
    assert len(ledger.trust.salts) == RUNS_MAX
    assert len(set(ledger.trust.salts.values())) == 1
    begin(ledger, "in doubt", 11, topic)  # which is told apart from the first of them once and for all
    begin(ledger, "quiet", 11, topic)
    assert ledger.trust.salts["in doubt"] == ledger.trust.salts["quiet"]


class Members(RuleBasedStateMachine):
    """Members that write, count, die and begin runs one after the other, and somebody else who writes as well."""

    @initialize()
    def start(self) -> None:
        self.topic: Topic = []
        self.number = 5
        self.members = [(Ledger(), 0), (Ledger(), 0)]
        self.run = 0
        self.salts: list[bytes | None] = []
        self.dirty = False  # a change since the newest run began that no record tells of

    @rule(at=st.integers(0, 1))
    def commits(self, at: int) -> None:
        ledger, commits = self.members[at]
        self.members[at] = ledger, commits + 1
        self.number += 1
        count(ledger, commits + 1, self.topic)

    @rule(at=st.integers(0, 1))
    def commits_and_dies(self, at: int) -> None:
        self.members[at] = Ledger(), 0
        self.number += 1
        self.dirty = True

    @rule(by=st.integers(1, 3))
    def somebody_writes(self, by: int) -> None:
        self.number += by
        self.dirty = True

    @precondition(lambda self: self.number > 5)
    @rule(keep=st.integers(0, 1))
    def compaction_keeps_the_newest_of_each_key(self, keep: int) -> None:
        newest = {key: at for at, (key, _) in enumerate(self.topic)}
        self.topic = [each for at, each in enumerate(self.topic) if newest[each[0]] == at or keep]

    @rule()
    def a_run_begins(self) -> None:
        self.run += 1
        run_id = f"run-{self.run}"
        for ledger, _ in self.members:
            begin(ledger, run_id, self.number, self.topic)
        (salt,) = salts((ledger for ledger, _ in self.members), run_id)
        assert salt is not None
        if self.dirty:
            assert salt not in self.salts
        elif self.salts:
            assert salt == self.salts[-1]
        self.salts.append(salt)
        self.dirty = False


TestMembers = Members.TestCase
