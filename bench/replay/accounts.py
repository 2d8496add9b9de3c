"""One account's text made another's: the account number, and all ids that AWS gives out once.

Pure. The recorded account is the base. Each id of an account belongs to one id of the base, and the same function leads
both ways: hex digits are XORed with those of a hash of the account, letters reflected at them. So a request's ids are
turned back without a memory of what was answered. The length never changes.

    hex      i-0123456789abcdef0, eni-attach-…        but no ami-…: the images of the simulated AWS belong to nobody
    uuid     keys of KMS, request ids
    upper    AROA…, AKIA…, db-…, PolicyId              lower   ids of users and groups, as moto makes them
    ip       54.214.122.24 and ec2-54-214-122-24.…, the public addresses of moto (the length of these may change)
    account  the number itself, also within names: data-0-111122223333

What is told apart by the account number or by a name within an account is left: ARNs, target groups, key pairs.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from functools import cache
from operator import itemgetter
from typing import Any

_IDS = re.compile(
    rb"""
    (?P<hex> (?<=-) (?<!ami-) [0-9a-f]{17} (?![0-9A-Za-z]) )
  | (?P<uuid> (?<![0-9A-Za-z]) [0-9a-f]{8} (?:-[0-9a-f]{4}){3} - [0-9a-f]{12} (?![0-9A-Za-z]) )
  | (?P<account> (?<!\d) \d{12} (?!\d) )
  | (?P<upper> (?: (?<=[^0-9A-Za-z]A(?:ROA|IDA|KIA|SIA|GPA|IPA|NPA)) | (?<=[^0-9A-Za-z]db-) | (?<=<PolicyId>A) )
               [A-Z0-9]{16,26} (?![0-9A-Za-z]) )
  | (?P<lower> (?: (?<=<UserId>) | (?<=<GroupId>) | (?<=<InstanceProfileId>) ) [a-z0-9]{20} (?=<) )
  | (?P<ip> (?<![\d.]) 54 (?P<dot>[.-]) (?:\d{1,3}(?P=dot)){2} \d{1,3} (?!\d) )
    """,
    re.VERBOSE,
)
_HAS_SOME = re.compile(rb"-[0-9a-f]{12} | \d{12} | [A-Z0-9]{16} | 54[.-] | Id>", re.VERBOSE)  # is quick to say no
_HEX_DIGITS = 17  # of an id of EC2
_LETTERS = {"upper": b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", "lower": b"abcdefghijklmnopqrstuvwxyz0123456789"}


class Account:
    """Turns text of the base account into that of `number`; ids turn back by the same, the number by `to_base`."""

    def __init__(self, base: str, number: str) -> None:
        self.number, self._base = number.encode(), base.encode()
        self.is_base = number == base
        mask = hashlib.blake2b(self.number).digest()
        self._uuid_mask = int.from_bytes(mask[:16], "big")
        self.hex_mask = self._uuid_mask & (1 << 4 * _HEX_DIGITS) - 1
        self._digits = mask[16:48]
        self._address = mask[48:51]

    def to_base(self, text: bytes) -> bytes:
        """A request of this account as the base account would have made it."""
        return text if self.is_base or not _HAS_SOME.search(text) else _IDS.sub(self._turned, text)

    def _turned(self, match: re.Match[bytes]) -> bytes:
        found = match[0]
        if match.lastgroup == "account":
            return self._base if found == self.number else found
        return self.turn(match.lastgroup or "", found)

    def turn(self, kind: str, found: bytes) -> bytes:
        """The base's id as this account's, or this account's as the base's."""
        if self.is_base:
            return found
        if kind == "hex":
            return b"%017x" % (int(found, 16) ^ self.hex_mask)
        if kind == "uuid":
            return _uuid(int(found.replace(b"-", b""), 16) ^ self._uuid_mask)
        if kind == "ip":
            first, *rest = found.split(found[2:3])
            octets = [int(octet) ^ mask for octet, mask in zip(rest, self._address, strict=True)]
            return found[2:3].join([first, *(b"%d" % octet for octet in octets)]) if max(octets) < 256 else found
        letters = _LETTERS[kind]
        return bytes(
            letters[(digit - letters.index(letter)) % 36] for digit, letter in zip(self._digits, found, strict=False)
        )


def names_ids(text: bytes) -> bool:
    """Whether there is anything in it that may differ between accounts."""
    return _IDS.search(text) is not None


@cache
def account_of(base: str, number: str) -> Account:
    """The same object each time: a call costs less than its hash."""
    return Account(base, number)


def _uuid(value: int) -> bytes:
    digits = b"%032x" % value
    return b"-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


class Template:
    """A text of the base account, taken apart once, so that to make it another account's is little more than a join.

    Each id is made once. Those of hex digits, which are nearly all, stand in one large number: to XOR and to print that
    takes a third of the time that they take one by one.
    """

    def __init__(self, base: str, text: bytes) -> None:
        self._text = text
        self._parts: list[bytes] = []  # literal, id, literal, id, … literal
        found: list[tuple[str, bytes]] = []
        end = 0
        for match in _IDS.finditer(text):
            if match.lastgroup != "account" or match[0] == base.encode():
                found.append((match.lastgroup or "", match[0]))
                self._parts += (text[end : match.start()], b"")
                end = match.end()
        self._parts.append(text[end:])
        hexes = sorted({one for one in found if one[0] == "hex"})
        others = sorted({one for one in found if one[0] not in ("hex", "account")})
        places = {one: place for place, one in enumerate([*hexes, *others, ("account", base.encode())])}
        self._ids_in_order = _getter([places[one] for one in found])
        self._others = others
        self._digits = _HEX_DIGITS * len(hexes)
        self._number = int(b"".join(one for _, one in hexes) or b"0", 16)
        self._ones = sum(1 << 4 * _HEX_DIGITS * place for place in range(len(hexes)))  # repeats a mask
        starts = range(0, self._digits, _HEX_DIGITS)
        self._cut = _getter([slice(start, start + _HEX_DIGITS) for start in starts])

    def render(self, account: Account) -> bytes:
        """The text as `account` sees it."""
        if account.is_base or len(self._parts) == 1:
            return self._text
        digits = b"%x" % (self._number ^ account.hex_mask * self._ones)
        others = [account.turn(kind, found) for kind, found in self._others]
        parts = self._parts.copy()
        parts[1::2] = self._ids_in_order((*self._cut(digits.zfill(self._digits)), *others, account.number))
        return b"".join(parts)


def _getter(places: Sequence[Any]) -> Callable[[Any], Sequence[bytes]]:
    """What takes the items at `places` out of a sequence. `itemgetter` is fast, and knows no list of none or one."""
    if len(places) > 1:
        return itemgetter(*places)
    return lambda items: [items[place] for place in places]
