"""What kills its process is refused after some deaths, and nothing else is, whatever was beside it."""

from __future__ import annotations

import random
from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st

from actors.turns import Turns, slots
from cartoray.deaths import TEXT_MAX, Deaths
from cartoray.events import Place
from cartoray.offsets import OffsetTracker


def after(text: str, position: int = 0, deaths_max: int = 3) -> Deaths:
    """Of a member that gets a partition for which this was committed."""
    made = Deaths(deaths_max)
    made.assigned(0, position, text)
    return made


def test_who_comes_after_a_death_knows_what_was_in_hand_and_after_a_farewell_there_is_nothing() -> None:
    member = after("")
    member.begin([(0, 7), (0, 8), (0, 11), (1, 9)])
    assert member.text(0, 7) == "0-1:1,4:1"
    assert member.text(0, 7, leaving=True) == ""
    member = after(member.text(0, 7), 7)
    assert [member.of((0, offset)) for offset in range(6, 13)] == [0, 1, 1, 0, 0, 1, 0]
    member.begin([(0, 11)])
    assert member.text(0, 8) == "3:2,0:1"
    assert member.text(0, 8, leaving=True) == "0:1,3:1"
    member.ended((0, 11))
    assert member.text(0, 8) == "0:1"


def test_before_its_last_death_a_message_must_be_alone_and_after_it_it_is_refused() -> None:
    text = ""
    for deaths in range(3):
        member = after(text)
        assert (member.of((0, 0)), member.is_alone((0, 0))) == (deaths, deaths == 2)
        assert not member.is_refused((0, 0))
        member.begin([(0, 0)])
        text = member.text(0, 0)
    assert after(text).is_refused((0, 0))


def test_messages_that_are_begun_with_in_advance_end_before_one_that_must_be_alone() -> None:
    member = after("6:2,9:1")
    member.begin_from((0, 2), 100)
    assert [offset for offset in range(120) if member.has_begun((0, offset))] == [2, 3, 4, 5]
    member.begin_from((0, 7), 3)
    assert member.text(0, 0) == "6:2,9:2,2-5:1,7-8:1"


@given(st.text(max_size=60) | st.from_regex(r"(\d{1,12}(-\d{1,12})?:\d{1,5},?){0,5}", fullmatch=True))
def test_whatever_stands_in_the_metadata_is_no_error(text: str) -> None:
    assert len(after(text).text(0, 0)) <= TEXT_MAX


@given(
    st.dictionaries(st.integers(0, 3_000), st.integers(1, 9), max_size=60),
    st.sets(st.integers(0, 3_000), max_size=900),
    st.integers(0, 3_000),
)
def test_what_is_told_is_read_back_and_if_it_is_too_much_the_most_deaths_are(
    counts: dict[int, int], begun: set[int], position: int
) -> None:
    member = after(",".join(f"{offset}:{count}" for offset, count in counts.items()))
    member.begin((0, offset) for offset in begun)
    text = member.text(0, position)
    assert len(text) <= TEXT_MAX
    told = after(text, position)
    want = {at: counts.get(at, 0) + (at in begun) for at in {*counts, *begun} if at >= position}
    have = {at: told.of((0, at)) for at in want}
    if text.count(",") < 200:
        assert have == want
    lost = [want[at] for at in want if not have[at]]
    assert {at: number for at, number in have.items() if number} == {at: want[at] for at in want if have[at]}
    assert not lost or max(lost) <= min(number for number in have.values() if number)


class _Partition:
    """What Kafka keeps."""

    def __init__(self, size: int) -> None:
        self.size, self.position, self.text = size, 0, ""
        self.done: set[int] = set()
        self.refused: set[int] = set()
        self.lives = 0


