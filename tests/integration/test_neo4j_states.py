"""A Neo4j of its own that is addressed like a cluster, and that for a while takes no writes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ingestion_rows import ACCOUNT, INSTANCE, instances, messages, run
from ingestion_topics import Bench
from support.databases import open_graph

from cartoray.kafka import read_all
from cartoray.settings import Neo4jSettings, Settings, StackSettings
from cartoray.stack.neo4j_server import CONFIGURATION
from cartoray.stack.servers import EmbeddedStack
from ingestion.sink import Sink

pytestmark = pytest.mark.stack


def wait(sink: Sink, done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline, sink.status()
        time.sleep(0.1)


def test_a_graph_that_is_read_only_for_a_while_is_waited_for(
    stack_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = StackSettings(neo4j_heap="512m", neo4j_pagecache="64m")
    with EmbeddedStack(tmp_path / "state", options, stores=["neo4j"]) as stack:
        found = Neo4jSettings.model_validate(stack.settings["neo4j"])
        routed = found.model_copy(update={"uri": found.uri.replace("bolt://", "neo4j://")})
        bench = Bench(stack_settings.model_copy(update={"neo4j": routed}))
        with bench.sink() as sink, open_graph(routed) as graph:
            run(graph, "CREATE (:AWSAccount {id: $id})", id=ACCOUNT)
            bench.publish(messages(INSTANCE, instances(10)))
            bench.until(bench.landed(1))
            with monkeypatch.context() as patched:
                patched.setitem(CONFIGURATION, "server.databases.default_to_read_only", "true")
                stack.down()
                stack.up()
                bench.publish(messages(INSTANCE, instances(20), module="more"))
                wait(sink, lambda: "ReadOnly" in sink.status().trouble)
            stack.down()
            stack.up()
            wait(sink, lambda: sink.status().rows_landed == 30)
            assert sink.status().trouble == ""
            assert run(graph, "MATCH (:AWSAccount)-[:RESOURCE]->(n:AWSEC2Instance) RETURN count(n)") == [[20]]
        assert list(read_all(bench.settings.kafka, bench.topics.dead_letters.name)) == []
        bench.close()
