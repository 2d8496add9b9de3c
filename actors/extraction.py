"""One job → messages for `graph_data`: calls in all regions at once, page by page or region by region, shaped, encoded.

A thread of the shared call pool makes one call at a time; what waits for another job, or for Kafka, holds none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, field
from typing import Any, Literal

from actors.calls import Calls
from actors.cloud import Cloud, RegionNotEnabled
from actors.modules import Call, Gather, Item, NativeModule, Place, Table
from cartoray import schemas
from cartoray.errors import CartorayError, CloudDenied, RegionDenied, RowRejected
from cartoray.jobs import Job
from cartoray.wire import RowsHeader, encode_rows, split

_LOOK_EVERY_S = 0.2
_REASONS_MAX = 3

Pages = Iterator[list[Item]]
Publish = Callable[[RowsHeader, bytes], None]


@dataclass
class Extracted:
    """What came of a job so far. `failures`: why parts of it are missing, by region; `broken`: or all that is left.

    `cancelled`: its run was, and it ended where it was.
    """

    messages: int = 0
    rows: int = 0
    calls: int = 0
    skipped_regions: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    broken: str = ""
    traceback: str = ""
    cancelled: bool = False

    @property
    def outcome(self) -> Literal["finished", "partial", "failed", "cancelled"]:
        """See `JobEnded`."""
        if self.cancelled:
            return "cancelled"
        return "failed" if self.broken else "partial" if self.failures else "finished"

    @property
    def reason(self) -> str:
        """Why the job failed; empty if it did not. Regions often fail for the same reason, so only some are shown."""
        shown = list(dict.fromkeys([self.broken, *self.failures] if self.broken else self.failures))
        more = len(shown) - _REASONS_MAX
        return " ".join([*shown[:_REASONS_MAX], *([f"And {more} more."] if more > 0 else [])])


class Extraction:
    """One attempt at one job. `check` is called often, and raises to end it."""

    def __init__(
        self,
        job: Job,
        module: NativeModule,
        *,
        attempt: str,
        cloud: Cloud,
        calls: Executor,
        check: Callable[[], None],
        bytes_max: int,
    ) -> None:
        self._job, self._module, self._attempt = job, module, attempt
        self._cloud, self._calls, self._check = cloud, calls, check
        self._bytes_max = bytes_max
        self.found = Extracted()

    def run(self, publish: Publish) -> None:
        """Hands every message to `publish`, in order; `found` says what there was.

        A region that fails does not keep the others from being published: what they hold is true. Raises CloudDenied
        and CloudUnavailable when not even the regions are known, and what `check` and `publish` raise.
        """
        places = [Place(self._job.account, region) for region in self._regions()]
        fetch = self._module.fetch
        found = self._pages(places, fetch) if isinstance(fetch, Call) else self._gathered(places, fetch)
        for place, items in found:
            try:
                self._shape(place, items, publish)
            except RowRejected as error:
                self.found.failures.append(f"{place.region}: {error}")

    def _regions(self) -> Sequence[str]:
        if not self._module.regional:
            return [self._cloud.default_region]
        return self._job.regions or self._cloud.regions(self._job.account, self._job.role_name, self._check)

    def _gathered(self, places: Sequence[Place], gather: Gather) -> Iterator[tuple[Place, Any]]:
        """What `gather` found, of each place as soon as it has ended there."""
        calls = Calls(self._job, self._cloud, self._calls, self._check)
        try:
            for place, task in calls.gather(places, gather, regional=self._module.regional):
                found = self._answer(task, place)
                if found is not None:
                    yield place, found
        finally:
            self.found.calls += calls.count
            self.found.failures += calls.failures

    def _pages(self, places: Sequence[Place], call: Call) -> Iterator[tuple[Place, list[Item]]]:
        """Pages of all places as they come; of each place in order, the next one under way while one is shaped."""
        under_way: dict[Future[list[Item] | None], tuple[Place, Pages]] = {}

        def ask(place: Place, pages: Pages) -> None:
            under_way[self._calls.submit(next, pages, None)] = (place, pages)

        try:
            for place in places:
                region = place.region if self._module.regional else None
                job = self._job
                ask(place, self._cloud.pages(job.account, job.role_name, region, call, self._check))
            while under_way:
                self._check()
                done, _ = wait(under_way, timeout=_LOOK_EVERY_S, return_when=FIRST_COMPLETED)
                for future in done:
                    place, pages = under_way.pop(future)
                    items = self._answer(future, place)
                    if items is not None:
                        self.found.calls += 1
                        ask(place, pages)
                        yield place, items
        finally:
            for future in under_way:
                future.cancel()

    def _answer(self, future: Future[Any] | asyncio.Task[Any], place: Place) -> Any:
        """A page, or what was gathered; None when there is no more of that place."""
        try:
            return future.result()
        except RegionNotEnabled:
            self.found.skipped_regions.append(place.region)
        except CartorayError as error:
            self._check()  # if it is over as a whole, that is the reason
            if isinstance(error, CloudDenied) and not isinstance(error, RegionDenied):
                self.found.broken = str(error)
            else:
                self.found.failures.append(str(error))
        return None

    def _shape(self, place: Place, items: Any, publish: Publish) -> None:
        shaped = self._module.shape(items, place)
        for table in self._module.tables:
            for constants, rows in table.loads(shaped.get(table.schema, ()), place, self._job.update_tag):
                self._encode(table, rows, constants, publish)

    def _encode(
        self,
        table: Table,
        rows: Sequence[Mapping[str, object]],
        constants: Mapping[str, str | int | bool | None],
        publish: Publish,
    ) -> None:
        for value in split(encode_rows(rows, schemas.fields(table.path)), self._bytes_max):
            self._check()
            header = RowsHeader(
                run_id=self._job.run_id,
                update_tag=self._job.update_tag,
                job_id=self._job.job_id,
                attempt=self._attempt,
                sequence=self.found.messages,
                schema=table.path,
                constants=constants,
                touch=self._job.touch,
            )
            publish(header, value)
            self.found.messages += 1
        self.found.rows += len(rows)
