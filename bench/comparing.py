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
from ingestion.fingerprint import PROPERTY
from ingestion.statements import recognition, statements

_ID = "InstanceId"
_FINGERPRINT = 2**62 + 1
_NONE = neo4j.time.Duration(months=-1)


def ways() -> dict[str, str]:
    """Statements by what they do. They take $rows or $keys, $loads and $none, and answer an entry per row found."""
    schema, taken = statements(PATH), recognition(PATH, frozenset())
    assert schema.compare is not None
    assert taken is not None
    assert taken.lazy is not None
    match, rest = schema.compare.query.split("WITH i, item, load, properties(i) AS node\n")
    has, wants = (
        re.findall(rf"\[(.+)\] AS {side}\b", rest)[0].split("[", side == "has")[-1] for side in ("has", "wants")
    )
    values = re.findall(r"coalesce\((.+?), \$none\)(?:, |$)", wants)
    pairs = list(zip(schema.compare.names, values, strict=True))
    answer = f"RETURN collect(item[{len(schema.fields) + 1}])"
    touched = f"{rest[rest.index('SET ') : rest.index('WITH item[')]}{answer}"
    equal = " AND ".join(f"coalesce(i.{name} = {value}, i.{name} IS NULL AND {value} IS NULL)" for name, value in pairs)
    wanted = ", ".join(f"{name}: {value}" for name, value in pairs)
    by_key = "coalesce(has[name] = wants[name], has[name] IS NULL AND wants[name] IS NULL)"
    slim = (
        "UNWIND $keys AS item\nWITH item, $loads[item[1]] AS load\n"
        f"MATCH (i:AWSEC2Instance{{id: item[0]}}) WHERE i.{PROPERTY} = item[3]\n"
    )
    found = "RETURN collect(item[2])"
    carries = "AND " if " WHERE " in match else "WHERE "
    return {
        "every value, two lists of what properties() gives; which differ is answered": schema.compare.query,
        "every value, two lists of what properties() gives": (
            f"{match}WITH i, item, load, properties(i) AS node\nWHERE [{has}] = [{wants}]\n{touched}"
        ),
        "every value, two lists of properties": (
            f"{match}{carries}[{has.replace('node.', 'i.')}] = [{wants}]\n{touched}"
        ),
        "every value, a predicate over the keys": (
            f"{match}WITH i, item, load, properties(i) AS has, {{{wanted}}} AS wants\n"
            f"WHERE all(name IN keys(wants) WHERE {by_key})\n{touched}"
        ),
        "every value, a condition each": f"{match}{carries}{equal}\n{touched}",
        "none: all values sent, `lastupdated` set": f"{match}{touched}",
        "none: all values sent, node matched": f"{match}{answer}",
        "a fingerprint on the node; `lastupdated` of node and relationship to its account set": taken.query,
        "a fingerprint on the node; that it has that relationship, and no other account": taken.lazy,
        "a fingerprint on the node, `lastupdated` set": f"{slim}SET i.lastupdated = load.lastupdated\n{found}",
        "a fingerprint on the node": f"{slim}{found}",
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
        [*(row.get(field) for field in schema.fields), load, number, _FINGERPRINT]
        for load, own in enumerate(data.values())
        for number, row in enumerate(own)
    ]
    keys = [[row[schema.fields.index(_ID)], *row[-3:]] for row in every]
    to_account = next(each for each in schema.relationships if each.touched)
    with server("4g") as (settings, _), open_driver(settings.neo4j, "bench") as driver, driver.session() as session:
        for index in schema.indexes:
            session.run(index.query).consume()
        _time(session, schema.nodes or "", loads, every, keys)
        for number, load in enumerate(loads):
            session.run("MERGE (:AWSAccount {id: $AWS_ID})", load).consume()
            own = [[id_, row, 0] for id_, of, row, _ in keys if of == number]
            session.run(to_account.query, loads=[{**load, "rows": own}]).consume()
        best: dict[str, float] = {}
        for _ in range(rounds):  # all of them in each: the server gets faster for a while
            for name, query in ways().items():
                seconds = _time(session, query, loads, every, keys)
                best[name] = min(seconds, best.get(name, seconds))
        print(f"{rows:,} rows\n\n| what is compared | rows/s |\n|---|---|")
        for name, seconds in best.items():
            print(f"| {name} | {rows / seconds:,.0f} |")


def _time(
    session: neo4j.Session,
    query: str,
    loads: Sequence[Mapping[str, Any]],
    every: Sequence[Any],
    keys: Sequence[Any],
) -> float:
    """Seconds. Exits when a statement that finds rows has not found all."""
    began_s, found = time.monotonic(), 0
    for start in range(0, len(every), 1_000):
        some = {"rows": every[start : start + 1_000]} if "$rows" in query else {"keys": keys[start : start + 1_000]}
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
