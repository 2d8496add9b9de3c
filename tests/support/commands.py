"""cartoray as its users run it: its commands in processes of their own, led by the environment."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from cartoray.settings import Settings
from cartoray.stack.simulated_aws import SimulatedAws

TIMEOUT_S = 240  # no test waits so long for a healthy cartoray
EC2 = "ec2:instance,ec2:vpc,ec2:subnet,ec2:security_group,ec2:network_interface,ec2:volumes"  # a scope
COMMAND = (sys.executable, "-m", "cartoray.cli.main")


def environment(settings: Settings, aws: SimulatedAws | None = None, **changed: str) -> dict[str, str]:
    """What a command needs; `changed` adds or replaces variables."""
    kafka, neo4j = settings.kafka, settings.neo4j
    return {
        **os.environ,
        **(aws.environment() | {"CARTORAY_AWS_ROLE_NAME": aws.role_name} if aws else {}),
        "CARTORAY_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "CARTORAY_KAFKA_TOPIC_PREFIX": kafka.topic_prefix,
        "CARTORAY_KAFKA_JOBS_PARTITIONS": "8",
        "CARTORAY_KAFKA_DATA_PARTITIONS": "4",
        "CARTORAY_NEO4J_URI": neo4j.uri,
        "CARTORAY_NEO4J_USER": neo4j.user,
        "CARTORAY_NEO4J_PASSWORD": neo4j.password.get_secret_value(),
        "CARTORAY_NEO4J_DATABASE": neo4j.database,
        "COLUMNS": "240",
        **changed,
    }


@dataclass(frozen=True)
class Done:
    """A command that ended. `result`: the JSON on its standard output, if that was asked for."""

    code: int
    output: str
    errors: str

    @property
    def result(self) -> Any:
        return json.loads(self.output)

    def expect(self, code: int) -> Done:
        """Itself, if that is how it ended; otherwise everything it said."""
        assert self.code == code, f"exit code {self.code}, expected {code}\n{self.output}\n{self.errors}"
        return self


def cartoray(*arguments: str, environment: Mapping[str, str], folder: Path, timeout_s: float = TIMEOUT_S) -> Done:
    """Runs a command of cartoray's in `folder` until it ends."""
    return run([*COMMAND, *arguments], environment, folder, timeout_s)


def run(command: Sequence[str], environment: Mapping[str, str], folder: Path, timeout_s: float) -> Done:
    """Runs a command in `folder` until it ends."""
    done = subprocess.run(
        command,
        env=environment,
        cwd=folder,
        timeout=timeout_s,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return Done(done.returncode, done.stdout, done.stderr)


class Family:
    """A process and all that came from it. Those once seen are known, even when their parent has died."""

    def __init__(self, process: psutil.Popen) -> None:
        self.process = process
        self._known: set[psutil.Process] = {process}

    def look(self) -> set[psutil.Process]:
        """Those that live, the first among them."""
        for known in list(self._known):
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile, here and below
                self._known.update(known.children(recursive=True))
        return {process for process in self._known if alive(process)}

    def named(self, title: str) -> list[psutil.Process]:
        """Those whose title has `title` in it, e.g. `ray::IntelActor`."""
        found = []
        for process in self.look():
            with contextlib.suppress(psutil.NoSuchProcess):
                if title in " ".join(process.cmdline()):
                    found.append(process)
        return sorted(found, key=lambda process: process.pid)

    def kill_all(self) -> None:
        """SIGKILL for whatever is left; the first has been waited for then."""
        for process in self.look():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()


class Workers(Family):
    """A `cartoray serve` with all its processes."""

    def __init__(self, process: psutil.Popen, log: Path) -> None:
        super().__init__(process)
        self.log = log

    def wait_until_it_serves(self) -> None:
        wait_for(lambda: "Serving: " in self.log.read_text() or not alive(self.process), "the workers to be ready")
        assert alive(self.process), f"the workers ended:\n{self.log.read_text()}"

    def kill(self) -> None:
        """SIGKILL for the driver alone: it can clear up nothing."""
        self.look()
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """As a user or Kubernetes does; answers the exit code."""
        self.look()
        self.process.send_signal(signal.SIGTERM)
        return int(self.process.wait(TIMEOUT_S))


def alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@contextlib.contextmanager
def serving(
    environment: Mapping[str, str], folder: Path, *arguments: str, command: Sequence[str] = COMMAND
) -> Iterator[Workers]:
    """`cartoray serve` until the block ends; then whatever is left of it is killed, by its own process ids."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"serve-{time.monotonic_ns()}.log"
    with log.open("w") as output:
        process = psutil.Popen(
            [*command, "serve", *arguments],
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    workers = Workers(process, log)
    try:
        workers.wait_until_it_serves()
        yield workers
    finally:
        workers.kill_all()


def wait_for(condition: Callable[[], object], what: str, timeout_s: float = TIMEOUT_S, every_s: float = 0.05) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s for {what}"
        time.sleep(every_s)


def one_line_error(done: Done) -> str:
    """The only thing that the command said: one line, and no traceback."""
    lines = [line for line in done.errors.splitlines() if line.strip()]
    assert len(lines) == 1, done.errors
    found = re.fullmatch(r"error: (.+)", lines[0])
    assert found, lines[0]
    return found[1]
