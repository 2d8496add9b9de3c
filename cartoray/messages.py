"""A message as it was read from a topic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cartoray.events import Place


@dataclass(frozen=True)
class Message:
    """A Kafka message. Header values are bytes; of a header that occurs twice, the last counts."""

    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes
    headers: Mapping[str, bytes]

    @property
    def place(self) -> Place:
        return self.partition, self.offset
