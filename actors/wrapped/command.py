"""Stock Cartography's own command line, with our session where it would open one of neo4j's."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from actors.wrapped.session import GraphSession
from cartoray.settings import Settings


class _Driver:
    """As `neo4j.Driver`, of which Cartography's sync asks for a session alone."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def session(self, **_: object) -> GraphSession:
        return GraphSession(self._settings)


def run_cartography(settings: Settings, arguments: Sequence[str]) -> int:
    """Runs `cartography ARGUMENTS`; answers its exit code.

    In this process alone, the name by which Cartography opens its database leads to us. Whatever the arguments say of
    the database, it is the one of the settings, since that is where the workers write.
    """
    command: Any = importlib.import_module("cartography.cli")  # two seconds, which no other command should pay
    sync: Any = importlib.import_module("cartography.sync")

    class GraphDatabase:
        @staticmethod
        def driver(*_: Any, **__: Any) -> _Driver:
            return _Driver(settings)

    theirs, sync.GraphDatabase = sync.GraphDatabase, GraphDatabase
    try:
        command.main(list(arguments))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sync.GraphDatabase = theirs
    return 0
