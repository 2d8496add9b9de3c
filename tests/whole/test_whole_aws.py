"""All of AWS through `cartoray cartography`: the graph of stock Cartography. Takes minutes: `make test-whole`.

Both run with the same arguments and the same update tag against the same simulated AWS, stock twice, because its first
run misses relationships to what it loads later.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import neo4j
import pytest
from parity.stock import profiles
from support.commands import cartoray, environment, serving
from support.databases import empty, open_graph

from cartoray.settings import Neo4jSettings, Settings
from cartoray.stack.simulated_aws import UNANSWERED, SimulatedAws, start_simulated_aws
from ingestion.fingerprint import PROPERTY

pytestmark = [pytest.mark.stack, pytest.mark.ray, pytest.mark.timeout(1_800)]

TAG = "1700000000"
# what two runs never have in common, what Cartography derives from the clock, and what only cartoray writes
VOLATILE = re.compile(rf"^(firstseen|lastupdated|latest_restorable_time|.*_timestamp|.*_at|{PROPERTY})$")
# docs/parity.md says why: made in whatever direction the query plan finds first; and found by a second run alone
UNDIRECTED = "MATCHING_FINGERPRINT"
KNOWN = re.compile(
    r"^missing 1 × \(\['AWSRDSSnapshot'.*:(\d{12}):snapshot:.*\[IS_SNAPSHOT_SOURCE .*:(?!\1)\d{12}:db:|"
    r"^missing 1 × \(\['AWSRDSSnapshot'.*rds:([a-z0-9-]+):.*\[IS_SNAPSHOT_SOURCE .*rds:(?!\2)[a-z0-9-]+:\d{12}:db:"
)


def command(aws: SimulatedAws) -> list[str]:
    regions = ",".join(aws.regions)
    return ["--selected-modules", "aws", "--update-tag", TAG, "--aws-sync-all-profiles", "--aws-regions", regions]


def run(arguments: Sequence[str], variables: Mapping[str, str], folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *arguments], env=variables, cwd=folder, capture_output=True, text=True, check=False
    )
    log = done.stdout + done.stderr
    assert done.returncode == 0, log[-5_000:]
    return log


def content(driver: neo4j.Driver) -> tuple[Counter[str], Counter[str]]:
    """Nodes and relationships as texts, how often each is there; a node is named by its labels and id."""
    with driver.session() as session:
        nodes = session.run("MATCH (n) RETURN labels(n), properties(n)").values()
        edges = session.run(
            "MATCH (a)-[r]->(b) RETURN labels(a), a.id, type(r), properties(r), labels(b), b.id"
        ).values()
    return (
        Counter(f"{sorted(labels)} {_shown(properties)}" for labels, properties in nodes),
        Counter(
            f"({first[0]} {first[1]})-[{kind} {_shown(properties)}]->({last[0]} {last[1]})"
            for start, a, kind, properties, end, b in edges
            for first, last in (_ends(kind, (str(sorted(start)), str(a)), (str(sorted(end)), str(b))),)
        ),
    )


def _ends(kind: str, start: tuple[str, str], end: tuple[str, str]) -> tuple[tuple[str, str], tuple[str, str]]:
    return (min(start, end), max(start, end)) if kind == UNDIRECTED else (start, end)


def _shown(properties: Mapping[str, Any]) -> str:
    kept = {name: value for name, value in sorted(properties.items()) if not VOLATILE.match(name)}
    return json.dumps(
        {name: sorted(v, key=repr) if isinstance(v, list) else v for name, v in kept.items()}, default=str
    )


@dataclass(frozen=True)
class Stock:
    """What stock Cartography made of a simulated AWS, and how others are led there."""

    aws: SimulatedAws
    variables: Mapping[str, str]
    folder: Path
    nodes: Counter[str]
    edges: Counter[str]


@pytest.fixture(scope="module")
def stock(stock_neo4j: Neo4jSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stock]:
    folder = tmp_path_factory.mktemp("whole")
    with start_simulated_aws(accounts=3, regions=("us-east-1", "eu-west-1"), size=4) as aws:
        names = {account: f"account-{number}" for number, account in enumerate(aws.accounts)}
        (folder / "aws-config").write_text(profiles(aws, names))
        (folder / "accounts").write_text("".join(f"{account} {name}\n" for account, name in names.items()))
        base = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")} | {
            "AWS_CONFIG_FILE": str(folder / "aws-config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(folder / "none"),
            "AWS_ENDPOINT_URL": aws.endpoint_url,
            "AWS_DEFAULT_REGION": aws.regions[0],
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        database = ["--neo4j-uri", stock_neo4j.uri, "--neo4j-user", "neo4j", "--neo4j-password-env-var", "P"]
        with open_graph(stock_neo4j) as driver:
            empty(driver)
            for _ in range(2):
                variables = base | {"P": stock_neo4j.password.get_secret_value()}
                began_s = time.monotonic()
                run(["cartography", *database, *command(aws)], variables, folder)
                print(f"stock: {time.monotonic() - began_s:.0f} s")
            yield Stock(aws, base, folder, *content(driver))


@pytest.mark.parametrize("way", ["command", "jobs", "wrapped jobs"])
def test_whole_aws_gives_stocks_graph(stack_settings: Settings, stock: Stock, way: str) -> None:
    aws, folder = stock.aws, stock.folder
    kafka = stack_settings.kafka.model_copy(update={"topic_prefix": f"{way.replace(' ', '-')}."})
    variables = environment(stack_settings.model_copy(update={"kafka": kafka}), aws)
    variables = {name: value for name, value in variables.items() if not name.startswith("AWS_")} | stock.variables
    with open_graph(stack_settings.neo4j) as driver:
        empty(driver)
        with serving(variables, folder, "--intel-actors", "2"):
            began_s = time.monotonic()
            if way == "command":
                run(["cartoray.cli.main", "cartography", "--", *command(aws)], variables, folder)
            else:
                sync = ["sync", "--json", "--accounts-file", "accounts", "--region", ",".join(aws.regions)]
                wrapped = ["--wrapped"] if way == "wrapped jobs" else []
                done = cartoray(*sync, *wrapped, environment=variables, folder=folder, timeout_s=900).expect(3)
                # whose calls the simulated AWS cannot be asked
                failed = {failure["job"].rpartition("/")[2] for failure in done.result["failures"]}
                assert (failed, done.result["skipped"]) == (UNANSWERED, [])
                print(f"{done.result['jobs']['total']} jobs")
            print(f"{way}: {time.monotonic() - began_s:.0f} s")
        nodes, edges = content(driver)
    print(f"{stock.nodes.total()} nodes, {stock.edges.total()} relationships")
    differences = [
        f"{what} {count} × {text}"
        for what, left, right in (
            ("missing", stock.nodes, nodes),
            ("extra", nodes, stock.nodes),
            ("missing", stock.edges, edges),
            ("extra", edges, stock.edges),
        )
        for text, count in (left - right).items()
    ]
    print(f"{sum(bool(KNOWN.match(each)) for each in differences)} known differences, see docs/parity.md")
    differences = [each for each in differences if not KNOWN.match(each)]
    assert stock.nodes.total() > 500
    assert not differences, "\n".join([f"{len(differences)} differences", *differences[:60]])
