"""`make test-faults`: whole syncs under faults, from a seed that is printed and can be given again."""

from __future__ import annotations

import json
import secrets
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from faults.plan import plan
from faults.running import KINDS, Result, Suite, table
from faults.world import MODULES, World
from support.isolation import isolate


def main(  # noqa: PLR0917 - its options
    seed: Annotated[int | None, typer.Option(help="of the plan; none: by chance")] = None,
    faults: Annotated[int, typer.Option(help="at least, those alone counted")] = 200,
    only: Annotated[str, typer.Option(help="faults whose name has this, comma between")] = "",
    cases: Annotated[str, typer.Option(help="numbers of the plan, e.g. 7 or 10-19; none: all")] = "",
    modules: Annotated[str, typer.Option(help="Cartography's names, comma between")] = MODULES,
    minutes: Annotated[float, typer.Option(help="after which no case begins any more")] = 600,
    results: Annotated[Path | None, typer.Option(help="file to which each case's result is added, as JSON")] = None,
) -> None:
    """Syncs under faults: alone first, then mixed. Ends with 1 if anything was lost, left over or stuck."""
    seed = secrets.randbelow(10**6) if seed is None else seed
    kinds = [kind for name, kind in KINDS.items() if not only or any(each in name for each in only.split(","))]
    planned = plan(seed, kinds, faults)
    first, _, last = cases.partition("-")
    chosen = [case for case in planned if not first or int(first) <= case.number <= int(last or first)]
    print(f"seed {seed}: {len(planned)} cases, {sum(len(case.faults) for case in planned)} faults", flush=True)
    began_s, found = time.monotonic(), list[Result]()
    folder = Path(tempfile.mkdtemp(prefix="cartoray-faults-"))
    print(f"logs: {folder}", flush=True)
    with World(folder, names=modules) as world:
        suite = Suite(world)
        suite.undisturbed()
        print(f"a sync without faults takes {suite.sync_s:.1f} s", flush=True)
        for case in chosen:
            if time.monotonic() - began_s > minutes * 60:
                print(f"time is up before case {case.number}")
                break
            result = suite.run(case)
            found.append(result)
            tell(result)
            if results is not None:
                with results.open("a") as file:
                    file.write(json.dumps({"seed": seed, **asdict(result)}) + "\n")
    for line in table(found):
        print(line)
    wrong = [result for result in found if result.wrong]
    struck = sum(not each.missed for result in found for each in result.struck)
    print(f"seed {seed}: {struck} faults in {len(found)} syncs, {len(wrong)} of them went wrong")
    sys.exit(bool(wrong))


def tell(result: Result) -> None:
    case = result.case
    outcome = "WRONG" if result.wrong else "same graph"
    over = "an empty graph" if case.fresh else "what the last left"
    print(f"case {case.number} ({case.ray} Ray, over {over}), {result.seconds:.1f} s: {outcome}", flush=True)
    for struck in result.struck:
        print(f"  {struck}", flush=True)
    for line in result.wrong[:20]:
        print(f"  ! {line}", flush=True)


if __name__ == "__main__":
    isolate()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers and workers end as well
    typer.run(main)
