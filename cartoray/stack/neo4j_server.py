"""Neo4j Community as one process that serves Bolt on loopback and nothing else."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from cartoray.errors import StackError
from cartoray.stack.launch import LOOPBACK, Launch, Ports, java_launch
from cartoray.stack.probes import Login, neo4j_login, neo4j_set_password

USER = "neo4j"
INITIAL_PASSWORD = "neo4j"  # Neo4j's own, refused for anything but setting another
CONFIGURATION = {
    "server.default_listen_address": "{host}",
    "server.default_advertised_address": "{host}",
    "server.bolt.listen_address": "{host}:{bolt}",
    "server.bolt.advertised_address": "{host}:{bolt}",
    "server.http.enabled": "false",
    "server.https.enabled": "false",
    # Nothing leaves this machine. Fleet discovery would send broadcasts into the local network.
    "dbms.usage_report.enabled": "false",
    "dbms.fleet_manager.enabled": "false",
    "server.fleet_discovery.enabled": "false",
    "server.bolt.telemetry.enabled": "false",
    "server.memory.pagecache.size": "{pagecache}",
    # Transaction logs are kept for recovery alone: there is no backup or cluster that would read them.
    "db.tx_log.rotation.retention_policy": "1 files",
    "db.tx_log.rotation.size": "64M",
    "db.tx_log.preallocate": "false",
    "db.logs.query.enabled": "OFF",
    # Loopback and a long random password: a lock-out would only hit the owner with an old password in a variable.
    "dbms.security.auth_max_failed_attempts": "0",
    # Netty waits twice 5 s for stragglers that a stopped database has none of.
    "internal.dbms.bolt.netty_server_shutdown_quiet_period_duration": "0s",
}
JVM_OPTIONS = (
    "--add-opens=java.base/java.nio=ALL-UNNAMED",
    "--add-opens=java.base/java.io=ALL-UNNAMED",
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
    "-Dio.netty.tryReflectionSetAccessible=true",
    "-XX:-OmitStackTraceInFastThrow",
)


def neo4j_conf(ports: Ports, pagecache: str) -> str:
    """Text of neo4j.conf. The heap is the JVM's own option, the data folder follows from --home-dir."""
    values = {"host": LOOPBACK, "pagecache": pagecache, **ports}
    return "".join(f"{name}={value.format(**values)}\n" for name, value in CONFIGURATION.items())


@dataclass(frozen=True)
class Neo4jServer:
    """Implements `cartoray.stack.launch.Server`."""

    heap: str
    pagecache: str
    password: str = field(repr=False)

    name = "neo4j"
    ports: ClassVar[Ports] = {"bolt": 7687}
    arguments: ClassVar[Sequence[str]] = ()
    locked_jars = True

    def prepare(self, home: Path, ports: Ports, jars: Sequence[Path]) -> Launch:
        """Write the configuration. One JVM: `Neo4jCommand console` would fork a second that outlives it."""
        for folder in (home / "conf", home / "tmp"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (home / "conf" / "neo4j.conf").write_text(neo4j_conf(ports, self.pagecache))
        main = ("org.neo4j.server.Neo4jCommunity", f"--home-dir={home}", f"--config-dir={home / 'conf'}")
        return java_launch(
            heap=self.heap,
            home=home,
            jars=jars,
            options=JVM_OPTIONS,
            main=(*main, "--console-mode"),
            environment=os.environ,
        )

    def ready(self, home: Path, ports: Ports) -> bool:
        """Whether it runs a query after a login with our password, which a new database is given on the way.

        The password is set by the first login, not by neo4j-admin, which takes it on its command line.
        """
        login = neo4j_login(self.endpoint(ports), USER, self.password)
        if login is Login.REFUSED:
            if not neo4j_set_password(self.endpoint(ports), USER, INITIAL_PASSWORD, self.password):
                raise StackError(
                    f"Neo4j in {home} takes neither the password in stack.json nor a new database's. "
                    "`cartoray down --wipe` starts over with an empty graph."
                )
            login = neo4j_login(self.endpoint(ports), USER, self.password)
        return login is Login.OK

    def endpoint(self, ports: Ports) -> str:
        return f"bolt://{LOOPBACK}:{ports['bolt']}"

    def settings(self, ports: Ports) -> Mapping[str, Mapping[str, str]]:
        login = {"user": USER, "password": self.password, "database": "neo4j"}
        return {"neo4j": {"uri": self.endpoint(ports), **login}}
