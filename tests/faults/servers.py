"""Kafka and Neo4j of the suite's own: they can be killed, and started again with other options.

Clients reach both through a proxy. Kafka has a second listener, which the suite itself uses: it must see what goes on
while the proxy lets nothing through.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
from support.commands import wait_for

from cartoray.stack import ports, process
from cartoray.stack.kafka_server import KafkaServer
from cartoray.stack.launch import LOOPBACK, Server
from cartoray.stack.neo4j_server import Neo4jServer

STOP_S = 30.0
START_S = 180.0  # beside all the others
_QUICK = ("-XX:TieredStopAtLevel=1",)  # compiles less well and sooner: these servers live for minutes


class OwnServer:
    """A server whose process is in our hands. `file`: its configuration, to which options are added at a start."""

    def __init__(self, server: Server, home: Path, jars: Sequence[Path], file: str) -> None:
        self._server, self._home, self._jars, self._file = server, home, jars, home / file
        self.ports = {role: ports.any_free() for role in server.ports}
        self._log = home.parent / f"{server.name}.log"
        self.process: psutil.Popen | None = None
        self.always: dict[str, str] = {}

    def start(self, options: Mapping[str, str] | None = None) -> float:
        """Returns when it serves; answers how many seconds that took."""
        began_s = time.monotonic()
        launch = self._server.prepare(self._home, self.ports, self._jars)
        lines = {**self.always, **(options or {})}
        with self._file.open("a") as file:
            file.writelines(f"{name}={value}\n" for name, value in lines.items())
        java, *rest = launch.command
        self.process = process.spawn([java, *_QUICK, *rest], launch.environment, self._home, self._log)
        wait_for(self._ready, f"{self._server.name}: {self._log}", START_S)
        return time.monotonic() - began_s

    def stop(self) -> None:
        """As an administrator does."""
        if self.process is not None:
            process.stop(self.process, STOP_S)
            self.process = None

    def kill(self) -> None:
        """SIGKILL: it can clear up nothing."""
        if self.process is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                self.process.kill()
            self.process.wait()
            self.process = None

    def _ready(self) -> bool:
        running = self.process
        assert running is not None
        assert running.poll() is None, f"{self._server.name} ended: {process.last_lines(self._log, 20)}"
        return process.listens(running, self.ports.values()) and self._server.ready(self._home, self.ports)


class _TwoListeners(KafkaServer):
    """Its port `client` is what the proxy leads to, `direct` is for the suite."""

    ports = {"client": 0, "direct": 0, "controller": 0}  # noqa: RUF012 - as its base has it


def own_kafka(folder: Path, jars: Sequence[Path]) -> OwnServer:
    """`advertise` must be told the proxy's port before it is started."""
    return OwnServer(_TwoListeners("384m"), folder / "kafka", jars, "server.properties")


def advertise(kafka: OwnServer, proxy_port: int) -> None:
    client, direct, controller = (f"{LOOPBACK}:{kafka.ports[role]}" for role in ("client", "direct", "controller"))
    kafka.always = {
        "listeners": f"CLIENT://{client},DIRECT://{direct},CONTROLLER://{controller}",
        "advertised.listeners": f"CLIENT://{LOOPBACK}:{proxy_port},DIRECT://{direct}",
        "inter.broker.listener.name": "DIRECT",
        "listener.security.protocol.map": "CLIENT:PLAINTEXT,DIRECT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    }


def own_neo4j(folder: Path, jars: Sequence[Path]) -> tuple[OwnServer, Mapping[str, str]]:
    """And the login that its clients need."""
    server = Neo4jServer("768m", "64m", secrets.token_urlsafe(12))
    own = OwnServer(server, folder / "neo4j", jars, "conf/neo4j.conf")
    return own, server.settings(own.ports)["neo4j"]
