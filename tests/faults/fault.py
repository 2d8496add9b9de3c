"""What a fault is."""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from faults.plan import Kind
from faults.world import Progress, World

from cartoray.completion import Outcome
from cartoray.events import BatchLanded, JobEnded, JobStarted, StepLanded


class Missed(Exception):
    """The sync was over, or had nothing to strike, before the fault came to it."""


class Fault(ABC):
    """Something that goes wrong in `world` while `run_id` is under way. Made anew for each time.

    `inject` answers what it struck, in words; `heal` is called after the planned seconds, and brings back what does not
    come back by itself.
    """

    kind: ClassVar[Kind]
    may_end: ClassVar[frozenset[Outcome]] = frozenset({Outcome.COMPLETE})
    """How the run may end. Where it need not be complete, another sync follows, and that one's graph is compared."""
    goes_on_with: ClassVar[tuple[type[Progress], ...]] = (JobStarted, JobEnded, BatchLanded, StepLanded)
    """Of these events, the first after the fault says that the sync goes on."""

    def __init__(self, world: World, run_id: str, draw: random.Random) -> None:
        self.world, self.run_id, self.draw = world, run_id, draw

    @abstractmethod
    def inject(self) -> str:
        """Strikes. May wait until there is something to strike. Raises Missed."""

    def heal(self) -> None:  # noqa: B027
        """Nothing to do where cartoray heals itself."""

    def is_over(self) -> bool:
        """Whether what it struck is as it was; beside that, the sync must have gone on."""
        return True

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Waits while the sync is under way. Raises Missed."""
        while not condition():
            if self.world.events.is_complete(self.run_id):
                raise Missed(f"the sync was complete before there was {what}")
            time.sleep(0.02)
