"""A million rows wait in Kafka, and are then in the graph: memory of a member, and what it costs that they are there.

`make bench-backlog`. Rows are EC2 instances, as in `bench.ingestion`. First the works are timed on 10,000 rows in an
empty graph. Then `--rows` of them are published at once, and the pool takes them in: its peak memory is what it needs
while everything waits. Then the works are timed again, on 10,000 other rows beside these.
"""

from __future__ import annotations

import statistics
from typing import Annotated

import typer

from bench.ingestion import WORK, instances, pool, server
from cartoray.graph_driver import open_driver

BLOCK = 10_000


def bench(
    rows: Annotated[int, typer.Option(help="that wait, over 20 accounts")] = 1_000_000,
    rounds: Annotated[int, typer.Option(help="of the works, of which the median counts")] = 3,
    members: Annotated[int, typer.Option(help="of the pool")] = 2,
    heap: Annotated[str, typer.Option(help="of Neo4j")] = "4g",
    pagecache: Annotated[str, typer.Option(help="of Neo4j; a million of these nodes take some 3 GB on disk")] = "6g",
) -> None:
    """Prints the peak memory of a member, and a table of rows a second."""
    with server(heap, pagecache) as (settings, _), open_driver(settings.neo4j, "bench") as driver:
        driver.execute_query("UNWIND $ids AS id MERGE (:AWSAccount{id: id})", ids=list(instances(20, 0)))
        with pool(settings, members) as send:
            tag = 1
            table: list[list[float]] = []
            first = 0
            for waiting in (0, rows):
                if waiting:
                    seconds = send(instances(waiting, 0, first), tag)
                    first += waiting // 20
                    print(f"{waiting:,} rows landed at {waiting / seconds:,.0f} rows/s", flush=True)
                found: list[list[float]] = [[] for _ in WORK]
                for number in range(rounds + 1):  # the first one does not count: a server gets faster
                    for at, work in enumerate(WORK):
                        tag += 1
                        seconds = send(instances(BLOCK, work.stage, first), tag, work.touch)
                        if number:
                            found[at].append(BLOCK / seconds)
                    first += BLOCK // 20
                table.append([statistics.median(each) for each in found])
    print(f"\n{members} members, {heap} of heap, median of {rounds}\n")
    print(f"| work on {BLOCK:,} rows | into a small graph | beside {rows:,} rows | of that |")
    print("|---|---|---|---|")
    for work, small, large in zip(WORK, *table, strict=True):
        print(f"| {work.name} | {small:,.0f} | {large:,.0f} | {100 * large / small:.0f} % |")


if __name__ == "__main__":
    typer.run(bench)
