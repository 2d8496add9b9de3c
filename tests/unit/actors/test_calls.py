"""Modules that gather: many calls at once, in order, and what is denied is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from actors.calls import IN_FLIGHT_MAX, Calls
from actors.cloud import Absent, RegionNotEnabled
from actors.modules import Api, Call, Item, Place
from cartoray.errors import RegionDenied
from cartoray.jobs import Account, Job

ACCOUNT = Account(id="111111111111")
EAST, WEST = Place(ACCOUNT, "us-east-1"), Place(ACCOUNT, "us-west-2")
JOB = Job(run_id="run", update_tag=1, account=ACCOUNT, module="kms")
LIST, DETAIL = Call("fake", "list", "Items", page_size=1), Call("fake", "detail", "Detail")


class FakeCloud:
    """Lists numbers in two pages; the detail of a number is its square, but for the odd ones that a test names."""

    default_region = "us-east-1"

    def __init__(self, count: int = 40) -> None:
        self.count = count
        self.refused: dict[int, Exception] = {}
        self.under_way = self.most = 0
        self._lock = threading.Lock()

    def pages(
        self,
        account: Account,
        role: str | None,
        region: str | None,
        call: Call,
        check: Callable[[], None],
        **asked: Any,
    ) -> Iterator[list[Item]]:
        if region == "closed":
            raise RegionNotEnabled(region)
        if call.operation == "list":
            half = self.count // 2
            yield [{"number": number} for number in range(half)]
            yield [{"number": number} for number in range(half, self.count)]
            return
        with self._lock:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        time.sleep(0.002)
        with self._lock:
            self.under_way -= 1
        if asked["Number"] in self.refused:
            raise self.refused[asked["Number"]]
        yield [{"Detail": (asked["Number"] ** 2, region)}]


def gathered(cloud: FakeCloud, gather: Any, *places: Place) -> tuple[dict[str, Any], Calls]:
    """By region what it found, or what it raised."""
    calls = Calls(JOB, cloud, THREADS, lambda: None)  # type: ignore[arg-type]
    found = {}
    for place, task in calls.gather(places, gather, regional=True):
        found[place.region] = task.exception() or task.result()
    return found, calls


THREADS = ThreadPoolExecutor(64)


async def squares(api: Api) -> list[Any]:
    async def ask(item: Item) -> Any:
        return await api.one(DETAIL, Number=item["number"])

    return await api.each(ask, await api.items(LIST))


def test_items_keep_their_order_and_all_calls_are_counted() -> None:
    found, calls = gathered(FakeCloud(), squares, EAST, WEST)
    for place in (EAST, WEST):
        assert found[place.region] == [(number**2, place.region) for number in range(40)]
    assert calls.count == 2 * (2 + 40)


def test_a_job_has_many_calls_under_way_but_not_all_threads() -> None:
    cloud = FakeCloud(count=200)
    gathered(cloud, squares, EAST, WEST)
    assert 2 < cloud.most <= IN_FLIGHT_MAX


def test_what_is_not_there_is_none_and_counts_as_a_call() -> None:
    cloud = FakeCloud(count=4)
    cloud.refused[3] = Absent()
    found, calls = gathered(cloud, squares, EAST)
    assert found[EAST.region] == [(0, EAST.region), (1, EAST.region), (4, EAST.region), None]
    assert calls.count == 2 + 4


def test_one_call_that_is_denied_ends_its_place_alone() -> None:
    cloud = FakeCloud()
    cloud.refused[7] = RegionDenied("no")

    async def all_in_the_west(api: Api) -> list[Any]:
        return await squares(api) if api.place == WEST else await api.items(LIST)

    found, _ = gathered(cloud, all_in_the_west, WEST, EAST)
    assert isinstance(found[WEST.region], RegionDenied)
    assert len(found[EAST.region]) == 40


def test_what_is_denied_and_tolerated_is_told() -> None:
    cloud = FakeCloud(count=4)
    cloud.refused[2] = RegionDenied("number 2 is denied")

    async def tolerant(api: Api) -> list[Any]:
        async def ask(item: Item) -> Any:
            return await api.tolerate(api.one(DETAIL, Number=item["number"]), None)

        return await api.each(ask, await api.items(LIST))

    found, calls = gathered(cloud, tolerant, EAST)
    assert found[EAST.region][2] is None
    assert calls.failures == ["number 2 is denied"]


def test_a_call_can_be_made_in_another_region() -> None:
    async def elsewhere(api: Api) -> Any:
        return await api.at("eu-west-1").one(DETAIL, Number=3)

    assert gathered(FakeCloud(), elsewhere, EAST)[0] == {EAST.region: (9, "eu-west-1")}


def test_an_end_from_outside_leaves_nothing_under_way() -> None:
    class Over(Exception):
        pass

    def over() -> None:
        raise Over

    calls = Calls(JOB, FakeCloud(count=1000), THREADS, over)  # type: ignore[arg-type]
    with pytest.raises(Over):
        list(calls.gather([EAST], squares, regional=True))
