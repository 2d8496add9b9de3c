"""Which schema a query of Cartography's builder is made from: the text is all that a session is given."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections import defaultdict
from functools import lru_cache

import cartography.models
from cartography.graph.querybuilder import build_ingestion_query
from cartography.models.core.nodes import CartographyNodeSchema

from cartoray import schemas

_LABEL = re.compile(r"MERGE \(i:(\w+)\{")


@lru_cache(maxsize=4096)
def schema_of(query: str) -> str | None:
    """The path of the node schema whose `build_ingestion_query` gives exactly this text; None: none does.

    The first call loads all schemas, which takes a second or two.
    """
    found = _LABEL.search(query)
    for path in _by_label().get(found[1], ()) if found else ():
        if build_ingestion_query(schemas.node_schema(path)) == query:
            return path
    return None


@lru_cache(maxsize=1)
def _by_label() -> dict[str, list[str]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for entry in pkgutil.walk_packages(cartography.models.__path__, "cartography.models."):
        module = importlib.import_module(entry.name)
        for schema in vars(module).values():
            concrete = inspect.isclass(schema) and issubclass(schema, CartographyNodeSchema)
            if concrete and schema.__module__ == entry.name and not inspect.isabstract(schema):
                found[schema().label].append(schemas.path_of(schema()))
    return dict(found)
