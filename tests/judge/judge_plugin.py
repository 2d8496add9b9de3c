"""Loaded into the pytest that runs Cartography's own tests: decides what they get when they open Neo4j.

`JUDGED` says what: "stock" is a driver of neo4j's, "ours" is a `GraphDriver`.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Any

import neo4j

from actors.wrapped.session import GraphDriver
from cartoray.graph_driver import open_driver
from cartoray.settings import load

settings = load().settings
theirs = neo4j.GraphDatabase.driver


class OurDriver(GraphDriver):
    def verify_connectivity(self) -> None:
        """Of neo4j's driver. The stack is up; a session finds out otherwise."""


def driver(uri: str, **options: Any) -> Any:
    """The tests give nothing but an address; whatever is ours says how to log in, and gets the real one."""
    if options:
        return theirs(uri, **options)
    return OurDriver(settings) if os.environ["JUDGED"] == "ours" else open_driver(settings.neo4j, "stock")


neo4j.GraphDatabase.driver = driver  # type: ignore[method-assign, assignment]

# their conftest imports it to start a Neo4j in Docker, which is not wanted: NEO4J_URL is set
for name in ("testcontainers", "testcontainers.core", "testcontainers.core.container"):
    sys.modules[name] = ModuleType(name)
sys.modules["testcontainers.core.container"].DockerContainer = None  # type: ignore[attr-defined]
