"""Stock Cartography against cartoray, over the same accounts of a simulated AWS: `make bench-wrapped`.

Each side has a Kafka, a Neo4j and a simulated AWS of its own, made for it and empty, one side after the other in one
run. What is timed: the `cartography` command from its start to its end; and `cartoray sync` from its start until the
graph is complete, with workers that are up, as those of a cluster are.

    cold, cold again     into an empty database of a server that was just started, and once more
    first, first again   the same after everything was removed from that database, indexes too: the server is warm
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import neo4j
import psutil
import typer

MODULES = (
    "ec2:instance,ec2:vpc,ec2:subnet,ec2:security_group,ec2:network_interface,ec2:volumes,"
    "kms,s3,sqs,sns,lambda_function,rds"
)
REGIONS = "us-east-1,eu-west-1"
EMPTY = "MATCH (n) CALL (n) { DETACH DELETE n } IN TRANSACTIONS OF 1000 ROWS"
CARTORAY = (sys.executable, "-m", "cartoray.cli.main")


@dataclass(frozen=True)
class Result:
    """Seconds, and what the graph had in the end."""

    side: str
    cold: float
    cold_again: float
    first: float
    again: float
    nodes: int
    relationships: int

    @property
    def times(self) -> tuple[float, ...]:
        return self.first, self.again, self.cold, self.cold_again


def bench(
    accounts: Annotated[int, typer.Option(help="of the simulated AWS")] = 10,
    latency_ms: Annotated[int, typer.Option(help="of each call of its API")] = 100,
    modules: Annotated[str, typer.Option(help="Cartography's names, comma between")] = MODULES,
    sides: Annotated[str, typer.Option(help="which of stock, wrapped, native; comma between")] = "stock,wrapped,native",
) -> None:
    """Times syncs with stock Cartography, with its modules as jobs (wrapped), and with native ones."""
    results = [_time(side, accounts, latency_ms, modules) for side in sides.split(",")]
    calls = (
        f"{accounts} accounts, {len(modules.split(','))} modules, {len(REGIONS.split(','))} regions, {latency_ms} ms"
    )
    print(f"\n{calls}, {os.cpu_count()} cores\n")
    print("| side | first | again | cold | cold again | nodes | relationships |\n" + "|---" * 7 + "|")
    for result in results:
        times = (
            f"{each:.1f} s, {stock / each:.1f} ×" for stock, each in zip(results[0].times, result.times, strict=True)
        )
        print(f"| {result.side} | {' | '.join(times)} | {result.nodes:,} | {result.relationships:,} |")


def _time(side: str, accounts: int, latency_ms: int, modules: str) -> Result:
    folder = Path(tempfile.mkdtemp(prefix="cartoray-bench-"))
    try:
        run_command(folder, "up", "--simulate-aws", str(accounts), "--latency-ms", str(latency_ms))
        settings = json.loads((folder / ".cartoray" / "settings.json").read_text())
        times = []
        for _ in range(2):
            if side == "stock":
                times += [_stock(folder, settings, modules) for _ in range(2)]
            else:
                with workers(folder):
                    times += [_sync(folder, modules, wrapped=side == "wrapped") for _ in range(2)]
            graph = json.loads(run_command(folder, "graph", "--json"))
            empty(settings["neo4j"])
        print(f"{side}: {', '.join(f'{each:.1f} s' for each in times)}", flush=True)
        return Result(side, *times, graph["nodes"], sum(graph["relationships"].values()))
    finally:
        run_command(folder, "down", "--wipe")
        shutil.rmtree(folder, ignore_errors=True)


def empty(server: dict[str, Any]) -> None:
    """Removes nodes, relationships, indexes and constraints."""
    with (
        neo4j.GraphDatabase.driver(server["uri"], auth=("neo4j", server["password"])) as driver,
        driver.session() as session,
    ):
        session.run(EMPTY).consume()
        for name in session.run("SHOW CONSTRAINTS YIELD name").value():
            session.run(f"DROP CONSTRAINT `{name}`").consume()
        for name in session.run("SHOW INDEXES YIELD name, type WHERE type = 'RANGE' RETURN name").value():
            session.run(f"DROP INDEX `{name}`").consume()


def run_command(folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """What a command of cartoray prints; `environment` is added to that of this process."""
    variables = {**os.environ, **(environment or {})}
    done = subprocess.run(
        [*CARTORAY, *arguments], cwd=folder, env=variables, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"cartoray {' '.join(arguments)} ended with {done.returncode}: {done.stderr[-2_000:]}")
    return done.stdout


def _sync(folder: Path, modules: str, *, wrapped: bool) -> float:
    kind = ["--wrapped"] if wrapped else []
    began_s = time.monotonic()
    run_command(folder, "sync", "--organization", "--scope", modules, "--region", REGIONS, "--json", *kind)
    return time.monotonic() - began_s


@contextmanager
def workers(folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[psutil.Process]:
    """Of cartoray, that are up; `environment` is added to that of this process."""
    log = folder / "serve.log"
    variables = {**os.environ, **(environment or {})}
    with log.open("wb") as output:
        child = psutil.Popen([*CARTORAY, "serve"], cwd=folder, stdout=output, stderr=output, env=variables)
    try:
        while b"Serving:" not in log.read_bytes():
            if child.poll() is not None:
                sys.exit(f"the workers ended: {log.read_text(errors='replace')[-2_000:]}")
            time.sleep(0.2)
        time.sleep(8)  # until they have joined their groups, and loaded what they load
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(60)


def _stock(folder: Path, settings: dict[str, Any], modules: str) -> float:
    aws = settings["simulated_aws"]
    variables = {"AWS_ENDPOINT_URL": aws["endpoint_url"], "AWS_EC2_METADATA_DISABLED": "true"}
    began_s = time.monotonic()
    stock_command(folder, variables, settings["neo4j"], _accounts(folder), aws["role_name"], modules, REGIONS)
    return time.monotonic() - began_s


def stock_command(
    folder: Path,
    environment: Mapping[str, str],
    server: Mapping[str, str],
    accounts: Sequence[str],
    role: str,
    modules: str,
    regions: str,
) -> None:
    """Stock takes its accounts from an AWS configuration with a profile for each."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")} | {
        **{name: value for name, value in environment.items() if not name.endswith(("_KEY_ID", "_KEY", "_TOKEN"))},
        "AWS_CONFIG_FILE": str(folder / "aws-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "none"),
        "AWS_DEFAULT_REGION": regions.partition(",")[0],
        "STOCK_PASSWORD": server["password"],
    }
    (folder / "aws-config").write_text(_profiles(accounts, role))
    command = [sys.executable, "-m", "cartography", "--neo4j-uri", server["uri"], "--neo4j-user", "neo4j"]
    command += ["--neo4j-password-env-var", "STOCK_PASSWORD", "--selected-modules", "aws", "--aws-sync-all-profiles"]
    command += ["--aws-requested-syncs", modules, "--aws-regions", regions]
    done = subprocess.run(command, env=variables, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"cartography ended with {done.returncode}: {done.stderr[-2_000:]}")


def _accounts(folder: Path) -> list[str]:
    jobs = json.loads(run_command(folder, "plan", "--organization", "--scope", "account", "--json"))["jobs"]
    return [job["account"]["id"] for job in jobs]


def _profiles(accounts: Sequence[str], role: str) -> str:
    base = "[default]\naws_access_key_id = testing\naws_secret_access_key = testing\n"
    return base + "".join(
        f"[profile p{account}]\nrole_arn = arn:aws:iam::{account}:role/{role}\nsource_profile = default\n"
        for account in accounts
    )


if __name__ == "__main__":
    typer.run(bench)
