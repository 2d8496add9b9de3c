"""As much of GraphQL as a reading client needs: fields, aliases, arguments, fragments, and connections in pages.

An inventory is plain data. A callable in it is a field with arguments; a `Connection` answers nodes, edges, totalCount
and pageInfo, and is cut into pages where pageInfo is asked for, as otherwise nobody could ask for the rest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

PAGE_MAX = 3  # however many were asked for, so that a small inventory has several pages
_TOKEN = re.compile(r"\.\.\.|[{}():!]|\$?\w+|\"[^\"]*\"")


@dataclass(frozen=True)
class Field:
    name: str
    key: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    selection: Sequence[Field] = ()


@dataclass(frozen=True)
class Connection:
    """Nodes, and for each what its edge has besides the node."""

    nodes: Sequence[Any]
    edges: Sequence[Mapping[str, Any]] = ()


def execute(
    query: str,
    variables: Mapping[str, Any],
    root: Mapping[str, Any],
    left: Callable[[Sequence[Any]], Sequence[Any]] = lambda nodes: nodes,
) -> dict[str, Any]:
    """What `query` selects of `root`, of each connection what is `left`.

    A field that is not there raises: the stand-in has to be told of it.
    """
    tokens = iter(_TOKEN.findall(query))
    for token in tokens:
        if token == "(":
            for declared in tokens:
                if declared == ")":
                    break
        if token == "{":
            break
    selected: dict[str, Any] = _Execution(left).select(root, _Reader(tokens, variables).selection())
    return selected


class _Reader:
    """Reads a selection from the tokens, up to the brace that closes it."""

    def __init__(self, tokens: Iterator[str], variables: Mapping[str, Any]) -> None:
        self._tokens, self._variables = tokens, variables

    def selection(self) -> list[Field]:
        """Its fields; those of an inline fragment as if they stood outside of it."""
        fields: list[Field] = []
        aliases: list[str] = []
        for token in self._tokens:
            if token == "}":
                return fields
            if token == "...":
                self._skip_to("{")
                fields += self.selection()
            elif token == "{":
                fields[-1] = replace(fields[-1], selection=self.selection())
            elif token == "(":
                fields[-1] = replace(fields[-1], arguments=self._arguments())
            elif token == ":":
                aliases.append(fields.pop().name)
            else:
                fields.append(Field(token, aliases.pop() if aliases else token))
        raise ValueError("a selection is not closed")

    def _skip_to(self, end: str) -> None:
        while next(self._tokens) != end:
            pass

    def _arguments(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name in self._tokens:
            if name == ")":
                break
            assert next(self._tokens) == ":"
            value = next(self._tokens)
            if value.startswith("$"):
                found[name] = self._variables.get(value[1:])
            else:
                found[name] = int(value) if value.isdigit() else value.strip('"')
        return found


class _Execution:
    """`left`: the entries of a connection that there are."""

    def __init__(self, left: Callable[[Sequence[Any]], Sequence[Any]]) -> None:
        self._left = left

    def select(self, value: Any, selection: Sequence[Field]) -> Any:
        if value is None or not selection:
            return value
        if isinstance(value, list | tuple):
            return [self.select(each, selection) for each in value]
        return {each.key: self._resolve(value[each.name], each) for each in selection}

    def _resolve(self, value: Any, asked: Field) -> Any:
        if callable(value):
            value = value(**{name: each for name, each in asked.arguments.items() if name not in {"first", "after"}})
        if isinstance(value, Connection):
            return self._connection(value, asked)
        return self.select(value, asked.selection)

    def _connection(self, value: Connection, asked: Field) -> Any:
        nodes = self._left(value.nodes)
        first = int(asked.arguments.get("after") or 0)
        last = len(nodes)
        if "pageInfo" in {each.name for each in asked.selection}:
            last = min(last, first + min(PAGE_MAX, int(asked.arguments.get("first", PAGE_MAX))))
        edges = [
            {"node": node, **edge}
            for node, edge in zip(value.nodes, value.edges or [{} for _ in value.nodes], strict=True)
        ]
        everything = {
            "totalCount": len(nodes),
            "nodes": list(nodes[first:last]),
            "edges": edges[first:last],
            "pageInfo": {"endCursor": str(last), "hasNextPage": last < len(nodes)},
        }
        return self.select(everything, asked.selection)
