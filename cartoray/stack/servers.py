"""The embedded stack: Kafka, Neo4j and, if asked for, a simulated AWS as processes of this machine.

    with EmbeddedStack(folder) as stack:       # starts what does not run yet, stops it again
        stack.settings                         # {"kafka": {"bootstrap_servers": …}, "neo4j": {"uri": …, …}}

`up` in steps; whoever dies between two of them leaves what the next `up` or `down` can pick up:

    1. state folder        locked, read
    2. jars                fetched and compared with the lock files
    3. for each server     ports, configuration, process, its id into stack.json; then wait until it serves
    4. settings.json       the addresses, for commands beside this one
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from cartoray.errors import StackError
from cartoray.settings import StackSettings
from cartoray.stack import artifacts, ports, process
from cartoray.stack.kafka_server import KafkaServer
from cartoray.stack.launch import Server
from cartoray.stack.neo4j_server import Neo4jServer
from cartoray.stack.simulated_aws_server import SimulatedAwsServer
from cartoray.stack.state import ServerRecord, StackState, StateFolder

POLL_S = 0.2  # a look costs 5 ms of CPU, which the starting servers need themselves
LOG_LINES = 30  # shown when a server fails: a Java exception and its cause
_PORT_TAKEN = "ddress already in use"  # as Java, Netty and Python word it
STORES = ("kafka", "neo4j")


class Kind(Enum):
    """What happened to a server."""

    RUNS_ALREADY = "runs already"
    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    STOPPING = "stopping"
    STOPPED = "stopped"
    KILLED = "killed"


@dataclass(frozen=True)
class Event:
    """Something to tell the user; `detail` is an address, a duration or a reason."""

    server: str
    kind: Kind
    detail: str = ""


@dataclass(frozen=True)
class Status:
    """A server as it is now. `state`: running, starting, stopped, or dead (it ended though nobody stopped it)."""

    name: str
    state: str
    pid: int | None
    endpoint: str
    ports: Mapping[str, int]
    rss_bytes: int
    uptime_s: float
    log_file: Path


class ServerFailed(StackError):
    """A server that did not become ready; everything that was started with it has been stopped."""

    def __init__(self, server: str, reason: str, log_file: Path, last_lines: Sequence[str]) -> None:
        super().__init__(f"{server} did not start: {reason}. Its log: {log_file}")
        self.server = server
        self.log_file = log_file
        self.last_lines = tuple(last_lines)


class _Interrupted(Exception):
    """Not an error: another server failed, or the user said stop."""


def _nothing(_: object) -> None:
    pass


class EmbeddedStack:
    """The stack in one state folder. One at a time may be at work there; any number may look.

    `stores` says which of kafka and neo4j; `simulated_aws` adds that server. `on_event` and `on_progress` (of the
    download) are called from several threads, one call at a time.
    """

    def __init__(
        self,
        state_dir: Path | None = None,
        settings: StackSettings | None = None,
        *,
        stores: Sequence[str] = STORES,
        simulated_aws: SimulatedAwsServer | None = None,
        on_event: Callable[[Event], None] = _nothing,
        on_progress: Callable[[artifacts.Progress], None] = _nothing,
    ) -> None:
        self._options = settings or StackSettings()
        self._folder = StateFolder((state_dir or self._options.state_dir).expanduser().absolute())
        self._wanted = (*stores, simulated_aws.name) if simulated_aws else tuple(stores)
        self._simulated_aws = simulated_aws
        self._on_event = on_event
        self._on_progress = on_progress
        self._state = StackState()
        self._state_lock = threading.RLock()
        self._stop = threading.Event()
        self._children: dict[str, psutil.Process] = {}  # started here: to be stopped if `up` fails, or at the end
        self._settings: dict[str, dict[str, str]] = {}

    @property
    def settings(self) -> Mapping[str, Mapping[str, str]]:
        """Group of settings → name → value, of every server that `up` found or made ready. Holds the password."""
        return self._settings

    @property
    def folder(self) -> StateFolder:
        return self._folder

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down(only=tuple(self._children))

    def up(self) -> None:
        """Start what does not run, and wait until everything serves. Blocks for seconds, more with a download.

        Raises StackError (ServerFailed with the last lines of the log), after what it had started was stopped.
        An interrupt by the user stops it as well.
        """
        self._stop.clear()
        self._folder.create()
        with self._folder.locked():
            self._state = self._folder.read()
            self._folder.write(self._state)  # the password is on disk before Neo4j has it
            servers = [self._known()[name] for name in self._wanted]
            locked = [server.name for server in servers if server.locked_jars and not self._running(server.name)]
            jars = artifacts.fetch(locked, self._options, self._on_progress)
            try:
                self._start_all(servers, jars)
            except BaseException:
                self._stop_processes(self._children, announce=False)
                raise
            self._write_settings()

    def down(self, *, only: Sequence[str] | None = None, wipe: bool = False) -> list[str]:
        """Stop all servers that run from this folder, or `only` those, and answer their names. Data and logs stay.

        With `wipe` the folder goes as well, but for entries that are not the stack's. Blocks until all have ended, at
        most the stop timeout and a moment. Raises StackError if an `up` or `down` is at work in the folder.
        """
        if not self._folder.exists():
            return []
        with self._folder.locked():
            self._state = self._folder.read()
            names = [name for name in self._state.servers if only is None or name in only]
            running = {name: found for name in names if (found := self._running(name))}
            self._folder.remove_settings()
            self._stop_processes(running)
            if wipe:
                self._folder.wipe()
            elif any(self._running(name) for name in self._state.servers):
                self._write_settings()
        return list(running)

    def status(self) -> list[Status]:
        """How each server that was ever started here is now. Does not block."""
        return [self._status(record) for record in self._folder.read().servers.values()]

    # --- the servers -------------------------------------------------------------------------------------------------

    def _known(self) -> dict[str, Server]:
        options = self._options
        servers: list[Server] = [
            KafkaServer(options.kafka_heap),
            Neo4jServer(options.neo4j_heap, options.neo4j_pagecache, self._state.neo4j_password),
            self._simulated_aws or SimulatedAwsServer(accounts=1),  # where it only is asked for its address
        ]
        return {server.name: server for server in servers}

    def _running(self, name: str) -> psutil.Process | None:
        record = self._state.servers.get(name)
        found = process.find(record.pid, record.create_time) if record else None
        child = self._children.get(name)
        return child if found and child and child.pid == found.pid else found  # who made a child also reaps it

    def _start_all(self, servers: Sequence[Server], jars: Mapping[str, list[Path]]) -> None:
        with ThreadPoolExecutor(len(servers), thread_name_prefix="start") as pool:
            futures = [pool.submit(self._start, server, jars.get(server.name, [])) for server in servers]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                self._stop.set()  # the others give up within a moment; leaving the block waits for them
                raise

    def _start(self, server: Server, jars: Sequence[Path]) -> None:
        record, running = self._state.servers.get(server.name), self._running(server.name)
        if record and running and record.arguments != list(server.arguments):
            self._tell(server.name, Kind.RESTARTING, "its options changed")
            process.stop(running, self._options.stop_timeout_s)
            running = None
        if record and running:
            self._wait(server, running, record)
            self._tell(server.name, Kind.RUNS_ALREADY, server.endpoint(record.ports))
            return
        try:
            self._start_new(server, jars)
        except ServerFailed as error:
            if self._running(server.name) or not any(_PORT_TAKEN in line for line in error.last_lines):
                raise
            self._start_new(server, jars)  # another process took a port between our look and the server's

    def _start_new(self, server: Server, jars: Sequence[Path]) -> None:
        begin = time.monotonic()
        home = self._folder.home(server.name)
        with self._state_lock:  # two servers must not choose the same port
            old = self._state.servers.get(server.name)
            others = [record for record in self._state.servers.values() if record.name != server.name]
            taken = {port for record in others for port in record.ports.values()}
            chosen = dict(ports.choose(server.ports, old.ports if old else {}, taken))
            record = ServerRecord(name=server.name, ports=chosen, arguments=list(server.arguments))
            self._record(record)
        self._tell(server.name, Kind.STARTING, server.endpoint(chosen))
        launch = server.prepare(home, chosen, jars)
        if self._stop.is_set():
            raise _Interrupted
        with self._state_lock:
            child = process.spawn(launch.command, launch.environment, home, self._folder.log_file(server.name))
            self._children[server.name] = child
            record = record.model_copy(update={"pid": child.pid, "create_time": child.create_time()})
            self._record(record)
        self._wait(server, child, record)
        self._record(record.model_copy(update={"started": True}))
        self._tell(server.name, Kind.READY, f"{server.endpoint(chosen)} after {time.monotonic() - begin:.1f} s")

    def _wait(self, server: Server, running: psutil.Process, record: ServerRecord) -> None:
        deadline = time.monotonic() + self._options.start_timeout_s
        home = self._folder.home(server.name)
        while not (process.listens(running, record.ports.values()) and server.ready(home, record.ports)):
            if process.find(running.pid, record.create_time) is None:
                raise self._failed(server.name, "it ended before it was ready")
            if time.monotonic() > deadline:
                raise self._failed(server.name, f"it was not ready after {self._options.start_timeout_s:g} s")
            if self._stop.wait(POLL_S):
                raise _Interrupted

    def _failed(self, name: str, reason: str) -> ServerFailed:
        log = self._folder.log_file(name)
        return ServerFailed(name, reason, log, process.last_lines(log, LOG_LINES))

    def _stop_processes(self, running: Mapping[str, psutil.Process], *, announce: bool = True) -> None:
        def stop(name: str, found: psutil.Process) -> None:
            if announce:
                self._tell(name, Kind.STOPPING)
            clean = process.stop(found, self._options.stop_timeout_s)
            with self._state_lock:
                record = self._state.servers[name]
                self._record(record.model_copy(update={"pid": None, "create_time": 0.0, "started": False}))
                self._children.pop(name, None)
            if announce:
                reason = "" if clean else f"not stopped within {self._options.stop_timeout_s:g} s"
                self._tell(name, Kind.STOPPED if clean else Kind.KILLED, reason)

        if not running:
            return
        with ThreadPoolExecutor(len(running), thread_name_prefix="stop") as pool:
            for future in [pool.submit(stop, name, found) for name, found in running.items()]:
                future.result()

    # --- the state ---------------------------------------------------------------------------------------------------

    def _record(self, record: ServerRecord) -> None:
        with self._state_lock:
            servers = {**self._state.servers, record.name: record}
            self._state = self._state.model_copy(update={"servers": servers})
            self._folder.write(self._state)

    def _write_settings(self) -> None:
        self._settings = {}
        for name, server in self._known().items():
            if self._running(name):
                found = server.settings(self._state.servers[name].ports)
                self._settings |= {group: dict(values) for group, values in found.items()}
        self._folder.write_settings(self._settings)

    def _status(self, record: ServerRecord) -> Status:
        found = process.find(record.pid, record.create_time)
        rss, uptime = 0, 0.0
        if found:
            with contextlib.suppress(psutil.Error):
                rss, uptime = found.memory_info().rss, max(0.0, time.time() - record.create_time)
        state = "stopped" if record.pid is None else "dead"
        if found:
            state = "running" if record.started else "starting"
        log = self._folder.log_file(record.name)
        return Status(
            name=record.name,
            state=state,
            pid=record.pid if found else None,
            endpoint=self._known()[record.name].endpoint(record.ports),
            ports=record.ports,
            rss_bytes=rss,
            uptime_s=uptime,
            log_file=log,
        )

    def _tell(self, server: str, kind: Kind, detail: str = "") -> None:
        with self._state_lock:
            self._on_event(Event(server, kind, detail))
