"""Rows of a message, decoded when they are asked for: of those that did not change, only the ids ever are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import repeat
from typing import Any, overload

from cartoray.wire import Columns
from ingestion.fingerprint import fingerprints

Values = tuple[Any, ...]


class Rows(Sequence[Values]):
    """`rows[k]` holds the values of row k in the order of `fields`; a field that the message lacks is null.

    A slice shares the columns, and what was decoded of them.
    """

    def __init__(self, columns: Columns, fields: Sequence[str], start: int = 0, stop: int | None = None) -> None:
        self._columns = columns
        self._fields = fields
        self._start = start
        self._stop = columns.rows if stop is None else stop

    def __len__(self) -> int:
        return self._stop - self._start

    def __iter__(self) -> Iterator[Values]:
        if not self._fields:
            return repeat((), len(self))
        return zip(*(self.column(at) for at in range(len(self._fields))), strict=True)

    @cached_property
    def nbytes(self) -> int:
        """What these rows take in memory, but for what was decoded."""
        return int(self._columns.batch.slice(self._start, len(self)).nbytes)

    @overload
    def __getitem__(self, at: int) -> Values: ...
    @overload
    def __getitem__(self, at: slice) -> Rows: ...
    def __getitem__(self, at: int | slice) -> Values | Rows:
        if isinstance(at, int):
            return self.pick([range(len(self))[at]])[0]
        part = range(self._start, self._stop)[at]
        return Rows(self._columns, self._fields, part.start, part.stop)

    def column(self, at: int) -> Sequence[Any]:
        """Values of field number `at`."""
        values = self._columns.get(self._fields[at])
        return [None] * len(self) if values is None else values[self._start : self._stop]

    def has(self, at: int) -> bool:
        """Whether any row of the message has a value of field number `at`."""
        return self._columns.has(self._fields[at])

    def pick(self, places: Sequence[int]) -> list[Values]:
        """The rows at these places, in that order."""
        if len(places) * 4 > len(self):  # a column as a whole is decoded four times as fast as by places
            rows = list(self)
            return [rows[place] for place in places]
        part = self._columns.take([self._start + place for place in places])
        return list(Rows(part, self._fields))

    def fingerprints(self, key: bytes) -> list[int]:
        """See `ingestion.fingerprint`."""
        batch = self._columns.batch.slice(self._start, len(self))
        return fingerprints(batch, self._fields, key)
