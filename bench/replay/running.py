"""Starts a replay server and talks to it."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cartoray.stack.simulated_aws_protocol import ROLE_NAME


@dataclass(frozen=True)
class RunningReplay:
    """A replay server, seen from outside."""

    endpoint_url: str
    pid: int
    role_name: str = ROLE_NAME

    def environment(self, region: str = "us-east-1") -> dict[str, str]:
        """What leads botocore here as the management account: all of it, so that no real credential is ever used."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_SESSION_TOKEN": "testing",
            "AWS_DEFAULT_REGION": region,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def stage(self, number: int) -> None:
        """Answers from the recording of that number from now on; the first is 0."""
        self._ask("POST", "stage", {"stage": number})

    def stats(self) -> dict[str, Any]:
        """Since the start or `forget`: calls, throttled, not_recorded, not_recorded_keys; cpu_s of the process."""
        return self._ask("GET", "stats")

    def forget(self) -> None:
        """Starts the counts anew, with full buckets."""
        self._ask("POST", "forget", {})

    def _ask(self, method: str, name: str, body: object = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.endpoint_url}/_replay/{name}", data, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            found: dict[str, Any] = json.load(answer)
        return found


@contextmanager
def start_replay(
    recordings: Sequence[Path],
    *,
    port: int = 0,
    latency_ms: float = 0.0,
    organization: int = 0,
    limit_scale: float = 0.0,
) -> Iterator[RunningReplay]:
    """Runs a server as a process of its own, and stops it on leaving. The options are those of its command line.

    Raises RuntimeError if it ends instead of answering; what it printed is on the standard error.
    """
    command = [sys.executable, "-m", "bench.replay.server", "--port", str(port), "--latency-ms", str(latency_ms)]
    command += ["--organization", str(organization), "--limit-scale", str(limit_scale)]
    for path in recordings:
        command += ["--recording", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"the replay server ended with {process.wait()}: see its standard error")
            yield RunningReplay(json.loads(line)["endpoint_url"], process.pid)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
