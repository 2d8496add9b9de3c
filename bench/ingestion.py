"""Rows a second into one Neo4j: stock Cartography's `load()` against the ingestion pool, `make bench-ingestion`.

Both sides write the same EC2 instances (34 fields, 47 properties, 3 labels, one relationship to their account) into the
same server, empty at first, with neo4j-rust-ext. Stock calls `load()` for one account after the other, with its own
batch size. cartoray has the rows come through Kafka: timed is from the first message published until all are in the
database, with members of the pool that are up. After each work the two graphs are compared, all that stock has but
`firstseen`, and `lastupdated` where that is not written.

What a server can take at most is shown by `CREATE`: the same graph from lists of ready properties, by some processes at
once, without looking for anything but the account.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import resource
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import neo4j
import psutil
import typer
from cartography.client.core.tx import load
from cartography.models.aws.ec2.instances import EC2InstanceSchema

from bench.wrapped import EMPTY, run_command
from cartoray import settings as settings_of
from cartoray import wire
from cartoray.events import EVENT, BatchLanded
from cartoray.graph_driver import open_driver
from cartoray.jobs import Touch
from cartoray.kafka import Admin, Follower, Publisher
from cartoray.schemas import constants, fields, path_of
from cartoray.settings import Settings, StackSettings
from cartoray.stack.state import StateFolder
from cartoray.topics import topics
from ingestion.fingerprint import PROPERTY
from ingestion.sink import Sink
from ingestion.statements import LAZY_RUNS

PATH = path_of(EC2InstanceSchema())
REGION = "us-east-1"
ROWS_PER_MESSAGE = 1_000


@dataclass(frozen=True)
class Work:
    """`stage`: what EC2 has by then, see `_instance`."""

    name: str
    stage: int
    touch: Touch = "always"


WORK = (
    Work("first load", 0),
    Work("nothing changed, `lastupdated` exact", 0),
    Work("nothing changed, lazy", 0, "lazy"),
    Work("1 % changed, `lastupdated` exact", 1),
    Work("1 % changed, lazy", 2, "lazy"),
    Work("all changed in one property", 3),
)
Rows = dict[str, list[dict[str, Any]]]  # by account


def bench(
    rows: Annotated[int, typer.Option(help="in all, over 20 accounts")] = 100_000,
    rounds: Annotated[int, typer.Option(help="of which the median counts")] = 3,
    heap: Annotated[str, typer.Option(help="of Neo4j; stock's transactions of 10,000 rows need more than 2 GB")] = "4g",
    members: Annotated[str, typer.Option(help="of the pool, comma between")] = "2,4",
    creators: Annotated[str, typer.Option(help="processes that only CREATE, comma between")] = "1,2,4",
) -> None:
    """Prints a table of rows a second."""
    sides = ["stock", *(f"cartoray, {count}" for count in members.split(","))]
    rates: dict[str, list[list[float]]] = {side: [] for side in sides}
    created: dict[str, list[float]] = {count: [] for count in creators.split(",")}
    with server(heap) as (settings, pids):
        for number in range(rounds + 1):  # the first one, with fewer rows, does not count: a server gets faster
            wanted: list[str] = []
            some, base_tag = (rows if number else rows // 5), 1_000 * (1 + number)
            for side in sides:
                count = int(side.rpartition(" ")[2]) if side != "stock" else 0
                found, digests = _play(settings, pids, some, count, base_tag)
                wanted = wanted or digests
                if digests != wanted:
                    raise SystemExit(f"{side} made another graph than stock")
                if number:
                    rates[side].append(found)
                    print(f"{side}: {', '.join(f'{rate:,.0f}' for rate in found)} rows/s", flush=True)
            for each, of in created.items():
                rate, digest = _create(settings, int(each), some, base_tag)
                if digest != wanted[0]:
                    raise SystemExit("CREATE made another graph than stock")
                if number:
                    of.append(rate)
                    print(f"CREATE, {each} processes: {rate:,.0f} rows/s", flush=True)
    print(f"\n{rows:,} rows, {os.cpu_count()} cores, {heap} of heap, median of {rounds}\n")
    print("| work | " + " | ".join(f"{side}{' writers' if side != 'stock' else ''}" for side in sides) + " |")
    print("|---" * (1 + len(sides)) + "|")
    medians = {side: [statistics.median(of) for of in zip(*rates[side], strict=True)] for side in sides}
    for at, work in enumerate(WORK):
        cells = (f"{medians[side][at]:,.0f}, {medians[side][at] / medians['stock'][at]:.1f} ×" for side in sides)
        print(f"| {work.name} | {' | '.join(cells)} |")
    most = {count: statistics.median(of) for count, of in created.items()}
    print(f"\nCREATE by {', '.join(f'{count}: {rate:,.0f} rows/s' for count, rate in most.items())}")
    ours = max(medians[side][0] for side in sides[1:])
    print(f"first load against the best of these: {100 * ours / max(most.values()):.0f} %")


def _play(
    settings: Settings, pids: Mapping[str, int], count: int, members: int, base_tag: int
) -> tuple[list[float], list[str]]:
    """Rows a second of each work, and digests of the graphs that they made."""
    found, digests = [], []
    with open_driver(settings.neo4j, "bench") as driver, driver.session() as session:
        session.run(EMPTY).consume()
        for account in instances(count, 0):
            session.run("MERGE (a:AWSAccount{id: $id})", id=account).consume()
        with pool(settings, members) if members else _nothing() as send:
            for at, work in enumerate(WORK):
                data, tag, before = instances(count, work.stage), base_tag + at, _cpu_s(pids)
                if send is None:
                    began_s = time.monotonic()
                    for account, rows in data.items():
                        load(session, EC2InstanceSchema(), rows, lastupdated=tag, AWS_ID=account, Region=REGION)
                    seconds = time.monotonic() - began_s
                else:
                    seconds = send(data, tag, work.touch)
                used = {name: (after_s - before[name]) / count for name, after_s in _cpu_s(pids).items()}
                said = ", ".join(f"{name} {1e6 * cpu_s:.0f}" for name, cpu_s in used.items())
                print(f"    {work.name}: {count / seconds:,.0f} rows/s; CPU a row, µs: {said}", flush=True)
                found.append(count / seconds)
                digests.append(_digest(session, None if work.touch == "lazy" else base_tag))
    return found, digests


def _cpu_s(pids: Mapping[str, int]) -> dict[str, float]:
    """Seconds of CPU that each server has taken, and the children of this process, which are the members."""
    of = {name: [psutil.Process(pid)] for name, pid in pids.items()} | {"members": psutil.Process().children()}
    return {name: sum(sum(process.cpu_times()[:2]) for process in processes) for name, processes in of.items()}


@contextmanager
def _nothing() -> Iterator[None]:
    yield None


@contextmanager
def pool(settings: Settings, members: int) -> Iterator[Any]:
    """Members of the pool, each a process; what is yielded sends rows, and answers the seconds until all landed."""
    kafka = settings.kafka.model_copy(update={"topic_prefix": f"bench{time.monotonic_ns()}."})
    settings = settings.model_copy(update={"kafka": kafka})
    names = topics(kafka)
    Admin(kafka).ensure(names)
    context = multiprocessing.get_context("spawn")
    stop, peaks = context.Event(), context.SimpleQueue()
    processes = [
        context.Process(target=_member, args=(settings, f"ingestion-{at}", stop, peaks)) for at in range(members)
    ]
    for process in processes:
        process.start()
    publisher = Publisher(kafka, "bench")
    follower = Follower(kafka, names.events.name, "bench", from_end=True)
    time.sleep(8)  # until they have their partitions

    def send(data: Rows, tag: int, touch: Touch = "always") -> float:
        messages = list(_messages(data, tag, touch))
        began_s, landed = time.monotonic(), 0
        for key, value, headers in messages:
            publisher.publish(names.data.name, key, value, headers)
        while landed < sum(map(len, data.values())):
            for message in follower.poll(0.5):
                event = EVENT.validate_json(message.value)
                if isinstance(event, BatchLanded):
                    landed += sum(event.rows)
        return time.monotonic() - began_s

    try:
        yield send
    finally:
        stop.set()
        for process in processes:
            process.join()
        print(f"peak memory of a member: {max(peaks.get() for _ in processes) / 1024:.0f} MB", flush=True)
        publisher.close()
        follower.close()


def _member(settings: Settings, name: str, stop: Any, peaks: Any) -> None:
    ended = threading.Event()
    threading.Thread(target=lambda: (stop.wait(), ended.set()), daemon=True).start()
    try:
        Sink(settings, name).run(ended)
    finally:
        peaks.put(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # in KB


def _messages(data: Rows, tag: int, touch: Touch) -> Iterator[tuple[bytes, bytes, list[tuple[str, bytes]]]]:
    for account, rows in data.items():
        known = {"lastupdated": tag, "AWS_ID": account, "Region": REGION}
        shared = {name: known[name] for name in constants(PATH)}
        for sequence, start in enumerate(range(0, len(rows), ROWS_PER_MESSAGE)):
            table = wire.encode_rows(rows[start : start + ROWS_PER_MESSAGE], fields(PATH))
            for value in wire.split(table, 900_000):
                run = f"run-{tag}"
                job_id = f"{run}/{account}/ec2:instance"
                header = wire.RowsHeader(run, tag, job_id, "a", sequence, PATH, shared, touch)
                yield account.encode(), value, wire.rows_headers(header)


def instances(count: int, stage: int, first: int = 0) -> Rows:
    """What EC2 has at a stage, by account: numbers from `first` on."""
    accounts = [f"{number:012}" for number in range(1, 21)]
    numbers = range(first, first + count // len(accounts))
    return {account: [_instance(account, at, stage) for at in numbers] for account in accounts}


def _instance(account: str, at: int, stage: int) -> dict[str, Any]:
    """From stage 1 on one in a hundred is stopped, from 2 on another one, from 3 on all have another property."""
    fixed = {name: f"{name}-{at % 50}" for name in fields(PATH)}
    none = dict.fromkeys(("ReservationId", "IamInstanceProfile", "EksClusterName", "HostResourceGroupArn"))
    return {
        **fixed,
        **none,
        "InstanceId": f"i-{account}-{at:06}",
        "Arn": f"arn:aws:ec2:{REGION}:{account}:instance/i-{at:06}",
        "PrivateIpAddress": f"10.{at >> 16 & 255}.{at >> 8 & 255}.{at & 255}",
        "LaunchTimeUnix": 1_600_000_000 + at,
        "EbsOptimized": at % 2 == 0,
        "MonitoringState": "changed" if stage == 3 else "disabled",
        "State": "stopped" if at % 100 < min(stage, 2) else "running",
    }


def _create(settings: Settings, processes: int, count: int, base_tag: int) -> tuple[float, str]:
    """Rows a second, and the digest of the graph, which was the one of a first load before."""
    with open_driver(settings.neo4j, "bench") as driver, driver.session() as session:
        session.run(EMPTY).consume()
        data = instances(count, 0)
        for account in data:
            session.run("MERGE (a:AWSAccount{id: $id})", id=account).consume()
        sample = {account: rows[:1] for account, rows in data.items()}
        for account, rows in sample.items():
            load(session, EC2InstanceSchema(), rows, lastupdated=base_tag, AWS_ID=account, Region=REGION)
        query = "MATCH (:AWSAccount{id: $id})-[r]->(n) RETURN labels(n) AS labels, properties(n), properties(r)"
        made = {account: session.run(query, id=account).single(strict=True).values() for account in data}
        session.run("MATCH (n:AWSEC2Instance) DETACH DELETE n").consume()
        work = []
        for account, rows in data.items():
            labels, node, relationship = made[account]
            # no two fields of a row have the same value, and what is no field's is the same for all rows
            field_of = {name: field for name, value in node.items() for field in rows[0] if rows[0][field] == value}
            ready = [node | {name: row[field] for name, field in field_of.items()} for row in rows]
            names = sorted(ready[0])
            created = ", ".join(f"{name}: row[{place}]" for place, name in enumerate(names))
            query = (
                "MATCH (a:AWSAccount{id: $id}) UNWIND $rows AS row "
                f"CREATE (a)-[r:RESOURCE]->(n:{':'.join(labels)} {{{created}}}) SET r = $relationship"
            )
            work.append((query, account, [[row[name] for name in names] for row in ready], relationship))
        context = multiprocessing.get_context("spawn")
        begin = context.Barrier(processes + 1)
        creators = [
            context.Process(target=_creator, args=(settings, work[at::processes], begin)) for at in range(processes)
        ]
        for process in creators:
            process.start()
        begin.wait()
        began_s = time.monotonic()
        for process in creators:
            process.join()
        return count / (time.monotonic() - began_s), _digest(session, base_tag)


def _creator(settings: Settings, work: list[Any], begin: Any) -> None:
    with open_driver(settings.neo4j, "bench") as driver, driver.session() as session:
        session.run("RETURN 1").consume()
        begin.wait()
        for query, account, rows, relationship in work:
            for start in range(0, len(rows), ROWS_PER_MESSAGE):
                some = rows[start : start + ROWS_PER_MESSAGE]
                session.run(query, id=account, rows=some, relationship=relationship).consume()


def _digest(session: neo4j.Session, base_tag: int | None) -> str:
    """Of all nodes and relationships with all properties that stock has but `firstseen`; tags count from `base_tag`.

    None: without tags.
    """
    query = """
    MATCH (n) OPTIONAL MATCH (n)<-[r]-(m)
    RETURN labels(n) AS labels, properties(n) AS node, type(r) AS type, properties(r) AS relationship, m.id AS other
    ORDER BY n.id
    """
    digest = hashlib.sha256()
    for labels, node, kind, relationship, other in session.run(query):
        for properties in (node, relationship or {}):
            for name in ("firstseen", PROPERTY, LAZY_RUNS):
                properties.pop(name, None)
            tag = properties.pop("lastupdated", None)
            if tag is not None and base_tag is not None:
                properties["lastupdated"] = tag - base_tag
        digest.update(json.dumps([sorted(labels), node, kind, relationship, other], sort_keys=True).encode())
    return digest.hexdigest()


@contextmanager
def server(heap: str, pagecache: str = "1g") -> Iterator[tuple[Settings, Mapping[str, int]]]:
    """Settings that lead to a Kafka and a Neo4j, and their process ids."""
    folder = Path(tempfile.mkdtemp(prefix="cartoray-bench-"))
    os.environ |= {"CARTORAY_STACK_NEO4J_HEAP": heap, "CARTORAY_STACK_NEO4J_PAGECACHE": pagecache}
    try:
        run_command(folder, "up")
        servers = StateFolder(folder / StackSettings().state_dir).read().servers.values()
        pids = {each.name: each.pid for each in servers if each.pid is not None}
        yield settings_of.load(directory=folder).settings, pids
    finally:
        run_command(folder, "down", "--wipe")
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    typer.run(bench)
