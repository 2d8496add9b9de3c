"""What a native module declares, and the registry that finds the declarations in `actors/aws/`.

A declaration names its calls as data and Cartography's transforms by their paths, so that listing modules loads neither
boto3 nor `cartography.intel`, which takes seconds.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, TypeVar

from cartography.models.core.nodes import CartographyNodeSchema
from cartography.models.core.relationships import CartographyRelSchema

from cartoray import schemas
from cartoray.errors import CloudDenied, UnknownModule
from cartoray.jobs import Account
from cartoray.planning import ACCOUNT_MODULE, unknown_module
from cartoray.steps import ACCOUNT_LABEL

_LOADS_BOTOCORE = ("clients", "parsing", "sessions")  # in `actors.aws`; they declare nothing

T = TypeVar("T")
R = TypeVar("R")
Item = dict[str, Any]  # one element of an AWS answer, as botocore parses it
Row = Mapping[str, Any]
Constant = str | int | bool | None


@dataclass(frozen=True)
class Call:
    """An AWS operation in botocore's words: `Call("ec2", "describe_vpcs", "Vpcs")`.

    Its items are those under `result_key` of every page, or the answer itself where there is none. `page_size` None:
    the operation is not paginated; 0: it is, and AWS chooses the size. `absent`: error codes by which AWS says that
    there is no such thing.
    """

    service: str
    operation: str
    result_key: str | None
    page_size: int | None = None
    absent: tuple[str, ...] = ()


@dataclass(frozen=True)
class Place:
    """Where items come from. `region` is also set for a module that is not regional: the one that was asked."""

    account: Account
    region: str


class Api(Protocol):
    """The API as a module sees that needs more than one listing: calls in one place, as many in flight as it asks for.

    What AWS refuses ends the place, whose nodes then stay as they are, unless the call is made by `tolerate`.
    """

    @property
    def place(self) -> Place: ...

    def at(self, region: str) -> Api:
        """The same in another region, for what is listed in one and asked for in another."""

    async def items(self, call: Call, **parameters: Any) -> list[Item]:
        """The items of all pages; none, if AWS answers that there is nothing (`call.absent`)."""

    async def one(self, call: Call, **parameters: Any) -> Any:
        """What is under `result_key` of the one answer, or the answer itself; None, if there is no such thing."""

    async def each(self, function: Callable[[T], Awaitable[R]], things: Iterable[T]) -> list[R]:
        """What the function answers for each of them, in order; for some of them at a time."""

    async def tolerate(self, asked: Awaitable[R], instead: R) -> R:
        """`instead`, if AWS denies it: the rest is still true, but the job is not complete, and cleans up nothing."""


Schema = type[CartographyNodeSchema] | type[CartographyRelSchema]
Shaped = Mapping[Schema, Sequence[Row]]
Gather = Callable[[Api], Awaitable[Any]]
Shape = Callable[[Any, Place], Shaped]


@dataclass(frozen=True)
class Table:
    """Rows of a schema; one of relationships (a matchlink) links nodes that are there.

    `extra`: constants of the load besides AWS_ID, Region and lastupdated. `by`: constant → the field that it is taken
    from, where stock loads the rows in parts that differ in it.
    """

    schema: Schema
    extra: Mapping[str, Constant] = field(default_factory=dict)
    by: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> str:
        return schemas.path_of(self.schema())

    def constants(self, place: Place, update_tag: int, **of_part: Constant) -> dict[str, Constant]:
        """Exactly the values that the schema takes from its load, and no other. Raises KeyError for an unknown one."""
        known = {
            "AWS_ID": place.account.id,
            "Region": place.region,
            "lastupdated": update_tag,
            "_sub_resource_label": ACCOUNT_LABEL,
            "_sub_resource_id": place.account.id,
            **self.extra,
            **of_part,
        }
        return {name: known[name] for name in schemas.constants(self.path)}

    def loads(
        self, rows: Sequence[Row], place: Place, update_tag: int
    ) -> Iterator[tuple[dict[str, Constant], Sequence[Row]]]:
        """The rows in parts, each with its constants; none, if there are no rows."""
        parts: dict[tuple[Constant, ...], list[Row]] = {}
        for row in rows:
            parts.setdefault(tuple(row[name] for name in self.by.values()), []).append(row)
        for values, part in parts.items():
            yield self.constants(place, update_tag, **dict(zip(self.by, values, strict=True))), part


@dataclass(frozen=True)
class Cleanup:
    """What stock's cleanup deletes for `schema`, and the other modules whose data that relies on.

    A cleanup deletes what the run did not refresh: nodes of the label, and relationships of the schema's patterns.
    What the module writes itself, it writes from a whole listing, so nothing else is relied on for that. A pattern
    that only others write is deleted wrongly when they did not succeed: these are `refreshed_by`. A module that
    cartoray does not have yet may be named; until it exists the cleanup does not run.

    `of`: the label of what stock cleans up for, one by one, where that is not the account but what the account has.
    """

    schema: Schema
    refreshed_by: tuple[str, ...] = ()
    of: str = ACCOUNT_LABEL


@dataclass(frozen=True)
class NativeModule:
    """One of Cartography's modules, extracted here: the declaration from which everything about it follows.

    `permissions` are the IAM actions that it needs. `fetch` is one call, and `shape` turns the items of each of its
    pages into rows for each of `tables`, which stand in the order in which stock loads them, as does `cleanup`. Stock
    shapes all pages of a region at once; a module may be declared so only if that makes no difference but for rows that
    are told twice. Or `fetch` is a function that makes the calls of one region, and `shape` is given what it returns.

    `after` names the modules that stock runs before and that write the same properties of the same nodes: their data
    is published first. `needs` names wrapped ones that must have landed before, because rows are related to their nodes
    by a name that is not unique: what finds one of two is not deferred. `derive` are relationships made from the graph
    when the run has landed. `analyses` are jobs of Cartography's over the graph, `module:name`, that stock
    runs within the module. `marks`: labels of which stock notes that they have been synced. `brings` names
    wrapped ones that do the rest of what stock does in this module.
    """

    name: str
    permissions: tuple[str, ...]
    fetch: Call | Gather
    shape: Shape
    tables: tuple[Table, ...]
    after: tuple[str, ...] = ()
    cleanup: tuple[Cleanup, ...] = ()
    derive: tuple[type[CartographyRelSchema], ...] = ()
    regional: bool = True
    needs: tuple[str, ...] = ()
    analyses: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    brings: tuple[str, ...] = ()

    wrapped: ClassVar[bool] = False
    once: ClassVar[bool] = False
    late: ClassVar[bool] = False

    @property
    def cleans(self) -> bool:
        return any(not cleanup.refreshed_by for cleanup in self.cleanup)


def check_account(found: str, wanted: str) -> None:
    """Raises CloudDenied unless credentials that belong to account `found` are those of `wanted`."""
    if found != wanted:
        raise CloudDenied(
            f"The credentials are for account {found}, not {wanted}. "
            "Give the role to assume in each account with --role-name, or credentials of that account."
        )


@lru_cache(maxsize=1)
def modules() -> Mapping[str, NativeModule]:
    """All modules by name, each behind those of its `after`.

    Every module comes after `account`: each of its rows hangs on the account's node, and would else be deferred.
    """
    package = importlib.import_module("actors.aws")
    found: dict[str, NativeModule] = {}
    for entry in pkgutil.iter_modules(package.__path__):
        if entry.name in _LOADS_BOTOCORE:
            continue
        declared = getattr(importlib.import_module(f"actors.aws.{entry.name}"), "MODULE", None)
        if isinstance(declared, NativeModule):
            found[declared.name] = declared
    ordered: dict[str, NativeModule] = {}

    def place(name: str) -> None:
        if name in found and name not in ordered:
            for earlier in found[name].after:
                place(earlier)
            ordered[name] = found[name]

    for name in (ACCOUNT_MODULE, *sorted(found)):
        place(name)
    return MappingProxyType(
        {
            name: one if name == ACCOUNT_MODULE else replace(one, after=(ACCOUNT_MODULE, *one.after))
            for name, one in ordered.items()
        }
    )


def module(name: str) -> NativeModule:
    """Raises UnknownModule with the nearest names."""
    try:
        return modules()[name]
    except KeyError:
        raise UnknownModule(unknown_module(name, modules())) from None
