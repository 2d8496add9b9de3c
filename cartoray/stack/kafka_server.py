"""Kafka as one process that is broker and controller (KRaft)."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cartoray.errors import StackError
from cartoray.stack.launch import LOOPBACK, Launch, Ports, java_launch
from cartoray.stack.probes import kafka_cluster

FORMAT_TIMEOUT_S = 60  # 1.6 s are usual
PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "listeners": "CLIENT://{host}:{client},CONTROLLER://{host}:{controller}",
    "advertised.listeners": "CLIENT://{host}:{client}",
    "inter.broker.listener.name": "CLIENT",
    "controller.listener.names": "CONTROLLER",
    "controller.quorum.voters": "1@{host}:{controller}",
    "listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "log.dirs": "data",  # below the working directory: no path to escape, and the folder may be moved
    # A single node: every internal topic has one replica, and few partitions, each of which costs files and memory.
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "8",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "4",
    "log.cleaner.dedupe.buffer.size": "33554432",  # the default of 128 MB is a quarter of the heap
    # After a crash the broker is let in again when the session of its former life has ended: 9 s by default.
    "broker.heartbeat.interval.ms": "1000",
    "broker.session.timeout.ms": "4000",
    "auto.create.topics.enable": "false",  # a misspelt topic is an error, not a new topic
    # Members come and go while someone watches: with the defaults a rebalance takes 5 s, a lost member 45 s.
    "group.initial.rebalance.delay.ms": "0",
    "group.consumer.min.heartbeat.interval.ms": "500",
    "group.consumer.heartbeat.interval.ms": "1000",
    "group.consumer.min.session.timeout.ms": "6000",
    "group.consumer.session.timeout.ms": "10000",
}
LOG4J2 = """\
# Kafka at info prints its 400 settings at every start and a line per partition at every rebalance.
status=error
rootLogger.level=warn
rootLogger.appenderRef.out.ref=out
logger.server.name=kafka.server.KafkaRaftServer
logger.server.level=info
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{yyyy-MM-dd HH:mm:ss.SSSXXX} %-5p %c{1}: %m%n
"""


def server_properties(ports: Ports) -> str:
    """Text of Kafka's server.properties. Retention and message size are left to the topics."""
    values = {"host": LOOPBACK, **ports}
    return "".join(f"{name}={value.format(**values)}\n" for name, value in PROPERTIES.items())


def new_cluster_id() -> str:
    """A Kafka UUID: 16 random bytes in URL-safe base64. Never with a leading dash, which tools take for an option."""
    while (cluster_id := secrets.token_urlsafe(16)).startswith("-"):
        pass
    return cluster_id


def cluster_id_in(meta_properties: str) -> str | None:
    """The cluster's id from the text of a log directory's meta.properties."""
    found = re.search(r"^cluster\.id=(\S+)$", meta_properties, re.MULTILINE)
    return found[1] if found else None


@dataclass(frozen=True)
class KafkaServer:
    """Implements `cartoray.stack.launch.Server`."""

    heap: str

    name = "kafka"
    ports: ClassVar[Ports] = {"client": 9092, "controller": 0}
    arguments: ClassVar[Sequence[str]] = ()
    locked_jars = True

    def prepare(self, home: Path, ports: Ports, jars: Sequence[Path]) -> Launch:
        """Write the configuration; the first time, format the data folder (1.6 s)."""
        (home / "tmp").mkdir(mode=0o700, parents=True, exist_ok=True)
        (home / "log4j2.properties").write_text(LOG4J2)
        (home / "server.properties").write_text(server_properties(ports))
        if not (home / "formatted").exists():
            self._format(home, jars)
        return self._launch(home, jars, self.heap, "kafka.Kafka", str(home / "server.properties"))

    def ready(self, home: Path, ports: Ports) -> bool:
        """Whether the broker answers a metadata request, and is this one: another may have taken the port."""
        expected = cluster_id_in((home / "data" / "meta.properties").read_text())
        return kafka_cluster(self.endpoint(ports)) == expected

    def endpoint(self, ports: Ports) -> str:
        return f"{LOOPBACK}:{ports['client']}"

    def settings(self, ports: Ports) -> Mapping[str, Mapping[str, str]]:
        return {"kafka": {"bootstrap_servers": self.endpoint(ports)}}

    def _launch(self, home: Path, jars: Sequence[Path], heap: str, *main: str) -> Launch:
        return java_launch(
            heap=heap,
            home=home,
            jars=jars,
            options=["-Dlog4j2.configurationFile=log4j2.properties"],
            main=main,
            environment=os.environ,
        )

    def _format(self, home: Path, jars: Sequence[Path]) -> None:
        shutil.rmtree(home / "data", ignore_errors=True)  # of a format that was cut off: it never held a message
        arguments = ("format", "--cluster-id", new_cluster_id(), "--config", str(home / "server.properties"))
        launch = self._launch(home, jars, "128m", "kafka.tools.StorageTool", *arguments)
        try:
            result = subprocess.run(
                launch.command,
                env=launch.environment,
                cwd=home,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=FORMAT_TIMEOUT_S,
                check=False,
                umask=0o077,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise StackError(f"Kafka's storage tool could not format {home / 'data'}: {error}.") from None
        if result.returncode:
            raise StackError(f"Kafka's storage tool could not format {home / 'data'}:\n{result.stdout}{result.stderr}")
        (home / "formatted").touch()
