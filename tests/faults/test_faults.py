"""The short form of `make test-faults`: the most telling faults, in three syncs. `FAULTS_SEED` runs one again."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

import pytest
from faults.__main__ import tell
from faults.plan import together
from faults.running import KINDS, Suite
from faults.world import World
from support.commands import EC2

pytestmark = [pytest.mark.stack, pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(600)]

CASES = (
    (
        "intel actor killed with jobs under way",
        "ingestion actor killed inside of a transaction",
        "connections to Neo4j cut",
    ),
    (
        "intel actor killed between its rows and its end",
        "ingestion actor killed between Neo4j's commit and its event",
        "ingestion actor killed between its event and Kafka's commit",
    ),
    ("driver killed, started again", "Kafka killed, started again", "rows and steps delivered twice"),
)


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    with World(tmp_path_factory.mktemp("faults"), names=EC2, latency_ms=50) as world:
        suite = Suite(world)
        suite.undisturbed()
        yield suite


@pytest.fixture(scope="module")
def seed() -> int:
    return int(os.environ.get("FAULTS_SEED", secrets.randbelow(10**6)))


@pytest.mark.parametrize("number", range(len(CASES)))
def test_the_graph_is_that_of_a_sync_without_faults(suite: Suite, seed: int, number: int) -> None:
    print(f"FAULTS_SEED={seed}")
    result = suite.run(together(seed, KINDS, *CASES)[number])
    tell(result)
    assert not result.wrong, result.wrong[:50]
    assert not [struck for struck in result.struck if struck.missed and "killed" in struck.fault]
