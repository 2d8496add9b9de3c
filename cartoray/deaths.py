"""How often a process died with a message in its hands: carried by the metadata of committed offsets. Pure.

A member commits, before it begins with messages, which these are, each with the number of deaths that it will have been
part of should this member die now. Whoever gets the partition next reads that. A member that gives a partition back
takes itself out of the numbers. So a death needs nobody to notice it, and there is nothing else to be kept.

With the last death that a message is allowed, it must be the only one in its process: then it, and nothing that merely
was beside it, is what the process died of. A message that has had them all is to be refused.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

from cartoray.events import Place

TEXT_MAX = 3_000  # characters; the broker's limit is 4,096 bytes
_ENTRY = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?:(\d{1,3})")
_SPAN_MAX = 10_000  # offsets in one entry; what others have written there is not trusted


class Deaths:
    """Of the messages of all partitions that a member has. Offsets are those of the messages.

    The text of a partition, relative to the offset that it is committed with: `0-99:1,107:2`, offsets and deaths.
    """

    def __init__(self, deaths_max: int) -> None:
        self._max = deaths_max
        self._counts: defaultdict[int, dict[int, int]] = defaultdict(dict)  # partition → offset → deaths so far
        self._begun: defaultdict[int, set[int]] = defaultdict(set)

    def assigned(self, partition: int, position: int, text: str) -> None:
        """The partition is this member's from now on: what was committed for it. A text that is no such is ignored."""
        self.revoked(partition)
        for entry in text.split(",") if text else ():
            if (found := _ENTRY.fullmatch(entry)) is not None:
                first, last, count = int(found[1]), int(found[2] or found[1]), int(found[3])
                for offset in range(first, min(last, first + _SPAN_MAX) + 1):
                    self._counts[partition][position + offset] = count

    def revoked(self, partition: int) -> None:
        self._counts.pop(partition, None)
        self._begun.pop(partition, None)

    def of(self, place: Place) -> int:
        partition, offset = place
        return self._counts[partition].get(offset, 0)

    def is_refused(self, place: Place) -> bool:
        """It has had all the deaths that it may."""
        return self.of(place) >= self._max

    def is_alone(self, place: Place) -> bool:
        """It has one left: nothing may be begun beside it."""
        return self.of(place) == self._max - 1

    def begin(self, places: Iterable[Place]) -> None:
        """With these the member begins when the text has been committed."""
        for partition, offset in places:
            self._begun[partition].add(offset)

    def begin_from(self, place: Place, count: int) -> None:
        """With this one, and the next ones, so many; up to one that must be alone or refused."""
        partition, first = place
        for offset in range(first, first + count):
            if offset > first and self.of((partition, offset)) >= self._max - 1:
                return
            self._begun[partition].add(offset)

    def has_begun(self, place: Place) -> bool:
        partition, offset = place
        return offset in self._begun[partition]

    def ended(self, place: Place) -> None:
        """It is done, or refused. That it is to be refused is told on, until all before it are done as well."""
        partition, offset = place
        self._begun[partition].discard(offset)
        if not self.is_refused(place):
            self._counts[partition].pop(offset, None)

    def text(self, partition: int, position: int, *, leaving: bool = False) -> str:
        """What to commit with `position`; `leaving`: the member gives the partition back.

        Should there be too much, those with most deaths are told, and of these the first.
        """
        counts, begun = self._counts[partition], self._begun[partition] if not leaving else set()
        numbers = {
            offset: counts.get(offset, 0) + (offset in begun) for offset in counts.keys() | begun if offset >= position
        }
        text = ""
        for first, last, count in sorted(_spans(numbers), key=lambda span: (-span[2], span[0])):
            entry = f"{first - position}{f'-{last - position}' if last > first else ''}:{count}"
            if len(text) + 1 + len(entry) > TEXT_MAX:
                break
            text = f"{text},{entry}" if text else entry
        return text


def _spans(numbers: dict[int, int]) -> Iterator[tuple[int, int, int]]:
    """First offset, last offset, number: of neighbours with the same one."""
    first = last = None
    for offset in sorted(numbers):
        if first is not None and last is not None:
            if offset == last + 1 and numbers[offset] == numbers[first]:
                last = offset
                continue
            yield first, last, numbers[first]
        first = last = offset
    if first is not None and last is not None:
        yield first, last, numbers[first]
