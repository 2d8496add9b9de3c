"""The embedded stack with the real Kafka and Neo4j: starts, finds again, keeps, gives up and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from neo4j import GraphDatabase

from cartoray.settings import StackSettings
from cartoray.stack import ports
from cartoray.stack.servers import EmbeddedStack, Event, Kind, ServerFailed
from cartoray.stack.state import StateFolder

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state folder with a running Kafka and Neo4j. Tests that stop them start them again."""
    folder = tmp_path_factory.mktemp("a state folder") / "state"  # spaces: paths go into files and command lines
    with EmbeddedStack(folder):
        yield folder
    assert _processes_of(folder) == []


def _processes_of(folder: Path) -> list[psutil.Process]:
    """Processes whose command line names `folder`, as the servers' do."""
    return [
        process
        for process in psutil.process_iter(["cmdline", "status"])
        if any(str(folder) in part for part in process.info["cmdline"] or ())
        and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


def _settings(folder: Path) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads((folder / "settings.json").read_text())
    return found


def _pids(folder: Path) -> dict[str, int | None]:
    return {server.name: server.pid for server in EmbeddedStack(folder).status()}


def _count_nodes(folder: Path, query: str = "MATCH (n:Kept) RETURN count(n) AS nodes") -> int:
    login = _settings(folder)["neo4j"]
    with GraphDatabase.driver(login["uri"], auth=(login["user"], login["password"])) as driver:
        records, _, _ = driver.execute_query(query, database_=login["database"])
    return int(records[0]["nodes"])


def _read_first_message(folder: Path) -> bytes | None:
    configuration = {"bootstrap.servers": _settings(folder)["kafka"]["bootstrap_servers"], "group.protocol": "consumer"}
    consumer = Consumer({**configuration, "group.id": str(time.time_ns()), "auto.offset.reset": "earliest"})
    consumer.subscribe(["kept"])
    try:
        message = consumer.poll(15)
        return message.value() if message else None
    finally:
        consumer.close()


def test_up_gives_a_kafka_and_a_neo4j_that_work_and_that_only_their_owner_can_reach(folder: Path) -> None:
    bootstrap = _settings(folder)["kafka"]["bootstrap_servers"]
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic("kept", 1, 1)])["kept"].result(10)
    producer = Producer({"bootstrap.servers": bootstrap})
    producer.produce("kept", b"a message")
    assert producer.flush(10) == 0
    assert _read_first_message(folder) == b"a message"
    assert _count_nodes(folder, "CREATE (n:Kept) RETURN count(n) AS nodes") == 1
    password = _settings(folder)["neo4j"]["password"]
    processes = _processes_of(folder)
    assert len(processes) == 2
    for process in processes:
        addresses = {entry.laddr.ip for entry in process.net_connections() if entry.status == psutil.CONN_LISTEN}
        assert addresses <= {"127.0.0.1", "::ffff:127.0.0.1"}
        assert password not in " ".join([*process.cmdline(), *process.environ().values()])
    assert all(password not in path.read_text(errors="replace") for path in (folder / "logs").iterdir())


def test_up_again_changes_nothing_and_says_so(folder: Path) -> None:
    before, events = _pids(folder), list[Event]()
    stack = EmbeddedStack(folder, on_event=events.append)
    stack.up()
    assert _pids(folder) == before
    assert {event.kind for event in events} == {Kind.RUNS_ALREADY}
    assert stack.settings == _settings(folder)


def test_a_second_stack_takes_other_ports_even_when_it_only_learns_from_kafka_that_one_is_taken(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = int(_settings(folder)["kafka"]["bootstrap_servers"].rpartition(":")[2])
    choices = iter([{"client": taken, "controller": ports.any_free()}])
    choose = ports.choose
    monkeypatch.setattr(ports, "choose", lambda *arguments: next(choices, None) or choose(*arguments))
    with EmbeddedStack(tmp_path / "second", stores=["kafka"]) as second:
        assert second.settings["kafka"] != _settings(folder)["kafka"]
        assert "neo4j" not in second.settings
        server = second.status()[0]
        assert server.state == "running"
        assert server.rss_bytes > 50_000_000
    assert "Address already in use" in (tmp_path / "second" / "logs" / "kafka.log").read_text()
    assert _processes_of(tmp_path) == []


def test_data_password_and_ports_outlive_down_and_up(folder: Path) -> None:
    before = _settings(folder)
    assert EmbeddedStack(folder).down() == ["kafka", "neo4j"]
    assert _processes_of(folder) == []
    assert not (folder / "settings.json").exists()
    assert {server.state for server in EmbeddedStack(folder).status()} == {"stopped"}
    EmbeddedStack(folder).up()
    assert _settings(folder) == before
    assert _count_nodes(folder) == 1
    assert _read_first_message(folder) == b"a message"


def test_a_killed_server_is_seen_and_started_again_and_whoever_has_its_pid_now_is_left_alone(folder: Path) -> None:
    killed = psutil.Process(_pids(folder)["kafka"])
    killed.kill()
    psutil.wait_procs([killed], timeout=10)
    assert {server.name: server.state for server in EmbeddedStack(folder).status()}["kafka"] == "dead"
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as stranger:
        try:
            state = StateFolder(folder).read()
            stale = state.servers["kafka"].model_copy(update={"pid": stranger.pid})
            StateFolder(folder).write(state.model_copy(update={"servers": {**state.servers, "kafka": stale}}))
            assert EmbeddedStack(folder).down(only=["kafka"]) == []
            EmbeddedStack(folder).up()
            assert _pids(folder)["kafka"] != stranger.pid
            assert stranger.poll() is None
        finally:
            stranger.kill()
    assert _read_first_message(folder) == b"a message"


def test_when_one_server_fails_its_log_is_told_and_the_others_are_stopped(tmp_path: Path) -> None:
    with pytest.raises(ServerFailed) as caught:
        EmbeddedStack(tmp_path, StackSettings(neo4j_heap="1k")).up()
    assert caught.value.server == "neo4j"
    assert "Too small maximum heap" in "\n".join(caught.value.last_lines)
    assert str(tmp_path / "logs" / "neo4j.log") in str(caught.value)
    assert _processes_of(tmp_path) == []


def test_an_interrupted_up_leaves_no_process_and_wipe_no_file(tmp_path: Path) -> None:
    environment = {**os.environ, "CARTORAY_STACK_STATE_DIR": str(tmp_path / "state")}
    command = [sys.executable, "-c", "from cartoray.cli.main import main; main()"]
    with subprocess.Popen([*command, "up", "--only", "neo4j"], env=environment, stderr=subprocess.PIPE) as up:
        while not _processes_of(tmp_path):
            assert up.poll() is None
            time.sleep(0.05)
        up.send_signal(signal.SIGINT)
        _, errors = up.communicate(timeout=60)
    assert up.returncode == 130
    assert b"Interrupted" in errors
    assert _processes_of(tmp_path) == []
    subprocess.run([*command, "down", "--wipe"], env=environment, check=True, capture_output=True)
    assert list(tmp_path.iterdir()) == []
