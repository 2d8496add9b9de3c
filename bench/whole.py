"""Whole syncs, stock Cartography against cartoray: `make bench`.

Both sides call the same replay server (`bench.replay`), which answers any number of accounts with what one account of
the simulated AWS was answered, and write to the same Neo4j, empty at first, one side after the other in one run. What
is timed: the `cartography` command from its start to its end; and `cartoray sync` from its start until the graph is
complete, with workers that are up, as those of a cluster are. CPU is that of everything but the replay server: command,
workers, Kafka and Neo4j.

Stock syncs one account after the other, so its side runs on fewer, and its time for many is a multiple of that.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from bench.chart import Bar, save
from bench.replay.recorder import record
from bench.replay.running import RunningReplay, start_replay
from bench.wrapped import empty, run_command, stock_command, workers
from cartoray.settings import StackSettings
from cartoray.stack.simulated_aws import start_simulated_aws
from cartoray.stack.state import StateFolder

MODULES = (
    "ec2:instance,ec2:vpc,ec2:subnet,ec2:security_group,ec2:network_interface,ec2:volumes,"
    "iam,kms,s3,rds,eks,lambda_function,ec2:load_balancer_v2"
)
REGIONS = "us-east-1,us-west-2,eu-west-1,ap-southeast-1"
_FIRST = 100_000_000_000  # accounts of the replay server begin behind this


@dataclass(frozen=True)
class Sync:
    """One of a side. `cpu_s`: of all processes but the replay server. `limit_s`: how long AWS's limits make it take."""

    accounts: int
    seconds: float
    cpu_s: float
    calls: int
    throttled: int
    limit_s: float

    @property
    def each_s(self) -> float:
        """Seconds an account."""
        return self.seconds / self.accounts

    def __str__(self) -> str:
        each = f"{self.each_s:.2f} s each"
        per_call = f"{1000 * self.cpu_s / max(1, self.calls):.1f} ms of CPU a call"
        limits = f", {self.throttled:,} throttled, {self.limit_s:.1f} s by the limits" if self.limit_s else ""
        return f"{self.accounts} accounts, {self.seconds:.1f} s, {each}, {self.calls:,} calls{limits}, {per_call}"


class Bench:
    """The servers, and where syncs of both sides run."""

    def __init__(self, folder: Path, modules: str, regions: str) -> None:
        self.folder, self.modules, self.regions = folder, modules, regions
        run_command(folder, "up")
        state = json.loads((folder / ".cartoray" / "settings.json").read_text())
        self.neo4j: dict[str, Any] = state["neo4j"]
        servers = StateFolder(folder / StackSettings().state_dir).read().servers.values()
        self.servers = [psutil.Process(each.pid) for each in servers if each.pid is not None]

    def stock(self, environment: dict[str, str], role: str, accounts: Sequence[str]) -> None:
        stock_command(self.folder, environment, self.neo4j, accounts, role, self.modules, self.regions)

    def cartoray(self, environment: dict[str, str], accounts: Sequence[str]) -> None:
        listed = self.folder / "accounts.txt"
        listed.write_text("\n".join(accounts))
        command = ["sync", "--accounts-file", str(listed), "--scope", self.modules, "--region", self.regions, "--json"]
        run_command(self.folder, *command, environment=environment)


def bench(
    accounts: Annotated[int, typer.Option(help="of cartoray's syncs")] = 50,
    stock_accounts: Annotated[int, typer.Option(help="of stock's; 0: only cartoray's side")] = 5,
    latency_ms: Annotated[float, typer.Option(help="of each call")] = 100,
    size: Annotated[int, typer.Option(help="EC2 instances of an account in each region")] = 20,
    modules: Annotated[str, typer.Option(help="Cartography's names, comma between")] = MODULES,
    regions: Annotated[str, typer.Option(help="comma between")] = REGIONS,
    limit_scale: Annotated[float, typer.Option(help="of AWS's rate limits; 0: none")] = 0,
    recordings: Annotated[Path | None, typer.Option(help="folder to keep them in, and to take them from again")] = None,
    chart: Annotated[Path | None, typer.Option(help="where to draw the table, as SVG")] = None,
) -> None:
    """Times whole syncs with stock Cartography and with cartoray."""
    folder = Path(tempfile.mkdtemp(prefix="cartoray-bench-"))
    try:
        made = Bench(folder, modules, regions)
        paths = [(recordings or folder) / name for name in ("before.json.gz", "after.json.gz")]
        if not all(path.exists() for path in paths):
            _record(made, size, paths)
        empty(made.neo4j)
        with start_replay(paths, latency_ms=latency_ms, limit_scale=limit_scale) as replay:
            stock = _stock(made, replay, stock_accounts) if stock_accounts else []
            empty(made.neo4j)
            ours = _cartoray(made, replay, accounts)
    finally:
        run_command(folder, "down", "--wipe")
        shutil.rmtree(folder, ignore_errors=True)
    what = f"{len(modules.split(','))} modules, {len(regions.split(','))} regions, {latency_ms:g} ms"
    _print(stock, ours, what)
    if chart:
        _draw(chart, stock, ours, what)


