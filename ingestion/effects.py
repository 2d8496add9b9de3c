"""Which properties a query that is not ours may set, from its text alone. Pure.

Fingerprints vouch for what rows wrote; what a query may have changed after that has to be looked at in the graph.
"""

from __future__ import annotations

import re

# Texts and comments of Cypher, for DOTALL. One that is not closed goes to the end: else it would be looked for again
# from each of its quotes.
LITERAL = r"""'(?:[^'\\]|\\.)*(?:'|\\?\Z)|"(?:[^"\\]|\\.)*(?:"|\\?\Z)|//[^\n]*|/\*.*?(?:\*/|\Z)"""
_LITERAL = re.compile(LITERAL, re.DOTALL)
_CLAUSE = re.compile(
    r"(?<![.`$\w])(MATCH|OPTIONAL|WHERE|WITH|UNWIND|RETURN|MERGE|CREATE|DETACH|DELETE|SET|REMOVE|FOREACH|CALL|ON|UNION"
    r"|YIELD|LIMIT|ORDER)\b",
    re.IGNORECASE,
)
_PROPERTY = re.compile(r"\.\s*(\w+|`[^`]+`)")
_ANY = re.compile(r"(?:^|,)\s*(?:\w+\s*\+?=|\w+\s*\[|\()")  # n = {…}, n += $properties, n[$name] = …
_PROCEDURE = re.compile(r"(?<![.`$\w])CALL\s+(?!\{|\(|db\.|dbms\.)", re.IGNORECASE)


def properties_set(text: str) -> frozenset[str] | None:
    """Names of the properties that it may set or remove, rather too many than too few. None: any.

    Properties of relationships are not told apart from those of nodes, nor what a clause reads from what it sets.
    """
    plain = _LITERAL.sub("''", text)
    if _PROCEDURE.search(plain):
        return None
    parts = _CLAUSE.split(plain)
    found: set[str] = set()
    for keyword, body in zip(parts[1::2], parts[2::2], strict=True):
        if keyword.upper() in ("SET", "REMOVE"):
            if _ANY.search(body):
                return None
            found.update(name.strip("`") for name in _PROPERTY.findall(body))
    return frozenset(found)
