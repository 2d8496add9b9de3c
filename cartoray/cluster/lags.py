"""How far the pools are behind: one thread measures, the driver looks."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from cartoray.errors import CartorayError, KafkaRefused
from cartoray.kafka import GroupLag
from cartoray.settings import KafkaSettings, PoolName
from cartoray.topics import group, topics

log = logging.getLogger(__name__)

_MEASURE_EVERY_S = 1.0
_CLOSE_S = 2.0


@dataclass(frozen=True)
class Lag:
    """`messages` that the pool has not done, of a topic with so many `partitions`."""

    messages: int
    partitions: int


class Lags:
    """Measures while its block lasts. Where Kafka does not answer nothing is measured, and pools stay as they are."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._measured: dict[PoolName, Lag] = {}
        self._refused: KafkaRefused | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._measure, name="lags", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._closed.set()
        self._thread.join(_CLOSE_S)

    def take(self, pool: PoolName) -> Lag | None:
        """What was measured last, if it was not taken before. Raises KafkaRefused where it may not be measured."""
        if self._refused is not None:
            raise self._refused
        return self._measured.pop(pool, None)

    def _measure(self) -> None:
        names = topics(self._settings)
        measures: dict[PoolName, GroupLag] = {
            "intel": GroupLag(self._settings, names.jobs.name, group(self._settings, "intel")),
            "ingestion": GroupLag(self._settings, names.data.name, group(self._settings, "ingestion")),
        }
        while not self._closed.wait(_MEASURE_EVERY_S):
            for pool, measure in measures.items():
                try:
                    messages = measure.messages()
                except KafkaRefused as error:
                    self._refused = error
                except CartorayError as error:
                    log.info("lag_unknown pool=%s reason=%s", pool, error)
                else:
                    self._measured[pool] = Lag(messages, measure.partitions)
        for measure in measures.values():
            measure.close()
