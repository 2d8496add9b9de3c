"""Parameters of a query as Neo4j plans it once. Pure.

Neo4j keeps a plan for each order of magnitude of each list among the parameters: of 1, up to 10, up to 100, … items.
Planning takes many times as long as running, and rows come in lists of all lengths. Into a map it does not look.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from ingestion.effects import LITERAL

_LISTS = "cartoray_lists"
_PARAMETER = re.compile(rf"\$(\w+)|{LITERAL}|`[^`]*(?:`|\Z)", re.DOTALL)  # or what hides one


def in_a_map(query: str, parameters: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The query, and its parameters, with all lists among them in one map."""
    lists = frozenset(name for name, value in parameters.items() if isinstance(value, list | tuple))
    if not lists:
        return query, parameters
    text, moved = _moved(query, lists)
    rest = {name: value for name, value in parameters.items() if name not in moved}
    return text, {**rest, _LISTS: {name: parameters[name] for name in moved}}


@lru_cache(maxsize=8192)
def _moved(query: str, lists: frozenset[str]) -> tuple[str, frozenset[str]]:
    """The query that reads them there, and those of `lists` that it reads at all."""
    read = frozenset(found[1] for found in _PARAMETER.finditer(query) if found[1] in lists)
    return _PARAMETER.sub(lambda found: f"${_LISTS}.{found[1]}" if found[1] in read else found[0], query), read
