"""A Ray cluster on this machine: a head without members, and nodes that may be lost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
from support.commands import Family, alive, wait_for

from cartoray.stack import ports

RAY = str(Path(sys.executable).parent / "ray")
NODES = 2
CPUS = 4  # of a node: one alone can hold all members of both pools
START_S = 60.0


class RayNodes:
    """`lose` and `add` are of nodes with members; the head has none."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment) | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        self._port = ports.any_free()
        self._families: dict[psutil.Popen, Family] = {}
        self._head: psutil.Popen | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        head = ["--head", "--port", str(self._port), "--num-cpus", "0", "--include-dashboard", "false"]
        self._head = self._start(*head)
        wait_for(self._answers, "Ray's head", START_S, every_s=0.5)
        for _ in range(NODES):
            self.add()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for node in list(self._families):
            self._kill(node)

    def add(self) -> None:
        """Returns when the node has begun; when it has joined, members come to it by themselves."""
        self._start("--address", self.address, "--num-cpus", str(CPUS))

    @property
    def nodes(self) -> list[psutil.Popen]:
        return [node for node in self._families if node is not self._head and alive(node)]

    def on(self, node: psutil.Popen, title: str) -> list[psutil.Process]:
        """Processes of a node that live and have `title` in theirs."""
        return self._families[node].named(title)

    def named(self, title: str) -> list[psutil.Process]:
        return [process for node in list(self._families) for process in self.on(node, title)]

    def lose(self, node: psutil.Popen) -> None:
        """All its processes are killed at once."""
        self._kill(node)

    def drain(self, node: psutil.Popen, deadline_s: float) -> None:
        """As a cloud that takes a machine back: it says so, and after a while the machine is gone."""
        node_id = self._node_id(node)
        command = [RAY, "drain-node", "--address", self.address, "--node-id", node_id]
        command += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "taken back"]
        command += ["--deadline-remaining-seconds", str(int(deadline_s))]
        subprocess.run(command, env=self._environment, check=True, capture_output=True, stdin=subprocess.DEVNULL)

    def _start(self, *arguments: str) -> psutil.Popen:
        command = [RAY, "start", "--block", "--node-ip-address", "127.0.0.1", "--object-store-memory", "80000000"]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        node = psutil.Popen([*command, *arguments], env=self._environment, **quiet)
        self._families[node] = Family(node)
        return node

    def _answers(self) -> bool:
        assert self._head is not None
        assert alive(self._head), "Ray's head ended"
        command = [RAY, "health-check", "--address", self.address]
        return not subprocess.run(command, env=self._environment, check=False, capture_output=True).returncode

    def _node_id(self, node: psutil.Popen) -> str:
        for process in self.on(node, "raylet"):
            for word in process.cmdline():
                if word.startswith("--node_id=") or word.startswith("--node-id="):
                    return word.partition("=")[2]
        raise AssertionError("a node without a raylet")

    def _kill(self, node: psutil.Popen) -> None:
        self._families.pop(node).kill_all()
