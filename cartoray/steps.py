"""What is done in the graph of an account once its data has landed: the other kind of message on `graph_data`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

from pydantic import Field

from cartoray.events import Deferral, Place
from cartoray.jobs import FORMAT_VERSION, Frozen, UpdateTag

ACCOUNT_LABEL = "AWSAccount"


class CleanupNodes(Frozen):
    """Delete the nodes and relationships of a schema, or those of a matchlink, that are older than the run.

    `of`: the label of what the schema belongs to, if that is not the account but what the account has.
    """

    kind: Literal["cleanup_nodes"] = "cleanup_nodes"
    schema_path: str
    of: str = ACCOUNT_LABEL


class Analyse(Frozen):
    """Run an analysis job of Cartography over what the account has: `path` is `module:name`."""

    kind: Literal["analyse"] = "analyse"
    path: str


class MarkSynced(Frozen):
    """Note in the graph that what has this label has been synced for the account: stock's ModuleSyncMetadata."""

    kind: Literal["mark_synced"] = "mark_synced"
    label: str


class DeriveLinks(Frozen):
    """Make the relationships of a matchlink from what is in the graph, then delete the older ones."""

    kind: Literal["derive_links"] = "derive_links"
    schema_path: str


class Settle(Frozen):
    """Apply relationships whose other end had not landed: the messages are read again from `graph_data`."""

    kind: Literal["settle"] = "settle"
    deferrals: tuple[Deferral, ...]


DEFERRALS_PER_STEP = 200  # one step reads so many messages again in one go


def settlements(deferrals: Iterable[Deferral]) -> Iterator[Settle]:
    """All deferrals, in order of their messages, a few at a time: all in one could be too large a message."""
    ordered = sorted(deferrals, key=lambda at: (at.partition, at.offset, at.relationship))
    for start in range(0, len(ordered), DEFERRALS_PER_STEP):
        yield Settle(deferrals=tuple(ordered[start : start + DEFERRALS_PER_STEP]))


Action = Annotated[Analyse | CleanupNodes | DeriveLinks | MarkSynced | Settle, Field(discriminator="kind")]


class Step(Frozen):
    """What is to be done in the graph of one account once its data has landed: JSON on `graph_data`.

    `untouched`: messages of the account of which nodes are older than the run, and are to stay.
    """

    version: Literal[1] = FORMAT_VERSION
    run_id: str
    update_tag: UpdateTag
    step_id: str
    account_id: str
    actions: tuple[Action, ...] = Field(min_length=1)
    untouched: tuple[Place, ...] = ()
