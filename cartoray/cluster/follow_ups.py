"""The modules' declarations as what completion needs of them: cleanup and derivation, module by module."""

from __future__ import annotations

from collections.abc import Mapping

from actors.modules import NativeModule
from cartoray.completion import FollowUp, FollowUps
from cartoray.schemas import path_of
from cartoray.steps import Analyse, CleanupNodes, DeriveLinks, MarkSynced


def follow_ups(modules: Mapping[str, NativeModule]) -> dict[str, FollowUps]:
    return {
        name: FollowUps(
            cleanup=(
                *(
                    FollowUp(CleanupNodes(schema_path=path_of(cleanup.schema()), of=cleanup.of), cleanup.refreshed_by)
                    for cleanup in module.cleanup
                ),
                *(FollowUp(Analyse(path=path)) for path in module.analyses),
                *(FollowUp(MarkSynced(label=label)) for label in module.marks),
            ),
            derive=tuple(FollowUp(DeriveLinks(schema_path=path_of(matchlink()))) for matchlink in module.derive),
        )
        for name, module in modules.items()
    }