def _record(made: Bench, size: int, paths: Sequence[Path]) -> None:
    """What both sides are answered for one account, before and after some changes."""
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    with start_simulated_aws(accounts=2, regions=made.regions.split(","), size=size) as aws:
        account = aws.accounts[1]
        for stage, path in enumerate(paths):
            if stage:
                print(f"recorded; {len(aws.mutate(1))} changes", flush=True)
            with record(aws.endpoint_url, account, path) as url:
                environment = _environment(aws.environment() | {"AWS_ENDPOINT_URL": url}, aws.role_name)
                made.stock(environment, aws.role_name, [account])
                with workers(made.folder, environment):
                    made.cartoray(environment, [account])


def _environment(aws: dict[str, str], role: str) -> dict[str, str]:
    return aws | {"CARTORAY_AWS_ROLE_NAME": role, "CARTORAY_AWS_RATE_SHARE": "1"}


def _stock(made: Bench, replay: RunningReplay, count: int) -> list[Sync]:
    environment = _environment(replay.environment(), replay.role_name)

    def sync(accounts: Sequence[str]) -> Sync:
        with _measured(made, replay, None, len(accounts)) as found:
            made.stock(environment, replay.role_name, accounts)
        print(f"stock: {found[0]}", flush=True)
        return found[0]

    return _series(sync, replay, count)


def _cartoray(made: Bench, replay: RunningReplay, count: int) -> list[Sync]:
    environment = _environment(replay.environment(), replay.role_name)
    with workers(made.folder, environment) as serving:

        def sync(accounts: Sequence[str]) -> Sync:
            with _measured(made, replay, serving, len(accounts)) as found:
                made.cartoray(environment, accounts)
            print(f"cartoray: {found[0]}; {_memory_mb(serving):.0f} MB of workers", flush=True)
            return found[0]

        return _series(sync, replay, count)


def _series(sync: Callable[[Sequence[str]], Sync], replay: RunningReplay, count: int) -> list[Sync]:
    """One account first, for which statements are planned and indexes made; then others, one more, all with changes."""
    names = [str(_FIRST + number) for number in range(1, count + 3)]
    syncs = [sync(names[:1]), sync(names[1 : count + 1]), sync(names[count + 1 :])]
    replay.stage(1)
    syncs.append(sync(names[1 : count + 1]))
    replay.stage(0)
    return syncs


@contextmanager
def _measured(
    made: Bench, replay: RunningReplay, serving: psutil.Process | None, accounts: int
) -> Iterator[list[Sync]]:
    """The sync that the block made, when it has ended."""

    def cpu_s() -> float:  # anew each time: members come
        return _cpu_s([*made.servers, *([serving, *serving.children(recursive=True)] if serving else [])])

    found: list[Sync] = []
    replay.forget()
    before_s, began_s = cpu_s(), time.monotonic()
    yield found
    seconds = time.monotonic() - began_s
    stats = replay.stats()
    if stats["not_recorded"]:
        sys.exit(f"calls that were not recorded: {stats['not_recorded']}, {stats['not_recorded_keys'][:3]}")
    calls, throttled = sum(stats["calls"].values()), sum(stats["throttled"].values())
    found.append(Sync(accounts, seconds, cpu_s() - before_s, calls, throttled, stats["limit_s"]))


def _cpu_s(processes: Sequence[psutil.Process]) -> float:
    """Of these, of their children that have ended, such as members, and of the commands that have."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime + sum(sum(process.cpu_times()[:4]) for process in processes)


def _memory_mb(serving: psutil.Process) -> float:
    return sum(process.memory_info().rss for process in serving.children(recursive=True)) / 1e6


_WORKS = ("first account, empty graph", "first sync", "one more account", "second sync, changes")


def _print(stock: Sequence[Sync], ours: Sequence[Sync], what: str) -> None:
    print(f"\n{what}, {os.cpu_count()} cores\n")
    print("| work | stock | cartoray | times as fast |\n|---|---|---|---|")
    for work, theirs, mine in zip(_WORKS, stock or [None] * len(_WORKS), ours, strict=True):
        ratio = f"{theirs.each_s / mine.each_s:.1f}" if theirs else ""
        print(f"| {work} | {theirs or ''} | {mine} | {ratio} |")


def _draw(path: Path, stock: Sequence[Sync], ours: Sequence[Sync], what: str) -> None:
    bars = [
        Bar(work, side, sync.each_s, f"{sync.each_s:.2f} s, {sync.accounts} accounts")
        for work, *syncs in zip(_WORKS, stock, ours, strict=True)
        for side, sync in enumerate(syncs)
    ]
    save(path, f"Seconds an account: {what}, {os.cpu_count()} cores", ("stock", "cartoray"), bars)


if __name__ == "__main__":
    typer.run(bench)
