"""The real parts, started once per run: Kafka, Neo4j, a simulated AWS, and Ray where a test asks for it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest
from support.isolation import isolate
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).parents[1]

isolate()

import hypothesis  # noqa: E402
import neo4j  # noqa: E402
from support.databases import empty, open_graph  # noqa: E402

from cartoray.settings import (  # noqa: E402
    Neo4jSettings,
    Settings,
    StackSettings,
)
from cartoray.stack.servers import EmbeddedStack  # noqa: E402
from cartoray.stack.simulated_aws import SimulatedAws, start_simulated_aws  # noqa: E402

# how long an example takes says how busy the machine is
hypothesis.settings.register_profile("shared", deadline=None)
hypothesis.settings.load_profile("shared")


class _Scheduling(LoadScopeScheduling):  # type: ignore[misc]
    """A file at a time; all files that share Kafka and Neo4j to one process, so that these start once.

    Two lots of them, with servers each, would be too much for two cores: Ray gives a node 30 s to start.
    """

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return "real parts" if _shares(path) else path


@lru_cache
def _shares(path: str) -> bool:
    return re.search(r"\b(stack_settings|stock_neo4j|graph: neo4j)\b", (ROOT / path).read_text()) is not None


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> _Scheduling:
    """With `-n 2`: xdist's own groups have no effect under pytest 9.2."""
    return _Scheduling(config, log)


@pytest.fixture(scope="session")
def stack_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """The settings that lead to a Kafka and a Neo4j of this session's own, on loopback.

    Tests share both: what uses Kafka takes topics of its own (`kafka.topic_prefix`), what uses Neo4j the fixture
    `graph`. `stack.state_dir` is nobody's: logs may go there.
    """
    folder = tmp_path_factory.mktemp("stack")
    with EmbeddedStack(folder / "state", StackSettings(neo4j_heap="1g", neo4j_pagecache="64m")) as stack:
        yield Settings.model_validate({**stack.settings, "stack": {"state_dir": folder / "other"}})


@pytest.fixture(scope="session")
def stock_neo4j(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neo4jSettings]:
    """A second Neo4j, for stock Cartography's graph: the Community edition has one database."""
    options = StackSettings(neo4j_heap="512m", neo4j_pagecache="64m")
    with EmbeddedStack(tmp_path_factory.mktemp("stock") / "state", options, stores=["neo4j"]) as stack:
        yield Neo4jSettings.model_validate(stack.settings["neo4j"])


@pytest.fixture
def graph(stack_settings: Settings) -> Iterator[neo4j.Driver]:
    """A driver on the session's Neo4j, which is empty: no nodes, no constraints, no indexes."""
    with open_graph(stack_settings.neo4j) as driver:
        empty(driver)
        yield driver


@pytest.fixture(scope="session")
def simulated_aws() -> Iterator[SimulatedAws]:
    """Three accounts in two regions, without latency.

    Tests share it: whoever changes its faults sets them back; what it holds may be another at every test.
    """
    with start_simulated_aws(accounts=3, regions=("us-east-1", "eu-west-1"), size=6) as aws:
        yield aws
