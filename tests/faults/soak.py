"""`make soak`: syncs over and over, and whether memory, threads, open files and lag stay what they are.

Half of the syncs find what the one before found, half find that things have changed.
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import psutil
import typer
from faults.trend import Bound, Trend, trend
from faults.world import MODULES, World
from support.isolation import isolate

from cartoray.errors import CartorayError

EVERY_S = 2.0
BOUNDS = {
    "memory": Bound("MB", 0.05, 8.0),
    "threads": Bound("threads", 0.0, 2.0),
    "files": Bound("open files", 0.0, 4.0),
    "lag": Bound("messages", 0.0, 100.0),
}
TITLES = {"ray::IntelActor": "intel actor", "ray::IngestionActor": "ingestion actor"}
Series = defaultdict[tuple[str, str], list[tuple[float, float]]]  # (who, what) → (seconds, value)


class Sampler:
    """Looks at all processes of ours, and at the lag of both groups, every `EVERY_S` in a thread of its own."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._ended = threading.Event()
        self.series: Series = defaultdict(list)
        self._began_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(EVERY_S):
            now_s = time.monotonic() - self._began_s
            for who, process in self._processes():
                try:
                    values = {
                        "memory": process.memory_info().rss / 1e6,
                        "threads": float(process.num_threads()),
                        "files": float(process.num_fds()),
                    }
                except psutil.Error:
                    continue
                for what, value in values.items():
                    self.series[who, what].append((now_s, value))
            try:
                for pool, lag in self._world.lags().items():
                    self.series[f"{pool} group", "lag"].append((now_s, float(lag)))
            except CartorayError:
                continue

    def _processes(self) -> Iterator[tuple[str, psutil.Process]]:
        workers = self._world.workers
        if workers is None:
            return
        yield "driver", workers.process
        for title, name in TITLES.items():
            for process in workers.named(title):
                yield f"{name} {process.pid}", process

    def close(self) -> None:
        self._ended.set()
        self._thread.join()


def soak(
    minutes: Annotated[float, typer.Option(help="of syncs")] = 30,
    modules: Annotated[str, typer.Option(help="Cartography's names, comma between")] = MODULES,
    results: Annotated[Path | None, typer.Option(help="file for all samples, as JSON")] = None,
) -> None:
    """Syncs for a while; ends with 1 if anything grew."""
    with World(Path(tempfile.mkdtemp(prefix="cartoray-soak-")), names=modules, latency_ms=20) as world:
        world.prepare("local")
        series = syncs(world, minutes)
    if results is not None:
        results.write_text(json.dumps([[*of, values] for of, values in series.items()]))
    sys.exit(not tell(series))


def syncs(world: World, minutes: float) -> Series:
    """One after the other; what was sampled meanwhile. Ended early, it tells what there is."""
    sampler, began_s, count = Sampler(world), time.monotonic(), 0
    try:
        while time.monotonic() - began_s < minutes * 60:
            world.syncs = []
            world.start_sync()
            world.wait_until_complete()
            count += 1
            if count % 2:
                world.aws.mutate(1000 + count)
    except SystemExit:
        tell(sampler.series)
        raise
    finally:
        sampler.close()
        lasted_min = (time.monotonic() - began_s) / 60
        print(f"{count} syncs in {lasted_min:.1f} minutes; growth is of the line through the samples after the warm-up")
    return sampler.series


def tell(series: Series) -> bool:
    flat = True
    print("| process | what | mean | an hour more | |\n|---|---|---|---|---|")
    for (who, what), samples in sorted(series.items()):
        found: Trend | None = trend(samples)
        if found is None:
            print(f"| {who} | {what} | | | too few samples: {len(samples)} |")
            continue
        is_flat = found.is_flat(BOUNDS[what])
        flat &= is_flat
        unit, verdict = BOUNDS[what].unit, "flat" if is_flat else "GROWS"
        print(f"| {who} | {what} | {found.mean:,.1f} {unit} | {found.an_hour:+,.1f} | {verdict} |")
    return flat


if __name__ == "__main__":
    isolate()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers and workers end as well
    typer.run(soak)
