"""The simulated AWS (`cartoray.stack.simulated_aws`) as a server of the stack."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cartoray.stack.launch import LOOPBACK, Launch, Ports
from cartoray.stack.probes import http_ok
from cartoray.stack.simulated_aws_protocol import ROLE_NAME


@dataclass(frozen=True)
class SimulatedAwsServer:
    """Implements `cartoray.stack.launch.Server`. Keeps nothing: the same options make the same organisation again."""

    accounts: int
    latency_ms: float = 50
    seed: int = 1
    size: int | None = None

    name = "simulated-aws"
    ports: ClassVar[Ports] = {"http": 5555}
    locked_jars = False

    @property
    def arguments(self) -> Sequence[str]:
        options = ["--accounts", str(self.accounts), "--latency-ms", f"{self.latency_ms:g}", "--seed", str(self.seed)]
        return options if self.size is None else [*options, "--size", str(self.size)]

    def prepare(self, home: Path, ports: Ports, jars: Sequence[Path]) -> Launch:
        """Make the working directory. Cloud credentials of the user are not passed on: it has no use for them."""
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        address = ("--host", LOOPBACK, "--port", str(ports["http"]))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        command = (sys.executable, "-m", "cartoray.stack.simulated_aws", *address, *self.arguments)
        return Launch(command, environment | {"PYTHONUNBUFFERED": "1"})

    def ready(self, home: Path, ports: Ports) -> bool:
        return http_ok(LOOPBACK, ports["http"], "/_cartoray/health")

    def endpoint(self, ports: Ports) -> str:
        return f"http://{LOOPBACK}:{ports['http']}"

    def settings(self, ports: Ports) -> Mapping[str, Mapping[str, str]]:
        return {"simulated_aws": {"endpoint_url": self.endpoint(ports), "role_name": ROLE_NAME}}
