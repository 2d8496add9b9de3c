"""The ingestion pool's member. `ray.remote` is applied by the driver, so this file does not load Ray."""

from __future__ import annotations

from cartoray.member import Member
from cartoray.settings import Settings, as_pool
from ingestion.sink import Sink


class IngestionActor(Member):
    """Takes rows and steps, writes the graph."""

    def make(self, settings: Settings, name: str) -> Sink:
        return Sink(as_pool(settings, "ingestion"), name)
