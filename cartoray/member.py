"""A member of a pool, as Ray holds it: an envelope around a loop that knows nothing of Ray."""

from __future__ import annotations

import asyncio
import gc
import threading
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cartoray.logs import log_to_stderr
from cartoray.redaction import redaction
from cartoray.settings import Settings, load

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


_LOOK_EVERY_S = 0.05


class Loop(Protocol):
    """What a member does."""

    def run(self, stop: threading.Event) -> None:
        """Works until `stop` is set and what is under way has ended; raises when it cannot go on."""

    def status(self) -> DataclassInstance:
        """What it is doing, from any thread. Does not block."""


class Member(ABC):
    """`run` once, `status` and `drain` at any time. Its class gives the name that Ray shows.

    `directory`: where it looks for its settings. They are read where it runs, so no secret travels through Ray.
    """

    def __init__(self, name: str, directory: str) -> None:
        self._name, self._directory = name, directory
        self._loop: Loop | None = None
        self._stop = threading.Event()

    @abstractmethod
    def make(self, settings: Settings, name: str) -> Loop:
        """The loop; clients of outside systems are made in here or later, never before."""

    async def run(self) -> None:
        """Works until it is drained. Raises SettingError, and what the loop raises."""
        settings = load(directory=Path(self._directory)).settings
        log_to_stderr("%(levelname)s %(name)s %(message)s", redaction(settings))  # Ray adds who and where
        self._loop = self.make(settings, self._name)
        # what is there now stays: to look through it whenever some rows were made takes a third of a large page's time
        gc.freeze()
        gc.set_threshold(50_000, 20, 20)
        with ThreadPoolExecutor(1, thread_name_prefix=self._name) as thread:
            await asyncio.get_running_loop().run_in_executor(thread, self._loop.run, self._stop)

    async def status(self) -> dict[str, Any]:
        """The fields of the loop's status; empty while it starts."""
        return asdict(self._loop.status()) if self._loop else {}

    async def working(self) -> None:
        """Returns when it has been given partitions: what it dies of from then on may be what is in them."""
        while not (await self.status()).get("partitions"):
            await asyncio.sleep(_LOOK_EVERY_S)

    async def drain(self) -> None:
        """Asks for the end and returns at once; `run` returns when what is under way has ended, or its time is up."""
        self._stop.set()

    def __repr__(self) -> str:  # what Ray's dashboard and log lines call it, also while it is being made
        return f"{type(self).__name__}({getattr(self, '_name', '')})"
