"""Which schema a query of Cartography's builder is made from: the text is all that a session is given."""

from __future__ import annotations

import inspect
import re
import sys
import threading
from functools import lru_cache

from cartography.graph.querybuilder import build_ingestion_query
from cartography.models.core.nodes import CartographyNodeSchema

from cartoray import schemas

_LABEL = re.compile(r"MERGE \(i:(\w+)\{")
_MODELS = "cartography.models."


class _Loaded:
    """The node schemas of Cartography's models that somebody has imported here: a query is made from one of these.

    Importing all 990 would take 5 s.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_label: dict[str, list[str]] = {}
        self._scanned: set[str] = set()
        self._modules = 0

    def paths(self, label: str) -> list[str]:
        """Of the schemas that write nodes of the label."""
        with self._lock:
            if len(sys.modules) != self._modules:
                self._modules = len(sys.modules)
                for name in list(sys.modules):
                    if name.startswith(_MODELS) and name not in self._scanned and not _is_loading(name):
                        self._scan(name)
            return list(self._by_label.get(label, ()))

    def _scan(self, name: str) -> None:
        self._scanned.add(name)
        for schema in list(vars(sys.modules[name]).values()):
            # not issubclass: it asks every subclass of that class, and remembers the answer in each
            concrete = inspect.isclass(schema) and CartographyNodeSchema in schema.__mro__
            if concrete and schema.__module__ == name and not inspect.isabstract(schema):
                self._by_label.setdefault(schema().label, []).append(schemas.path_of(schema()))


def _is_loading(name: str) -> bool:
    return getattr(sys.modules[name].__spec__, "_initializing", False)


_loaded = _Loaded()


@lru_cache(maxsize=4096)
def schema_of(query: str) -> str | None:
    """The path of the node schema whose `build_ingestion_query` gives exactly this text; None: none does."""
    found = _LABEL.search(query)
    for path in _loaded.paths(found[1]) if found else ():
        if build_ingestion_query(schemas.node_schema(path)) == query:
            return path
    return None
