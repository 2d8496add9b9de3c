"""What one message may hold, in whatever form: as many values as memory has room for, and none that Neo4j cannot take.

Producers keep to it, so that nothing of theirs is refused; consumers check it before values become Python objects,
since a few bytes can stand for millions of these. What Neo4j cannot take would else be found in the middle of a
transaction, and what is nested without end by its server alone.
"""

from __future__ import annotations

import json
import re
from typing import Any

VALUES_MAX = 2_000_000  # each takes up to 250 bytes of memory as Python has it, an object of JSON
DEPTH_MAX = 64  # of lists and maps in each other
INTEGER_MIN, INTEGER_MAX = -(2**63), 2**63 - 1  # of Neo4j
MARKS = (",", "[", "{")  # each value of JSON but the first has one before it

_SUSPECT = re.compile(r"\d{19}|\\u[dD][89a-fA-F]")  # a long integer, or half a character


def count(text: bytes) -> int:
    """Values that `text` has as JSON, or some more: what looks like one inside of a text counts as well."""
    return 1 + sum(text.count(mark.encode()) for mark in MARKS)


def from_json_text(text: str) -> Any:
    """Raises ValueError or RecursionError: not JSON, or a value that `check` refuses."""
    value = json.loads(text)
    if text.count("[") + text.count("{") > DEPTH_MAX or _SUSPECT.search(text):
        check(value)
    return value


def check(value: Any) -> None:
    """Raises ValueError for what no message carries: integers beyond 64 bits, text that is no Unicode, deep nesting."""
    level = [value]
    for _ in range(DEPTH_MAX + 1):
        below: list[Any] = []
        for each in level:
            if isinstance(each, str):
                each.encode()
            elif isinstance(each, int):
                if not INTEGER_MIN <= each <= INTEGER_MAX:
                    raise ValueError("an integer beyond 64 bits; Neo4j has none")
            elif isinstance(each, dict):
                below += each
                below += each.values()
            elif isinstance(each, list | tuple):
                below += each
        if not below:
            return
        level = below
    raise ValueError(f"nested more than {DEPTH_MAX} times")
