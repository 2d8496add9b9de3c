"""Faults of Kafka and Neo4j, and of the connections to them."""

from __future__ import annotations

import resource
import threading
from collections.abc import Mapping
from typing import ClassVar

from faults.fault import Fault
from faults.plan import Kind
from faults.proxy import Proxy
from faults.servers import OwnServer

from cartoray.events import BatchLanded, StepLanded

SLOW_S = 0.2
CUT_EVERY_S = 1.0
LANDS = (BatchLanded, StepLanded)  # only that needs Neo4j


class OfServer(Fault):
    """`server` is "kafka" or "neo4j"."""

    server: ClassVar[str]

    @property
    def own(self) -> OwnServer:
        return self.world.kafka if self.server == "kafka" else self.world.neo4j

    @property
    def proxy(self) -> Proxy:
        return self.world.kafka_proxy if self.server == "kafka" else self.world.neo4j_proxy


class Stopped(OfServer):
    def inject(self) -> str:
        self.own.stop()
        return "SIGTERM"

    def heal(self) -> None:
        self.own.start()


class KafkaStopped(Stopped):
    kind = Kind("Kafka stopped for a while", "kafka", (2.0, 60.0))
    server = "kafka"


class Neo4jStopped(Stopped):
    kind = Kind("Neo4j stopped for a while", "neo4j", (2.0, 60.0))
    server = "neo4j"
    goes_on_with = LANDS


class Killed(OfServer):
    def inject(self) -> str:
        self.own.kill()
        return "SIGKILL"

    def heal(self) -> None:
        self.own.start()


class KafkaKilled(Killed):
    kind = Kind("Kafka killed, started again", "kafka")
    server = "kafka"


class Neo4jKilled(Killed):
    kind = Kind("Neo4j killed, started again", "neo4j")
    server = "neo4j"
    goes_on_with = LANDS


class Slow(OfServer):
    def inject(self) -> str:
        self.proxy.slow(SLOW_S)
        return f"{SLOW_S * 1000:g} ms on each piece, both ways"

    def heal(self) -> None:
        self.proxy.slow(0)


class KafkaSlow(Slow):
    kind = Kind("Kafka slow", "kafka", (5.0, 20.0))
    server = "kafka"


class Neo4jSlow(Slow):
    kind = Kind("Neo4j slow", "neo4j", (5.0, 20.0))
    server = "neo4j"
    goes_on_with = LANDS


class Cut(OfServer):
    """All connections are reset, again and again."""

    def inject(self) -> str:
        self._healed = threading.Event()
        self._thread = threading.Thread(target=self._cut, name="cut", daemon=True)
        self._cuts = self.proxy.cut()
        self._thread.start()
        return f"{self._cuts} connections at once, then those that come, every {CUT_EVERY_S:g} s"

    def _cut(self) -> None:
        while not self._healed.wait(CUT_EVERY_S):
            self.proxy.cut()

    def heal(self) -> None:
        self._healed.set()
        self._thread.join()


class KafkaCut(Cut):
    kind = Kind("connections to Kafka cut", "kafka", (0.0, 10.0))
    server = "kafka"


class Neo4jCut(Cut):
    kind = Kind("connections to Neo4j cut", "neo4j", (0.0, 10.0))
    server = "neo4j"
    goes_on_with = LANDS


class Held(OfServer):
    def inject(self) -> str:
        self.proxy.hold()
        return "nothing passes, then all of it"

    def heal(self) -> None:
        self.proxy.go_on()


class KafkaHeld(Held):
    kind = Kind("connections to Kafka hang, then go on", "kafka", (5.0, 30.0))
    server = "kafka"


class Neo4jHeld(Held):
    kind = Kind("connections to Neo4j hang, then go on", "neo4j", (5.0, 30.0))
    server = "neo4j"
    goes_on_with = LANDS


class Forgotten(OfServer):
    """As by a firewall that lost its table: connections that there are hang for ever, new ones work."""

    def inject(self) -> str:
        return f"{self.proxy.forget()} connections"


class KafkaForgotten(Forgotten):
    kind = Kind("connections to Kafka hang for ever", "kafka")
    server = "kafka"


class Neo4jForgotten(Forgotten):
    kind = Kind("connections to Neo4j hang for ever", "neo4j")
    server = "neo4j"
    goes_on_with = LANDS


class Restricted(OfServer):
    """Neo4j comes back with other options, and after a while with its own."""

    server = "neo4j"
    goes_on_with = LANDS
    options: ClassVar[Mapping[str, str]]

    def inject(self) -> str:
        self.own.stop()
        self.own.start(self.options)
        return ", ".join(f"{name}={value}" for name, value in self.options.items())

    def heal(self) -> None:
        self.own.stop()
        self.own.start()


class Neo4jReadOnly(Restricted):
    kind = Kind("Neo4j read-only", "neo4j", (3.0, 15.0))
    options: ClassVar = {"server.databases.default_to_read_only": "true"}


class Neo4jOutOfMemory(Restricted):
    """So little memory for transactions that batches must become smaller."""

    kind = Kind("Neo4j out of transaction memory", "neo4j", (3.0, 15.0))
    options: ClassVar = {"dbms.memory.transaction.total.max": "10m", "db.memory.transaction.max": "2m"}


class KafkaDiskFull(OfServer):
    """Its files may not grow, until the broker ends. The error has another name than that of a full disk."""

    kind = Kind("Kafka's disk full, room made, started again", "kafka", (2.0, 10.0))
    server = "kafka"

    def inject(self) -> str:
        process = self.own.process
        assert process is not None
        files = [file.stat().st_size for file in (self.world.folder / "kafka").rglob("graph_data-*/*.log")]
        limit = max(files)
        process.rlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        self.until(lambda: process.poll() is not None, "a write that found no room")
        self.own.kill()
        return f"no file beyond {limit:,} bytes; the broker ended"

    def heal(self) -> None:
        process = self.own.process
        if process is not None and process.poll() is None:  # nothing was written meanwhile
            process.rlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            return
        self.own.start()


FAULTS: tuple[type[Fault], ...] = (
    KafkaStopped,
    KafkaKilled,
    KafkaSlow,
    KafkaCut,
    KafkaHeld,
    KafkaForgotten,
    KafkaDiskFull,
    Neo4jStopped,
    Neo4jKilled,
    Neo4jSlow,
    Neo4jCut,
    Neo4jHeld,
    Neo4jForgotten,
    Neo4jReadOnly,
    Neo4jOutOfMemory,
)