class _Life:
    """A process, from its assignment to its death, or until nothing is left."""

    def __init__(self, partition: _Partition, deaths_max: int) -> None:
        self.partition, self.tracker, self.deaths = partition, OffsetTracker(), Deaths(deaths_max)
        self.deaths.assigned(0, partition.position, partition.text)
        partition.lives += 1

    def commit(self) -> None:
        position = self.tracker.position(0)
        assert position is not None
        self.partition.position, self.partition.text = position, self.deaths.text(0, position)

    def end(self, place: Place) -> None:
        self.tracker.complete(*place)
        self.deaths.ended(place)
        self.commit()

    def is_refused(self, place: Place) -> bool:
        self.tracker.deliver(*place)
        if refused := self.deaths.is_refused(place):
            self.partition.refused.add(place[1])
            self.end(place)
        return refused


def _intel(life: _Life, lines: list[str], poison: set[int], chance: random.Random) -> bool:
    """Whether it died. A job ends only when those before it in its line have: it may have to wait for these."""
    turns: Turns[Place] = Turns(slots(4))
    waiting: list[Place] = []
    running: list[Place] = []
    for offset in range(life.partition.position, life.partition.size):
        if not life.is_refused(place := (0, offset)):
            waiting.append(place)
            turns.add(place, run="r", account=lines[offset], urgent=False, alone=life.deaths.is_alone(place))
    while waiting or running:
        started = []
        while (place := turns.take()) is not None:
            started.append(place)
        if started:
            life.deaths.begin(started)
            life.commit()
            running += started
            waiting = [place for place in waiting if place not in started]
        alone = [place for place in running if life.deaths.is_alone(place)]
        assert not alone or running == alone
        open_ = [*waiting, *running]
        able = [
            place
            for place in running
            if place[1] not in poison and not any(lines[at] == lines[place[1]] and at < place[1] for _, at in open_)
        ]
        killers = [place for place in running if place[1] in poison]
        if killers and (not able or chance.random() < 0.3):
            return True
        assert able, "nothing goes on"
        place = chance.choice(able)
        running.remove(place)
        life.partition.done.add(place[1])
        turns.ended(place)
        life.end(place)
    return False


def _ingestion(life: _Life, poison: set[int], chance: random.Random) -> bool:
    """Whether it died: when it looks at a message, or any time later while it has it."""
    later = deque((0, offset) for offset in range(life.partition.position, life.partition.size))
    held: list[Place] = []
    alone: Place | None = None
    while later or held:
        if later and alone is None and (not life.deaths.is_alone(later[0]) or not held) and chance.random() < 0.7:
            if life.is_refused(place := later.popleft()):
                continue
            if life.deaths.is_alone(place):
                alone = place
                life.deaths.begin([place])
                life.commit()
            elif not life.deaths.has_begun(place):
                life.deaths.begin_from(place, 5)
                life.commit()
            held.append(place)
        elif held and not poison & {offset for _, offset in held}:
            batch, held = held[:3], held[3:]
            alone = None
            for place in batch:
                life.partition.done.add(place[1])
                life.end(place)
        if poison & {offset for _, offset in held} and chance.random() < 0.5:
            return True
    return False


@settings(deadline=None)
@given(
    st.integers(2, 4), st.sets(st.integers(0, 15), max_size=4), st.sampled_from(["intel", "ingestion"]), st.randoms()
)
def test_only_what_kills_is_refused_after_its_deaths_and_all_else_is_done(
    deaths_max: int, poison: set[int], pool: str, chance: random.Random
) -> None:
    partition = _Partition(16)
    lines = [chance.choice("abc") for _ in range(partition.size)]
    while True:
        life = _Life(partition, deaths_max)
        died = _intel(life, lines, poison, chance) if pool == "intel" else _ingestion(life, poison, chance)
        if not died:
            break
        assert partition.lives <= deaths_max * len(poison), "each death counts for one that is to blame"
    assert partition.refused == poison
    assert partition.done == set(range(partition.size)) - poison
    assert partition.position == partition.size
    assert pool == "ingestion" or not partition.text  # ingestion may have announced what has not come yet
