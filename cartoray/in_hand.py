"""What a member of a consumer group has in hand: how far its partitions are done, and what its process may die of."""

from __future__ import annotations

import logging
from collections.abc import Collection

from cartoray.deaths import Deaths
from cartoray.errors import KafkaUnavailable
from cartoray.events import Place
from cartoray.kafka import GroupConsumer
from cartoray.offsets import OffsetTracker

log = logging.getLogger(__name__)


class InHand:
    """The messages from delivery to their end. One thread uses it, that of the consumer."""

    def __init__(self, deaths_max: int) -> None:
        self.deaths = Deaths(deaths_max)
        self._tracker = OffsetTracker()

    def deliver(self, place: Place) -> None:
        """A message was polled. Raises IllegalTransition."""
        self._tracker.deliver(*place)

    def complete(self, places: Collection[Place]) -> None:
        """They need no redelivery; `commit` tells Kafka."""
        for place in places:
            self._tracker.complete(*place)
            self.deaths.ended(place)

    def commit(self, consumer: GroupConsumer, partitions: Collection[int], *, leaving: bool = False) -> None:
        """How far these are done, and what has begun. Blocks for the answer; what fails is tried again."""
        positions = {at: offset for at in partitions if (offset := self._tracker.position(at)) is not None}
        texts = {at: self.deaths.text(at, offset, leaving=leaving) for at, offset in positions.items()}
        consumer.commit(positions, texts)

    def assigned(self, consumer: GroupConsumer, partitions: Collection[int]) -> None:
        """Learns what those had in hand that died with these. Blocks for the answer."""
        try:
            committed = consumer.committed(partitions)
        except KafkaUnavailable as error:  # a death is forgotten then, no message
            log.warning("deaths_unknown reason=%s", error)
            return
        for partition, (offset, text) in committed.items():
            self.deaths.assigned(partition, offset, text)
            if text:
                log.warning("member_died_before partition=%d offset=%d in_hand=%s", partition, offset, text)

    def revoked(self, consumer: GroupConsumer, partitions: Collection[int]) -> None:
        """Commits what is done, and forgets the rest: another member has these partitions next."""
        self.commit(consumer, partitions, leaving=True)
        for partition in partitions:
            self._tracker.revoke(partition)
            self.deaths.revoked(partition)
