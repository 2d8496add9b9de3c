"""Stock Cartography's own command line, with our session where it would open one of neo4j's."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Protocol

from actors.wrapped.session import GraphSession


class Driver(Protocol):
    """As `neo4j.Driver`, of which Cartography's sync asks for a session alone."""

    def session(self, **_: object) -> GraphSession: ...


def run_cartography(driver: Driver, arguments: Sequence[str]) -> int:
    """Runs `cartography ARGUMENTS`; answers its exit code, and raises what a module raises.

    In this process alone, the name by which Cartography opens its database leads to `driver`. Whatever the arguments
    say of the database, it is the one of the settings, since that is where the workers write.
    """
    command: Any = importlib.import_module("cartography.cli")  # two seconds, which no other command should pay
    sync: Any = importlib.import_module("cartography.sync")

    class GraphDatabase:
        @staticmethod
        def driver(*_: Any, **__: Any) -> Driver:
            return driver

    theirs, sync.GraphDatabase = sync.GraphDatabase, GraphDatabase
    try:
        command.main(list(arguments))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sync.GraphDatabase = theirs
    return 0
