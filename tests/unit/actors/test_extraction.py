"""One job, a cloud in memory: what is published, in which order, and what a part that fails does to the rest."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest
from cartography.models.aws.ec2.reservations import EC2ReservationSchema
from cartography.models.aws.ec2.volumes import EBSVolumeSchema

from actors.cloud import RegionNotEnabled
from actors.extraction import Extracted, Extraction
from actors.modules import Call, Item, NativeModule, Place, Shaped, Table
from cartoray import schemas
from cartoray.errors import CloudDenied, CloudUnavailable, JobTimedOut, RegionDenied
from cartoray.jobs import Account, Job
from cartoray.wire import RowsHeader, decode_rows

ACCOUNT = Account(id="111111111111", name="team-1")
REGIONS = ("eu-west-1", "us-east-1", "us-west-2")
VOLUME, RESERVATION = (schemas.path_of(schema()) for schema in (EBSVolumeSchema, EC2ReservationSchema))
TAG = 1_700_000_000
BYTES_MAX = 900_000

Check = Callable[[], None]


def shape(items: list[Item], _: Place) -> Shaped:
    return {
        EC2ReservationSchema: [{"ReservationId": item["r"], "OwnerId": ACCOUNT.id} for item in items if "r" in item],
        EBSVolumeSchema: [item for item in items if "VolumeId" in item],
    }


def module(*, regional: bool = True) -> NativeModule:
    return NativeModule(
        name="volumes",
        permissions=(),
        fetch=Call("ec2", "describe_volumes", "Volumes", page_size=10),
        shape=shape,
        tables=(Table(EC2ReservationSchema), Table(EBSVolumeSchema)),
        regional=regional,
    )


def volumes(count: int, first: int = 0) -> list[Item]:
    """With all that a column can hold: texts, numbers, times, truth, and nothing."""
    return [
        {
            "Arn": f"arn:vol-{number}",
            "VolumeId": f"vol-{number}",
            "Size": 8 + number,
            "Encrypted": number % 2 == 0,
            "CreateTime": datetime(2026, 1, 5, 8, number % 60, tzinfo=UTC),
            "KmsKeyId": None if number % 3 else "arn:aws:kms:eu-west-1:1:key/ü",
        }
        for number in range(first, first + count)
    ]


class MemoryCloud:
    """Pages by region; an exception among them is raised in its turn, a function is called with `check`."""

    default_region = "us-east-1"

    def __init__(self, pages: Mapping[str | None, Sequence[object]], enabled: Sequence[str] = REGIONS) -> None:
        self._pages, self._enabled = pages, tuple(enabled)
        self.asked: list[str | None] = []
        self.discovered = self.began = 0

    def regions(self, account: Account, role_name: str | None, check: Check) -> tuple[str, ...]:
        assert (account, role_name) == (ACCOUNT, "Reader")
        self.discovered += 1
        check()
        return self._enabled

    def pages(
        self, account: Account, role_name: str | None, region: str | None, call: Call, check: Check
    ) -> Iterator[list[Item]]:
        assert (account, role_name, call) == (ACCOUNT, "Reader", module().fetch)
        self.asked.append(region)
        return self._answer(region, check)

    def _answer(self, region: str | None, check: Check) -> Iterator[list[Item]]:
        self.began += 1  # only now does a thread ask for the first page
        for page in self._pages.get(region, ()):
            if isinstance(page, BaseException):
                raise page
            if callable(page):
                page(check)
            else:
                yield page  # type: ignore[misc]


Sent = list[tuple[RowsHeader, bytes]]


def extraction(
    cloud: MemoryCloud,
    calls: ThreadPoolExecutor,
    *,
    regions: Sequence[str] = (),
    regional: bool = True,
    bytes_max: int = BYTES_MAX,
    check: Check = lambda: None,
) -> Extraction:
    regions = tuple(regions)
    job = Job(run_id="run-1", update_tag=TAG, account=ACCOUNT, module="volumes", regions=regions, role_name="Reader")
    return Extraction(
        job, module(regional=regional), attempt="attempt-1", cloud=cloud, calls=calls, check=check, bytes_max=bytes_max
    )


def extract(cloud: MemoryCloud, **options: Any) -> tuple[Extracted, Sent]:
    sent: Sent = []
    with ThreadPoolExecutor(8) as calls:
        attempt = extraction(cloud, calls, **options)
        attempt.run(lambda header, value: sent.append((header, value)))
    return attempt.found, sent


def rows(sent: Sent, schema: str = VOLUME) -> list[dict[str, Any]]:
    """What is in the messages of a schema, row by row, with the region it is of."""
    found = []
    for header, value in sent:
        if header.schema == schema:
            columns = decode_rows(value)
            for row in zip(*columns.values(), strict=True):
                found.append(dict(zip(columns, row, strict=True)) | {"region": header.constants["Region"]})
    return found


def wanted(items: Sequence[Item], region: str) -> list[dict[str, Any]]:
    return [{name: item.get(name) for name in schemas.fields(VOLUME)} | {"region": region} for item in items]


def test_all_regions_are_asked_at_once() -> None:
    together = threading.Barrier(len(REGIONS))

    def meet(_: Check) -> None:
        together.wait(30)  # raises when the others do not come, and ends the job

    found, sent = extract(MemoryCloud({region: [meet, volumes(1)] for region in REGIONS}))
    assert found.reason == ""
    assert {row["region"] for row in rows(sent)} == set(REGIONS)


def test_the_next_page_is_under_way_while_one_is_shaped() -> None:
    asked = threading.Event()
    found: list[bool] = []
    cloud = MemoryCloud({"us-east-1": [volumes(1), lambda _: asked.set(), volumes(1, first=1)]}, ["us-east-1"])
    with ThreadPoolExecutor(1) as calls:
        extraction(cloud, calls).run(lambda *_: found.append(asked.wait(30)))
    assert found == [True, True]


def test_rows_come_out_of_arrow_as_they_went_in() -> None:
    pages = [volumes(7), [], volumes(5, first=7)]
    found, sent = extract(MemoryCloud({"eu-west-1": pages}, ["eu-west-1"]))
    back = rows(sent)
    assert back == wanted(volumes(12), "eu-west-1")
    assert [type(row["CreateTime"]) for row in back] == [datetime] * 12
    assert (found.rows, found.calls, found.messages, found.reason) == (12, 3, 2, "")


def test_messages_say_whose_they_are_and_are_numbered_without_a_gap() -> None:
    items = [{"r": "r-1"}, *volumes(3)]
    found, sent = extract(MemoryCloud({region: [items, items] for region in REGIONS}))
    assert [header.sequence for header, _ in sent] == list(range(12))
    assert found.messages == 12
    for header, _ in sent:
        assert (header.run_id, header.update_tag, header.attempt) == ("run-1", TAG, "attempt-1")
        assert header.job_id == "run-1/111111111111/volumes"
        assert header.constants["AWS_ID"] == ACCOUNT.id
        assert tuple(sorted(header.constants)) == schemas.constants(header.schema)
    for region in REGIONS:
        mine = [header.schema for header, _ in sent if header.constants["Region"] == region]
        assert mine == [RESERVATION, VOLUME] * 2, "the tables' order is that in which stock loads them"


def test_no_message_is_larger_than_kafka_takes() -> None:
    chance = Random(7)
    noise = [item | {"SnapshotId": chance.randbytes(100).hex()} for item in volumes(1_000)]
    found, sent = extract(MemoryCloud({"eu-west-1": [noise]}, ["eu-west-1"]), bytes_max=10_000)
    assert len(sent) > 5
    assert max(len(value) for _, value in sent) <= 10_000
    assert [header.sequence for header, _ in sent] == list(range(found.messages))
    assert rows(sent) == wanted(noise, "eu-west-1")
    assert found.rows == 1_000


@pytest.mark.parametrize("error", [RegionDenied("ec2:DescribeVolumes in us-east-1: no."), CloudUnavailable("no.")])
def test_a_region_that_fails_fails_the_job_and_the_others_are_published(error: Exception) -> None:
    pages = {"eu-west-1": [volumes(2)], "us-east-1": [volumes(2, first=2), error], "us-west-2": [volumes(2, first=4)]}
    found, sent = extract(MemoryCloud(pages))
    assert found.failures == [str(error)]
    assert {row["VolumeId"] for row in rows(sent)} == {f"vol-{number}" for number in range(6)}
    assert found.rows == 6


def test_a_region_that_is_not_enabled_is_skipped_and_no_failure() -> None:
    cloud = MemoryCloud({"eu-west-1": [volumes(1)], "us-east-1": [RegionNotEnabled("us-east-1")], "us-west-2": []})
    found, sent = extract(cloud)
    assert (found.skipped_regions, found.reason) == (["us-east-1"], "")
    assert [row["region"] for row in rows(sent)] == ["eu-west-1"]


def test_an_integer_that_neo4j_does_not_have_is_named_by_row_and_column() -> None:
    large = volumes(2)
    large[1]["Size"] = 2**63
    pages = {"eu-west-1": [large, volumes(1, first=5)], "us-east-1": [volumes(1, first=6)], "us-west-2": []}
    found, sent = extract(MemoryCloud(pages))
    assert found.reason.startswith("eu-west-1: Row 1: Size is an integer beyond 64 bits")
    assert {row["VolumeId"] for row in rows(sent)} == {"vol-5", "vol-6"}
    assert [header.sequence for header, _ in sent] == [0, 1]


def test_a_row_too_large_for_a_message_is_a_failure_of_its_region() -> None:
    large = [volumes(1)[0] | {"SnapshotId": Random(7).randbytes(50_000).hex()}]
    found, sent = extract(MemoryCloud({"eu-west-1": [large], "us-east-1": [volumes(1)]}), bytes_max=20_000)
    assert "CARTORAY_KAFKA_MESSAGE_BYTES_MAX" in found.reason
    assert found.reason.startswith("eu-west-1: ")
    assert [row["region"] for row in rows(sent)] == ["us-east-1"]


class Over(Exception):
    """What `check` raises when nobody wants the job any more."""


def test_the_end_of_a_job_is_noticed_while_a_call_hangs_and_cancels_what_is_queued() -> None:
    over, answer = threading.Event(), threading.Event()

    def hang(_: Check) -> None:
        over.set()
        assert answer.wait(30)

    def check() -> None:
        if over.is_set():
            raise Over

    cloud = MemoryCloud({region: [hang, volumes(1)] for region in REGIONS})
    sent: Sent = []
    with ThreadPoolExecutor(1) as calls:
        with pytest.raises(Over):
            extraction(cloud, calls, check=check).run(lambda header, value: sent.append((header, value)))
        assert not answer.is_set(), "it did not wait for the call that hangs"
        answer.set()
    assert len(cloud.asked) == len(REGIONS)
    assert cloud.began == 1, "what was queued was never called"
    assert sent == []


def test_a_call_that_notices_the_end_first_is_no_failure_of_its_region() -> None:
    looked, over = threading.Event(), threading.Event()

    def end(check: Check) -> None:
        assert looked.wait(30)  # the job's own thread waits for this call now
        over.set()
        check()

    def check() -> None:
        looked.set()
        if over.is_set():
            raise JobTimedOut("It took more than 1 s.")

    with pytest.raises(JobTimedOut):
        extract(MemoryCloud({"eu-west-1": [end]}), regions=["eu-west-1"], check=check)


def test_what_publish_raises_ends_the_job() -> None:
    def publish(*_: object) -> None:
        raise Over

    with ThreadPoolExecutor(4) as calls:
        attempt = extraction(MemoryCloud({region: [volumes(1)] for region in REGIONS}), calls)
        with pytest.raises(Over):
            attempt.run(publish)
    assert attempt.found.messages == 0


def test_regions_that_were_asked_for_are_not_discovered() -> None:
    cloud = MemoryCloud({region: [volumes(1)] for region in REGIONS})
    extract(cloud, regions=["us-west-2"])
    assert (cloud.asked, cloud.discovered) == (["us-west-2"], 0)
    extract(cloud)
    assert cloud.discovered == 1


def test_when_not_even_the_regions_are_known_that_is_raised() -> None:
    class Closed(MemoryCloud):
        def regions(self, *_: object) -> tuple[str, ...]:
            raise CloudDenied("no role")

    with pytest.raises(CloudDenied, match="no role"):
        extract(Closed({}))


def test_a_module_that_is_not_regional_asks_once_and_where_the_global_services_are() -> None:
    cloud = MemoryCloud({None: [volumes(2)]})
    found, sent = extract(cloud, regional=False, regions=REGIONS)
    assert (cloud.asked, cloud.discovered, found.calls) == ([None], 0, 1)
    assert {row["region"] for row in rows(sent)} == {"us-east-1"}


def test_reasons_that_repeat_are_told_once_and_no_more_than_three() -> None:
    assert Extracted().reason == ""
    assert Extracted(failures=["a.", "b.", "a.", "a."]).reason == "a. b."
    assert Extracted(failures=["a.", "b.", "c."]).reason == "a. b. c."
    many = [f"region {number}." for number in range(20)]
    assert Extracted(failures=many * 2).reason == "region 0. region 1. region 2. And 17 more."
