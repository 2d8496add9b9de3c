"""Ways to find in Neo4j the rows whose node is as it should be: `make bench-comparing`, for docs/ingestion.md.

One writer, transactions of 1,000 rows, EC2 instances of which all are there as they are; the best of several rounds.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import neo4j
import neo4j.time
import typer

from bench.ingestion import PATH, REGION, instances, server
from cartoray.graph_driver import open_driver
from ingestion.statements import statements

_ID = "InstanceId"
_NONE = neo4j.time.Duration(months=-1)


def ways() -> dict[str, str]:
    """Statements by what they do. They take $rows, $loads and $none, and answer the numbers of the rows they found."""
    schema = statements(PATH)
    assert schema.compare is not None
    match, rest = schema.compare.query.split("WITH i, item, load, properties(i) AS node\n")
    has, wants = (
        re.findall(rf"\[(.+)\] AS {side}\b", rest)[0].split("[", side == "has")[-1] for side in ("has", "wants")
    )
    values = re.findall(r"coalesce\((.+?), \$none\)(?:, |$)", wants)
    pairs = list(zip(schema.compare.names, values, strict=True))
    answer = f"RETURN collect(item[{len(schema.fields) + 1}])"
    touch = f"{rest[rest.index('SET ') : rest.index('WITH row')]}{answer}"
    equal = " AND ".join(f"coalesce(i.{name} = {value}, i.{name} IS NULL AND {value} IS NULL)" for name, value in pairs)
    wanted = ", ".join(f"{name}: {value}" for name, value in pairs)
    by_key = "coalesce(has[name] = wants[name], has[name] IS NULL AND wants[name] IS NULL)"
    slim = "UNWIND $slim AS item\nWITH item, $loads[item[1]] AS load\nMATCH (i:AWSEC2Instance{id: item[0]})\n"
    slim_touch = f"SET i.lastupdated = load.lastupdated\n{answer.replace(str(len(schema.fields) + 1), '2')}"
    carries = "AND " if " WHERE " in match else "WHERE "
    return {
        "every value, two lists of what properties() gives; which differ is answered (taken)": schema.compare.query,
        "every value, two lists of what properties() gives": (
            f"{match}WITH i, item, load, properties(i) AS node\nWHERE [{has}] = [{wants}]\n{touch}"
        ),
        "every value, two lists of properties": f"{match}{carries}[{has.replace('node.', 'i.')}] = [{wants}]\n{touch}",
        "every value, a predicate over the keys": (
            f"{match}WITH i, item, load, properties(i) AS has, {{{wanted}}} AS wants\n"
            f"WHERE all(name IN keys(wants) WHERE {by_key})\n{touch}"
        ),
        "every value, a condition each": f"{match}{carries}{equal}\n{touch}",
        "none: all values sent, `lastupdated` set": f"{match}{touch}",
        "none: all values sent, node matched": f"{match}{answer}",
        "a fingerprint on the node, `lastupdated` set": f"{slim}WHERE i._fingerprint = item[3]\n{slim_touch}",
        "a fingerprint on the node": f"{slim}WHERE i._fingerprint = item[3]\n{slim_touch.splitlines()[-1]}",
    }


def bench(
    rows: Annotated[int, typer.Option(help="in all, over 20 accounts")] = 20_000,
    rounds: Annotated[int, typer.Option(help="of which the best counts")] = 6,
) -> None:
    """Prints a table of rows a second."""
    schema = statements(PATH)
    data = instances(rows, 0)
    loads = [{"AWS_ID": account, "Region": REGION, "lastupdated": 1} for account in data]
    every = [
        (*(row.get(field) for field in schema.fields), load, number)
        for load, own in enumerate(data.values())
        for number, row in enumerate(own)
    ]
    slim = [(row[schema.fields.index(_ID)], row[-2], row[-1], 2**62 + 1) for row in every]
    with server("4g") as settings, open_driver(settings.neo4j, "bench") as driver, driver.session() as session:
        for index in schema.indexes:
            session.run(index.query).consume()
        _time(session, schema.nodes or "", loads, every, slim)
        session.run("MATCH (i:AWSEC2Instance) SET i._fingerprint = $it", it=2**62 + 1).consume()
        best: dict[str, float] = {}
        for _ in range(rounds):  # all of them in each: the server gets faster for a while
            for name, query in ways().items():
                seconds = _time(session, query, loads, every, slim)
                best[name] = min(seconds, best.get(name, seconds))
        print(f"{rows:,} rows\n\n| what is compared | rows/s |\n|---|---|")
        for name, seconds in best.items():
            print(f"| {name} | {rows / seconds:,.0f} |")


def _time(
    session: neo4j.Session,
    query: str,
    loads: Sequence[Mapping[str, Any]],
    every: Sequence[Any],
    slim: Sequence[Any],
) -> float:
    """Seconds. Exits when a statement that finds rows has not found all."""
    began_s, found = time.monotonic(), 0
    for start in range(0, len(every), 1_000):
        some = {"rows": every[start : start + 1_000]} if "$rows" in query else {"slim": slim[start : start + 1_000]}
        with session.begin_transaction() as transaction:
            result = transaction.run(query, some, loads=loads, none=_NONE)
            found += sum(len(numbers) for numbers in result.value())
            transaction.commit()
    seconds = time.monotonic() - began_s
    if "RETURN" in query and found != len(every):
        raise SystemExit(f"{found} of {len(every)} rows were found by {query}")
    return seconds


if __name__ == "__main__":
    typer.run(bench)
