"""The calls of modules that need more than one listing: coroutines over the threads that make them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any, TypeVar

from actors.cloud import Absent, Cloud
from actors.modules import Call, Gather, Item, Place
from cartoray.errors import CloudDenied
from cartoray.jobs import Job

IN_FLIGHT_MAX = 16  # calls of one job: a large account must not fill the pool that all jobs of an actor share
_LOOK_EVERY_S = 0.2

T = TypeVar("T")
R = TypeVar("R")


class Calls:
    """Those of one job. `count`: API calls that were answered; `failures`: what was denied, and tolerated."""

    def __init__(self, job: Job, cloud: Cloud, threads: Executor, check: Callable[[], None]) -> None:
        """`check` is called often, and raises to end them all."""
        self._job, self._cloud, self._threads, self._check = job, cloud, threads, check
        self._room = asyncio.Semaphore(IN_FLIGHT_MAX)
        self.count = 0
        self.failures: list[str] = []

    def gather(
        self, places: Sequence[Place], gather: Gather, *, regional: bool
    ) -> Iterator[tuple[Place, asyncio.Task[Any]]]:
        """All places at once, each with what came of it, as they end. Raises what `check` raises."""
        loop = asyncio.new_event_loop()
        apis = ((place, PlaceApi(self, place, place.region if regional else None)) for place in places)
        tasks = {loop.create_task(_coroutine(gather, api)): place for place, api in apis}
        try:
            while tasks:
                self._check()
                done, _ = loop.run_until_complete(
                    asyncio.wait(tasks, timeout=_LOOK_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
                )
                for task in done:
                    yield tasks.pop(task), task
        finally:
            for task in tasks:
                task.cancel()
            if tasks:
                loop.run_until_complete(asyncio.wait(tasks))
            loop.close()

    async def pages(self, call: Call, region: str | None, parameters: dict[str, Any]) -> list[list[Item]]:
        """Of one listing, one after the other in one thread."""
        job = self._job

        def ask() -> list[list[Item]]:
            return list(self._cloud.pages(job.account, job.role_name, region, call, self._check, **parameters))

        async with self._room:
            try:
                found = await asyncio.get_running_loop().run_in_executor(self._threads, ask)
            except Absent:
                self.count += 1
                raise
            self.count += len(found)
            return found


class PlaceApi:
    """See `actors.modules.Api`. `region` None: that of the global services."""

    def __init__(self, calls: Calls, place: Place, region: str | None) -> None:
        self._calls, self._region = calls, region
        self.place = place

    def at(self, region: str) -> PlaceApi:
        return PlaceApi(self._calls, self.place, region)

    async def items(self, call: Call, **parameters: Any) -> list[Item]:
        try:
            pages = await self._calls.pages(call, self._region, parameters)
        except Absent:
            return []
        return [item for page in pages for item in page]

    async def one(self, call: Call, **parameters: Any) -> Any:
        try:
            ((found,),) = await self._calls.pages(replace(call, result_key=None), self._region, parameters)
        except Absent:
            return None
        return found if call.result_key is None else found.get(call.result_key)

    async def each(self, function: Callable[[T], Awaitable[R]], things: Iterable[T]) -> list[R]:
        """As many at a time as a job may have calls: a million coroutines would be a lot of memory."""
        found: dict[int, R] = {}
        left = enumerate(things)

        async def work() -> None:
            for number, thing in left:
                found[number] = await function(thing)

        workers = [asyncio.ensure_future(work()) for _ in range(IN_FLIGHT_MAX)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
        return [found[number] for number in sorted(found)]

    async def tolerate(self, asked: Awaitable[R], instead: R) -> R:
        try:
            return await asked
        except CloudDenied as error:
            self._calls.failures.append(str(error))
            return instead


async def _coroutine(gather: Gather, api: PlaceApi) -> Any:
    return await gather(api)
