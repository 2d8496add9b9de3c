from __future__ import annotations

from typing import Any

from cartoray import schemas
from cartoray.messages import Message
from cartoray.queries import Cleanup, Query
from cartoray.wire import Origin
from ingestion.batching import QueryItem
from ingestion.units import Unit, units
from ingestion.writer import Answer

VPC = "cartography.models.aws.ec2.vpc:AWSVpcSchema"
SUBNET = "cartography.models.aws.ec2.subnets:EC2SubnetSchema"
PARAMETERS = {"UPDATE_TAG": 7, "AWS_ID": "111111111111", "LIMIT_SIZE": 100}


def item(query: Query, attempt: str = "a") -> QueryItem:
    return QueryItem(Message("", 0, 0, b"", b"", {}), Origin("run-1", 7, "run-1/job", attempt, 0), query)


def cleanups_of(path: str, attempt: str = "a", **parameters: Any) -> list[QueryItem]:
    return [
        item(Query(text, PARAMETERS | parameters, repeat=True, cleanup=Cleanup(path, number)), attempt)
        for number, text in enumerate(schemas.cleanup(path))
    ]


def sizes(items: list[QueryItem]) -> list[tuple[int, bool]]:
    return [(len(unit.queries), unit.probe is not None) for unit in units(items)]


def test_cleanups_of_a_schema_that_follow_each_other_are_asked_for_together() -> None:
    vpcs, subnets = cleanups_of(VPC), cleanups_of(SUBNET)
    other = item(Query("RETURN 1", {}))
    assert sizes([]) == []
    assert sizes([other, *vpcs, *subnets, other]) == [
        (1, False),
        (len(vpcs), True),
        (len(subnets), True),
        (1, False),
    ]
    assert sizes(vpcs[:1]) == [(1, False)]
    assert sizes([vpcs[0], other, *vpcs[1:]]) == [(1, False)] * 3
    assert sizes(vpcs[::-1]) == [(1, False)] * 2


def test_those_of_other_attempts_and_accounts_are_not() -> None:
    assert sizes([cleanups_of(VPC)[0], cleanups_of(VPC, attempt="b")[1]]) == [(1, False)] * 2
    assert sizes([cleanups_of(VPC)[0], cleanups_of(VPC, AWS_ID="222222222222")[1]]) == [(1, False)] * 2


def test_one_of_a_form_that_is_not_known_is_run_as_it_is() -> None:
    cascade = [
        item(Query(text, PARAMETERS, repeat=True, cleanup=Cleanup(VPC, number, cascade=True)))
        for number, text in enumerate(schemas.cleanup(VPC, cascade=True))
    ]
    assert sizes(cascade) == [(1, False)] * len(cascade)


def test_a_probe_asks_for_what_its_queries_delete() -> None:
    (unit,) = units(cleanups_of(SUBNET))
    assert unit.probe is not None
    assert unit.first is unit.probe
    assert "DELETE" not in unit.probe.text
    assert unit.probe.text.count("EXISTS {") == len(unit.queries)
    for query in unit.queries:
        sought = query.text[: query.text.index("WITH DISTINCT")]
        assert sought in unit.probe.text
        assert "lastupdated < $UPDATE_TAG" in sought


def test_what_is_left_depends_on_the_answer() -> None:
    (unit,) = units(cleanups_of(VPC))
    assert unit.has_more(Answer({}, ("stale",), [[True]]))
    assert not unit.has_more(Answer({}, ("stale",), [[False]]))
    repeated = Unit((Query("x", PARAMETERS, repeat=True),))
    assert repeated.has_more(Answer({"nodes_deleted": 1}, (), []))
    assert not repeated.has_more(Answer({}, (), []))
    assert not Unit((Query("x", {}),)).has_more(Answer({"nodes_deleted": 1}, (), []))
