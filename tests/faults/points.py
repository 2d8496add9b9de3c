"""Members that die at a point of their work when a file asks for it. Production code has no such thing.

`FAULT_POINTS` names a folder. Whoever reaches a point for which there is a file, `ingestion.after_write` say, takes the
file away and is killed at that instant; exactly one of several that reach it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import actors.intel_actor
import ingestion.ingestion_actor
from actors.aws.clients import AwsCloud
from actors.worker import Worker
from cartoray.settings import Settings
from ingestion.sink import Sink

FOLDER = "FAULT_POINTS"


def dies(pool: str) -> Callable[[str], None]:
    folder = Path(os.environ[FOLDER])

    def on_point(name: str) -> None:
        try:
            (folder / f"{pool}.{name}").unlink()
        except FileNotFoundError:
            return
        os.kill(os.getpid(), signal.SIGKILL)

    return on_point


class IntelActor(actors.intel_actor.IntelActor):
    def make(self, settings: Settings, name: str) -> Worker:
        cloud = AwsCloud(settings.aws, settings.intel.calls_per_actor)
        return Worker(settings, name, cloud, on_point=dies("intel"))


class IngestionActor(ingestion.ingestion_actor.IngestionActor):
    def make(self, settings: Settings, name: str) -> Sink:
        return Sink(settings, name, on_point=dies("ingestion"))
