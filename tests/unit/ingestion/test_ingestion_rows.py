from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from cartoray import schemas, wire
from cartoray.errors import UnreadableMessage
from cartoray.events import Deferral
from cartoray.messages import Message
from ingestion.batching import Group, RowsItem
from ingestion.deferred import settle
from ingestion.ledger import NO_TRUST, Trust
from ingestion.rows import Changes, Prepared, changed, decode, prepare, relationship_rows
from ingestion.statements import Relationship, Statements, statements

PATH = "cartography.models.aws.ec2.security_groups:EC2SecurityGroupSchema"
SCHEMA = statements(PATH)


def message(
    rows: Sequence[Mapping[str, Any]], *, region: str = "eu-west-1", offset: int = 0, **headers: Any
) -> Message:
    table = wire.encode_rows(rows, schemas.fields(PATH))
    (value,) = wire.split(table, 900_000)
    constants = {"AWS_ID": "1", "Region": region}
    header = wire.RowsHeader("run", 7, "run/1/job", "attempt", 0, PATH, constants)
    return Message("graph_data", 0, offset, b"1", value, dict(wire.rows_headers(header)) | headers)


def prepared(*messages: Message, trust: Trust = NO_TRUST) -> Prepared:
    return prepare(Group(PATH, tuple(decode(each) for each in messages)), SCHEMA, trust)


def ids(rows: Iterable[Sequence[Any]]) -> list[Any]:
    at = SCHEMA.id_at
    assert at is not None
    return [row[at] for row in rows]


def test_rows_are_sorted_by_id_and_of_equal_ids_the_later_one_stays_behind() -> None:
    first = message([{"GroupId": "b", "GroupName": "1"}, {"GroupId": "a"}, {"GroupId": "b", "GroupName": "2"}])
    second = message([{"GroupId": "b", "GroupName": "3"}], region="eu-west-2")
    third = message([{"GroupId": "b", "GroupName": "4"}])
    found = prepared(first, second, third)
    rows = found.rows(range(5))
    assert ids(rows) == found.ids == ["a", "b", "b", "b", "b"]
    name = SCHEMA.fields.index("GroupName")
    assert [row[name] for row in rows] == [None, "1", "2", "3", "4"]
    assert [row[-2:] for row in rows] == [[number, None] for number in range(5)]
    assert [found.loads[row[-3]]["Region"] for row in rows[1:]] == [
        "eu-west-1",
        "eu-west-1",
        "eu-west-2",
        "eu-west-1",
    ]
    assert len(found.loads) == 2
    assert found.loads[0]["lastupdated"] == 7


def test_of_rows_that_changed_only_what_changed_is_written() -> None:
    found = prepared(message([{"GroupId": each} for each in "abcde"]))
    none, numbers = object(), [0, 1, 2, 3]  # the last one was not compared
    names = SCHEMA.compare.names if SCHEMA.compare else ()
    assert changed(found, SCHEMA, numbers, [], none) == Changes(numbers, [])
    assert changed(found, SCHEMA, numbers, [[number] for number in numbers], none) == Changes([], [])
    some = [[0], [1, [0, 2], ["x", none]], [3, [*range(len(names))], [1] * len(names)]]
    wanted = Changes([2, 3], [["b", {names[0]: "x", names[2]: None}]])
    assert changed(found, SCHEMA, numbers, some, none) == wanted


def test_of_ids_with_several_rows_all_are_written_if_one_changed() -> None:
    found = prepared(message([{"GroupId": each} for each in "aabbc"]))
    answer = [[0], [1, [0], ["x"]], [2], [3], [4, [0], ["x"]]]
    changes = changed(found, SCHEMA, range(5), answer, None)
    assert changes.whole == [0, 1]
    assert [id_ for id_, _ in changes.parts] == ["c"]


def test_rows_that_share_an_id_are_not_found_by_fingerprint() -> None:
    rows = [{"GroupId": each, "GroupName": f"the {each}"} for each in "aabc"]
    found = prepared(message(rows), trust=Trust({"run": b"salt"}))
    keys = found.keys([SCHEMA.fields.index("GroupName")])
    assert [(*key[:3], key[4]) for key in keys] == [("b", 0, 2, "the b"), ("c", 0, 3, "the c")]
    assert prepared(message(rows), trust=Trust({"another run": b"salt"})).keys() == []
    assert prepared(message([{"GroupId": "a"}])).keys() == []


