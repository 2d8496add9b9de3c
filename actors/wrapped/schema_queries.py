"""Which schema a query of Cartography's builder is made from: the text is all that a session is given."""

from __future__ import annotations

import inspect
import re
import sys
import threading
from functools import lru_cache
from typing import Any

from cartography.graph.querybuilder import build_ingestion_query, build_matchlink_query
from cartography.models.core.nodes import CartographyNodeSchema
from cartography.models.core.relationships import CartographyRelSchema

from cartoray import schemas
from cartoray.errors import UnreadableMessage
from cartoray.queries import Cleanup

_MERGES = re.compile(r"MERGE \(i:(\w+)\{")
_LINKS = re.compile(r"MATCH \(from:(\w+)\{")
_CLEANS = re.compile(r"\s*MATCH \((?:n|from):(\w+)\)")
_MODELS = "cartography.models."


class _Loaded:
    """The schemas of Cartography's models that somebody has imported here: a query is made from one of these.

    Importing all 990 would take 5 s.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_label: dict[str, list[str]] = {}
        self._scanned: set[str] = set()
        self._modules = 0

    def paths(self, label: str) -> list[str]:
        """Of the schemas that write nodes of the label, and of the matchlinks that begin at them."""
        with self._lock:
            if len(sys.modules) != self._modules:
                self._modules = len(sys.modules)
                for name in list(sys.modules):
                    if name.startswith(_MODELS) and name not in self._scanned and not _is_loading(name):
                        self._scan(name)
            return list(self._by_label.get(label, ()))

    def _scan(self, name: str) -> None:
        self._scanned.add(name)
        for found in list(vars(sys.modules[name]).values()):
            if not (inspect.isclass(found) and found.__module__ == name and not inspect.isabstract(found)):
                continue
            # not issubclass: it asks every subclass of that class, and remembers the answer in each
            if {CartographyNodeSchema, CartographyRelSchema} & {*found.__mro__}:
                schema: Any = found()
                label = schema.label if CartographyNodeSchema in found.__mro__ else schema.source_node_label
                self._by_label.setdefault(label, []).append(schemas.path_of(schema))


def _is_loading(name: str) -> bool:
    return getattr(sys.modules[name].__spec__, "_initializing", False)


_loaded = _Loaded()


@lru_cache(maxsize=4096)
def schema_of(query: str) -> str | None:
    """The path of the schema whose `build_ingestion_query` or `build_matchlink_query` gives exactly this text."""
    if found := _MERGES.search(query):
        for path in _loaded.paths(found[1]):
            if not schemas.is_matchlink(path) and build_ingestion_query(schemas.node_schema(path)) == query:
                return path
    elif found := _LINKS.search(query):
        for path in _loaded.paths(found[1]):
            if schemas.is_matchlink(path) and build_matchlink_query(schemas.matchlink_schema(path)) == query:
                return path
    return None


@lru_cache(maxsize=4096)
def cleanup_of(query: str) -> Cleanup | None:
    """Of which schema this is the text of a cleanup, and which of its queries; None: of none."""
    found = _CLEANS.match(query)
    for path in _loaded.paths(found[1]) if found else ():
        for cascade in (False, True):
            try:
                return Cleanup(path, schemas.cleanup(path, cascade=cascade).index(query), cascade)
            except (UnreadableMessage, ValueError):  # it has none, or this is not among them
                continue
    return None
