"""Carries out what `ingestion.recovery` decides about one transaction: the same again, later, or not at all."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import TypeVar

from cartoray.errors import GraphRefused, GraphUnavailable
from ingestion.recovery import Bisect, GiveUp, Halve, Retry, Wait, backoff_s, decide
from ingestion.writer import Abandoned, WriteFailed

log = logging.getLogger(__name__)
T = TypeVar("T")


class Attempts:
    """`pause(seconds)` waits, and answers at once with True when nobody wants the work any more.

    `on_trouble(reason)` hears of every failure, and of the success after it with an empty text.
    """

    def __init__(
        self,
        retries_max: int,
        pause: Callable[[float], bool],
        on_trouble: Callable[[str], None] = lambda _: None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._retries_max = retries_max
        self._pause = pause
        self._on_trouble = on_trouble
        self._jitter = jitter
        self._troubled = False  # also by a transaction that was split: the success of its parts counts

    def run(self, transaction: Callable[[], T], *, splittable: bool) -> T | Halve | Bisect:
        """The transaction's result, or that it must be split, or that its data is at fault.

        Blocks as long as the database is away. Raises GraphRefused, GraphUnavailable (it never succeeded in all the
        attempts that the settings allow) and Abandoned.
        """
        tries = waits = 0  # apart: a long wait takes nothing from the attempts that a transaction has
        while True:
            jitter = self._jitter()
            try:
                result = transaction()
            except WriteFailed as error:
                decision = decide(
                    error.failure,
                    attempt=tries + 1,
                    retries_max=self._retries_max,
                    jitter=jitter,
                    splittable=splittable,
                )
            else:
                if self._troubled:
                    self._on_trouble("")
                    self._troubled = False
                return result
            self._on_trouble(decision.reason)
            self._troubled = True
            log.info("transaction_failed decision=%s reason=%s", type(decision).__name__, decision.reason)
            match decision:
                case Halve() | Bisect():
                    return decision
                case GiveUp():
                    raise (GraphRefused if decision.refused else GraphUnavailable)(decision.reason)
                case Retry():
                    tries += 1
                    delay_s = decision.delay_s
                case Wait():
                    waits += 1
                    delay_s = backoff_s(waits, jitter)
            if self._pause(delay_s):
                raise Abandoned