def test_a_row_without_a_value_to_match_by_has_no_such_relationship() -> None:
    _, vpc, source = SCHEMA.relationships
    found = prepared(
        message(
            [
                {"GroupId": "a", "VpcId": "vpc-1", "SOURCE_GROUP_IDS": []},
                {"GroupId": "b", "SOURCE_GROUP_IDS": ["x", "y", None, "x"]},
                {"GroupId": "c"},
            ]
        )
    )
    to_vpc = relationship_rows(vpc, found)
    assert to_vpc is not None
    assert to_vpc.rows == [["a", "vpc-1", 0, 0]]
    assert to_vpc.key(0) == "vpc-1"
    to_source = relationship_rows(source, found)
    assert to_source is not None
    assert [(row[0], *row[2:]) for row in to_source.rows] == [("b", "x", 0, 0), ("b", "y", 1, 0)]
    assert [to_source.key(number) for number in range(2)] == ["x", "y"]
    assert relationship_rows(vpc, prepared(message([{"GroupId": "a"}]))) is None
    assert relationship_rows(vpc, found, [1, 2]) is None


def test_what_follows_from_the_load_is_sent_per_load() -> None:
    account = SCHEMA.relationships[0]
    found = relationship_rows(
        account,
        prepared(message([{"GroupId": "a"}, {"GroupId": "b"}]), message([{"GroupId": "c"}], region="eu-west-2")),
    )
    assert found is not None
    assert [(load["Region"], [row[0] for row in load["rows"]]) for load in found.parameters["loads"]] == [
        ("eu-west-1", ["a", "b"]),
        ("eu-west-2", ["c"]),
    ]
    assert found.key(2) == "1"


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        (message([{"GroupName": "no id"}]), "GroupId"),
        (message([{"GroupId": "a", "SOURCE_GROUP_IDS": "sg-1"}]), "matched by a list"),
        (message([{"GroupId": "a"}], constants=b"{}"), "AWS_ID"),
        (message([{"GroupId": "a"}], schema=b"cartography.models.aws.ec2.vpc:Nothing"), "no schema"),
        (message([{"GroupId": "a"}], tag=b"x"), "header"),
    ],
)
def test_what_no_transaction_has_to_find_out_is_refused_before(bad: Message, named: str) -> None:
    with pytest.raises(UnreadableMessage, match=named):
        decode(bad)


def test_settling_counts_what_came_and_names_what_did_not() -> None:
    rows = [{"GroupId": f"g{number}", "VpcId": f"vpc-{number}"} for number in range(6)]
    kept = {(0, 5): message(rows, offset=5), (0, 6): message(rows[:2], offset=6), (0, 7): message(rows, offset=7)}
    kept[0, 7] = Message("graph_data", 0, 7, b"1", kept[0, 7].value, dict(kept[0, 7].headers) | {"run": b"another"})
    applied: list[tuple[str, int]] = []

    def read(at: Iterable[tuple[int, int]]) -> Iterator[Message]:
        return (kept[place] for place in at if place in kept)

    def relate(_: Statements, relationship: Relationship, items: Sequence[RowsItem]) -> list[str]:
        applied.append((relationship.name, sum(len(item.rows) for item in items)))
        return ["vpc-4", "vpc-5"] if len(items[0].rows) == 6 else []

    def deferral(offset: int, rows: int, relationship: int = 1) -> Deferral:
        return Deferral(partition=0, offset=offset, relationship=relationship, rows=rows)

    wanted = [deferral(5, 4), deferral(6, 2), deferral(7, 3), deferral(8, 9)]
    found = settle("run", wanted, read, relate, rows_max=6)
    assert found.relationships == 4
    assert applied == [(SCHEMA.relationships[1].name, 6), (SCHEMA.relationships[1].name, 2)]
    first, *gone = found.unresolved
    assert (first.relationship, first.target_label, first.rows, first.sample) == (
        SCHEMA.relationships[1].name,
        "AWSVpc",
        2,
        ("vpc-4", "vpc-5"),
    )
    assert [(entry.rows, entry.sample[0]) for entry in gone] == [
        (3, "graph_data[0]@7: it is of run another"),
        (9, "graph_data[0]@8: the message is no longer in Kafka"),
    ]
