"""Starts a replay server and talks to it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cartoray.stack.loopback_server import ask, started
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
        """Since the start or `forget`: calls, throttled, not_recorded, not_recorded_keys, limit_s; cpu_s as always."""
        return self._ask("GET", "stats")

    def forget(self) -> None:
        """Starts the counts anew, with full buckets."""
        self._ask("POST", "forget", {})

    def _ask(self, method: str, name: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        return ask(f"{self.endpoint_url}/_replay/{name}", method, body)


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

    Raises RuntimeError if it does not answer; what it printed is on the standard error.
    """
    command = [sys.executable, "-m", "bench.replay.server", "--port", str(port), "--latency-ms", str(latency_ms)]
    command += ["--organization", str(organization), "--limit-scale", str(limit_scale)]
    for path in recordings:
        command += ["--recording", str(path)]
    with started(command, "the replay server") as (endpoint_url, pid):
        yield RunningReplay(endpoint_url, pid)
