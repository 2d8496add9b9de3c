"""What Kafka and Neo4j are told, without starting them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cartoray.errors import StackError
from cartoray.stack.kafka_server import KafkaServer, cluster_id_in, new_cluster_id, server_properties
from cartoray.stack.launch import classpath, java_launch
from cartoray.stack.neo4j_server import Neo4jServer, neo4j_conf
from cartoray.stack.simulated_aws_server import SimulatedAwsServer


def _lines(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines())


def test_kafka_listens_on_loopback_only() -> None:
    properties = _lines(server_properties({"client": 9092, "controller": 19093}))
    assert properties["listeners"] == "CLIENT://127.0.0.1:9092,CONTROLLER://127.0.0.1:19093"
    assert properties["advertised.listeners"] == "CLIENT://127.0.0.1:9092"
    assert properties["controller.quorum.voters"] == "1@127.0.0.1:19093"


def test_every_internal_topic_of_kafka_fits_one_node() -> None:
    properties = _lines(server_properties({"client": 1, "controller": 2}))
    replicas = {name: value for name, value in properties.items() if name.endswith(("replication.factor", "min.isr"))}
    assert len(replicas) == 5
    assert set(replicas.values()) == {"1"}


def test_neo4j_serves_bolt_on_loopback_and_nothing_leaves_the_machine() -> None:
    conf = _lines(neo4j_conf({"bolt": 7687}, "256m"))
    assert conf["server.bolt.listen_address"] == "127.0.0.1:7687"
    assert conf["server.memory.pagecache.size"] == "256m"
    off = (
        "server.http.enabled",
        "server.https.enabled",
        "dbms.usage_report.enabled",
        "dbms.fleet_manager.enabled",
        "server.fleet_discovery.enabled",
        "server.bolt.telemetry.enabled",
    )
    assert {conf[name] for name in off} == {"false"}


def test_a_cluster_id_is_what_kafka_takes_and_is_found_again() -> None:
    for _ in range(200):
        cluster_id = new_cluster_id()
        assert len(cluster_id) == 22
        assert not cluster_id.startswith("-")
    assert cluster_id_in(f"#\nnode.id=1\ncluster.id={cluster_id}\nversion=1\n") == cluster_id
    assert cluster_id_in("version=1\n") is None


def test_neither_command_line_nor_files_nor_repr_hold_the_password(tmp_path: Path) -> None:
    server = Neo4jServer("1g", "256m", password="correct-horse")
    launch = server.prepare(tmp_path, {"bolt": 7687}, [tmp_path / "a.jar"])
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert "correct-horse" not in repr((launch, server, written))
    assert server.settings({"bolt": 7687})["neo4j"]["password"] == "correct-horse"


def test_a_jvm_gets_its_heap_and_no_credentials(tmp_path: Path) -> None:
    environment = {"PATH": "/bin", "AWS_SECRET_ACCESS_KEY": "s3cret", "JAVA_TOOL_OPTIONS": "-Dx=y"}
    launch = java_launch(
        heap="512m", home=tmp_path, jars=[Path("/j/a.jar")], options=(), main=("Main",), environment=environment
    )
    assert "-Xmx512m" in launch.command
    assert launch.command[-1] == "Main"
    assert dict(launch.environment) == {"PATH": "/bin", "CLASSPATH": "/j/a.jar"}


def test_the_simulated_aws_gets_no_real_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    launch = SimulatedAwsServer(accounts=7, latency_ms=2.5, seed=3, size=9).prepare(tmp_path, {"http": 5555}, [])
    assert "s3cret" not in launch.environment.values()
    command = list(launch.command)
    options = dict(zip(command[3::2], command[4::2], strict=True))
    assert options["--host"] == "127.0.0.1"
    expected = {"--port": "5555", "--accounts": "7", "--latency-ms": "2.5", "--seed": "3", "--size": "9"}
    assert expected.items() <= options.items()


def test_a_colon_in_the_path_of_a_jar_is_named() -> None:
    with pytest.raises(StackError, match="CARTORAY_STACK_CACHE_DIR"):
        classpath([Path("/a:b/c.jar")])


def test_kafka_is_formatted_once(tmp_path: Path) -> None:
    (tmp_path / "formatted").touch()
    KafkaServer("512m").prepare(tmp_path, {"client": 1, "controller": 2}, [tmp_path / "a.jar"])
    assert not (tmp_path / "data").exists()
