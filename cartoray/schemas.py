"""Cartography's schema classes as cartoray refers to them: by path on the wire, by fields in Arrow.

Of Cartography, only models and query builders are imported here (0.2 s); nothing of `cartography.intel`.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from cartography.graph.cleanupbuilder import build_cleanup_queries, build_cleanup_query_for_matchlink
from cartography.graph.querybuilder import build_create_index_queries, build_create_index_queries_for_matchlink
from cartography.models.core.common import PropertyRef
from cartography.models.core.nodes import CartographyNodeSchema
from cartography.models.core.relationships import CartographyRelSchema

from cartoray.errors import UnreadableMessage

_PATH = re.compile(r"^cartography\.models(\.[a-z0-9_]+)+:[A-Za-z0-9_]+$")


def path_of(schema: CartographyNodeSchema | CartographyRelSchema) -> str:
    """The schema's name on the wire: `cartography.models.aws.ec2.instances:EC2InstanceSchema`."""
    return f"{type(schema).__module__}:{type(schema).__name__}"


@lru_cache(maxsize=4096)
def node_schema(path: str) -> CartographyNodeSchema:
    """The node schema that `path` names.

    The path comes from a message, so only classes of `cartography.models` are looked up.
    Raises UnreadableMessage: no such path, or not a node schema.
    """
    found: Any = _resolve(path)
    if not _is_concrete(found, CartographyNodeSchema):
        raise UnreadableMessage(f"{path!r} is not a node schema of this Cartography release.")
    schema: CartographyNodeSchema = found()
    return schema


@lru_cache(maxsize=4096)
def matchlink_schema(path: str) -> CartographyRelSchema:
    """The matchlink (a relationship schema that stands alone) that `path` names. Raises UnreadableMessage."""
    found: Any = _resolve(path)
    if not _is_concrete(found, CartographyRelSchema):
        raise UnreadableMessage(f"{path!r} is not a relationship schema of this Cartography release.")
    schema: CartographyRelSchema = found()
    return schema


def _is_concrete(found: object, base: type) -> bool:
    # not issubclass: of an abstract class it asks all subclasses, of which there are thousands
    return isinstance(found, type) and base in found.__mro__ and not inspect.isabstract(found)


def _resolve(path: str) -> object:
    if not _PATH.match(path):
        raise UnreadableMessage(f"{path!r} is not the path of a Cartography schema.")
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UnreadableMessage(f"This Cartography release has no schema {path!r}.") from error


def relationships(schema: CartographyNodeSchema) -> tuple[CartographyRelSchema, ...]:
    """The relationships of a node schema, the sub resource's first: their place is their number."""
    first = (schema.sub_resource_relationship,) if schema.sub_resource_relationship else ()
    others = tuple(schema.other_relationships.rels) if schema.other_relationships else ()
    return first + others


def is_matchlink(path: str) -> bool:
    """Whether `path` names a relationship schema, of which rows link nodes that are there. Raises UnreadableMessage."""
    return _is_concrete(_resolve(path), CartographyRelSchema)


def label(path: str) -> str:
    """Of the nodes that the schema is about, or at which a matchlink begins: those that its cleanup looks through."""
    if is_matchlink(path):
        return str(matchlink_schema(path).source_node_label)
    return node_schema(path).label


def matched(schema: CartographyRelSchema) -> Iterator[PropertyRef]:
    """What a matchlink finds the nodes by that it links."""
    ends = schema.source_node_sub_resource, schema.target_node_sub_resource
    for matcher in (
        schema.source_node_matcher,
        schema.target_node_matcher,
        *(end.target_node_matcher for end in ends if end),
    ):
        yield from asdict(matcher).values() if matcher else ()


def _refs(path: str) -> Iterator[PropertyRef]:
    if is_matchlink(path):
        yield from matched(matchlink_schema(path))
        yield from asdict(matchlink_schema(path).properties).values()
        return
    schema = node_schema(path)
    yield from asdict(schema.properties).values()
    for relationship in relationships(schema):
        yield from asdict(relationship.target_node_matcher).values()
        yield from asdict(relationship.properties).values()


@lru_cache(maxsize=4096)
def fields(path: str) -> tuple[str, ...]:
    """The fields that rows of this schema are read for, sorted: the columns on the wire. Other fields are not sent."""
    return tuple(sorted({ref.name for ref in _refs(path) if not ref.set_in_kwargs}))


@lru_cache(maxsize=4096)
def constants(path: str) -> tuple[str, ...]:
    """Names of the values that are the same for all rows of a load (Cartography's kwargs, e.g. `AWS_ID`), sorted."""
    return tuple(sorted({ref.name for ref in _refs(path) if ref.set_in_kwargs}))


@lru_cache(maxsize=4096)
def index_queries(path: str) -> tuple[str, ...]:
    """Stock's queries that make the indexes of the schema: what it asks for before each load of its rows."""
    if is_matchlink(path):
        found = build_create_index_queries_for_matchlink(matchlink_schema(path))
    else:
        found = build_create_index_queries(node_schema(path))
    return tuple(dict.fromkeys(found))


@lru_cache(maxsize=4096)
def cleanup(path: str, *, cascade: bool = False) -> tuple[str, ...]:
    """Stock's queries that delete what is stale of the schema, in their order; `cascade`: and its children.

    Raises UnreadableMessage: there is no such schema, or it has no cleanup.
    """
    try:
        if is_matchlink(path):
            return (build_cleanup_query_for_matchlink(matchlink_schema(path)),)
        return tuple(build_cleanup_queries(node_schema(path), cascade))
    except ValueError as error:
        raise UnreadableMessage(f"{path} has no cleanup: {error}") from None
