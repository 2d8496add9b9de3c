"""Whether anyone but cartoray has written to the graph since it last looked: only then are fingerprints relied on.

A fingerprint says what cartoray wrote to a node, not what somebody else made of it since. Neo4j tells nobody about
changes, but it numbers the transactions that changed something, and tells the newest number in each bookmark. So every
member counts its own. When a run begins, and the database has counted as many as all members together since the run
before began, nobody else has written. Else, or when in doubt, fingerprints get another salt: then no node has the one
that it should have, all are compared value by value, and get a new one.

    topic `graph_ledger`, compacted
    key            value
    member's id    Written: transactions that this process committed so far, and properties that queries of runs set
    base           Base: the state when a run began; the first one of a run is the run's, whichever member made it

What is in doubt: a member that died between its commit and its count; tokens that Neo4j makes for labels, types and
properties that are new to it, each in a transaction of its own; a run that begins while another one writes; bookmarks
of another form than this release knows. It costs a comparison, never a node that is not as it should be. Pure.
"""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

_BOOKMARK = re.compile(rb"\x91\xcc\x10(.{16})(?:([\x00-\x7f])|\xc8(.)|\xc9(.{2})|\xca(.{4})|\xcb(.{8}))\x90", re.DOTALL)
BASE_KEY = b"base"
RUNS_MAX = 64  # the rows of one that is forgotten have no fingerprints


@dataclass(frozen=True)
class Mark:
    """The newest transaction of a database; `database` is another one after it was made anew."""

    database: str
    number: int


def mark(bookmarks: Iterable[str]) -> Mark | None:
    """What Neo4j 5 and later say in `FB:…`: a list of the database's UUID, the number, and an empty list.

    None: not one bookmark, or one of another form.
    """
    match tuple(bookmarks):
        case (bookmark,) if bookmark.startswith("FB:"):
            text = bookmark.removeprefix("FB:")
        case _:
            return None
    try:
        found = _BOOKMARK.fullmatch(base64.b64decode(text + "=" * (-len(text) % 4), validate=True))
    except ValueError:
        return None
    if found is None:
        return None
    database, *numbers = found.groups()
    number = next(each for each in numbers if each is not None)
    return Mark(database.hex(), int.from_bytes(number, "big", signed=True))


class Written(BaseModel):
    """What one process did to one database since it started."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["written"] = "written"
    database: str
    commits: int
    properties: tuple[str, ...] = ()  # that queries may have set, beside what schemas describe
    opaque: int = 0  # transactions with queries that may have set any


class Base(BaseModel):
    """The state when a run began, and the salt of the fingerprints that it may rely on."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["base"] = "base"
    run_id: str
    database: str
    number: int
    commits: int
    opaque: int
    salt: str = Field(pattern=r"^([0-9a-f]{2})+$")


@dataclass(frozen=True)
class Judgement:
    """`others`: transactions since the base before that no member counted, if there is one and this one `is_new`.

    `trusted`: fingerprints with the salt of `base` may be relied on, and written.
    """

    base: Base
    is_new: bool
    others: int
    trusted: bool


@dataclass(frozen=True)
class Trust:
    """`salts`: by run, of fingerprints that may be relied on, but for `volatile` properties: these are compared."""

    salts: Mapping[str, bytes] = field(default_factory=dict)
    volatile: frozenset[str] = frozenset()


NO_TRUST = Trust()
_RECORD: TypeAdapter[Written | Base] = TypeAdapter(Written | Base)


class Ledger:
    """What a member knows of the topic, and what itself has done."""

    def __init__(self) -> None:
        self.member = secrets.token_hex(8)
        self._others: dict[str, Written] = {}
        self._bases: dict[str, Base] = {}
        self._newest: Base | None = None
        self._own: dict[str, int] = {}  # commits by database
        self._properties: set[str] = set()
        self._opaque = 0
        self._salts: dict[str, bytes] = {}

    # ---- what others did ---------------------------------------------------------------------------------------

    def read(self, records: Iterable[tuple[bytes, bytes]]) -> None:
        """Keys and values of the topic, all that it has now."""
        self._others, self._bases, self._newest = {}, {}, None
        for key, value in records:
            try:
                record = _RECORD.validate_json(value)
            except ValidationError:
                continue  # what it counts is missing then, which is in doubt
            if isinstance(record, Base):
                known = self._bases.get(record.run_id)
                if known is None or known.database != record.database:
                    self._bases[record.run_id] = self._newest = record
            elif (member := key.decode(errors="replace")) != self.member:
                self._others[member] = record

    def judge(self, run_id: str, now: Mark) -> Judgement:
        """`now` must have been asked for before the topic was read: what a sibling wrote by then came after its base.

        A base that is new is to be published, and the run to be judged again once it was read.
        """
        commits, opaque = self._counts(now.database)
        found = self._bases.get(run_id)
        if found is not None and found.database == now.database:
            return Judgement(found, is_new=False, others=0, trusted=opaque == found.opaque)
        before = self._newest
        if before is None or before.database != now.database:
            others, salt = 0, secrets.token_hex(16)
        else:
            others = (now.number - before.number) - (commits - before.commits)
            salt = secrets.token_hex(16) if others or opaque != before.opaque else before.salt
        base = Base(run_id=run_id, database=now.database, number=now.number, commits=commits, opaque=opaque, salt=salt)
        return Judgement(base, is_new=True, others=others, trusted=True)

    def begin(self, run_id: str, judgement: Judgement | None) -> None:
        """From now on, the run has what was judged; None: no fingerprints."""
        if run_id not in self._salts and len(self._salts) >= RUNS_MAX:
            del self._salts[next(iter(self._salts))]
        self._salts[run_id] = bytes.fromhex(judgement.base.salt) if judgement and judgement.trusted else b""

    @property
    def trust(self) -> Trust:
        others = (record.properties for record in self._others.values())
        salts = {run_id: salt for run_id, salt in self._salts.items() if salt}
        return Trust(salts, frozenset(self._properties.union(*others)))

    def _counts(self, database: str) -> tuple[int, int]:
        """Transactions and opaque queries of all members."""
        others = [record for record in self._others.values() if record.database == database]
        return (
            self._own.get(database, 0) + sum(each.commits for each in others),
            self._opaque + sum(each.opaque for each in others),
        )

    # ---- what this one did -------------------------------------------------------------------------------------

    def committed(self, commits: Mapping[str, int]) -> None:
        """By database, how many transactions this member committed that surely changed something."""
        self._own = dict(commits)

    def queried(self, properties: frozenset[str] | None) -> None:
        """A query is about to set these properties of nodes; None: any. Rows that follow it must write them again."""
        if properties is None:
            self._opaque += 1
            self._salts = dict.fromkeys(self._salts, b"")
        else:
            self._properties |= properties

    def written(self, database: str) -> Written:
        """The record to be published under the key `member`."""
        return Written(
            database=database,
            commits=self._own.get(database, 0),
            properties=tuple(sorted(self._properties)),
            opaque=self._opaque,
        )
