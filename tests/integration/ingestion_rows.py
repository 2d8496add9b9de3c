"""Rows, messages and graphs for the tests of the ingestion side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import neo4j

from cartoray import schemas, wire
from cartoray.jobs import Touch
from cartoray.messages import Message
from ingestion.batching import Group, RowsItem, groups
from ingestion.fingerprint import PROPERTY
from ingestion.rows import decode
from ingestion.statements import LAZY_RUNS, statements

INSTANCE = "cartography.models.aws.ec2.instances:EC2InstanceSchema"
RESERVATION = "cartography.models.aws.ec2.reservations:EC2ReservationSchema"
SECURITY_GROUP = "cartography.models.aws.ec2.security_groups:EC2SecurityGroupSchema"
RULE = "cartography.models.aws.ec2.security_group_rules:IpRuleSchema"
INBOUND = "cartography.models.aws.ec2.security_group_rules:IpPermissionInboundSchema"
RANGE = "cartography.models.aws.ec2.security_group_rules:IpRangeSchema"
VOLUME = "cartography.models.aws.ec2.volumes:EBSVolumeSchema"
PROFILE = "cartography.models.aws.iam.instanceprofile:InstanceProfileSchema"
ASSUMES = "cartography.models.aws.ec2.instances:EC2InstanceToRoleAssumesMatchLink"

ACCOUNT = "111111111111"
OTHER = "222222222222"
TAG = 1_700_000_000
REGION = "us-east-1"

Row = Mapping[str, Any]


def instances(count: int, account: str = ACCOUNT) -> list[Row]:
    return [
        {
            "InstanceId": f"i-{account}-{number:05}",
            "Arn": f"arn:aws:ec2:{REGION}:{account}:instance/i-{number:05}",
            "ReservationId": f"r-{number // 3}",
            "State": "running" if number % 2 else "shutting-down",
            "LaunchTimeUnix": 1_600_000_000 + number,
            "EbsOptimized": number % 2 == 0,
            "Tenancy": "default" if number % 5 else None,
            "PublicIpAddress": f"3.0.0.{number}" if number % 3 else None,
            "IamInstanceProfile": f"arn:aws:iam::{account}:instance-profile/p{number % 4}" if number % 2 else None,
        }
        for number in range(count)
    ]


def reservations(count: int) -> list[Row]:
    return [{"ReservationId": f"r-{number}", "RequesterId": "x", "OwnerId": ACCOUNT} for number in range(count)]


def security_groups(count: int) -> list[Row]:
    """Each names the one before it and itself as a source, and the first one that does not exist."""
    return [
        {
            "GroupId": f"sg-{number}",
            "GroupName": f"group {number}",
            "Description": None if number % 2 else 'it\'s "quoted" $lastupdated item.GroupId',
            "VpcId": "vpc-1",
            "SOURCE_GROUP_IDS": [f"sg-{number - 1}", f"sg-{number}"] if number else ["sg-absent", "sg-absent"],
        }
        for number in range(count)
    ]


def rules(count: int) -> list[Row]:
    return [
        {"RuleId": f"rule-{number}", "GroupId": f"sg-{number}", "Protocol": "tcp", "FromPort": 0, "ToPort": 65535}
        for number in range(count)
    ]


def ranges(count: int) -> list[Row]:
    return [{"RangeId": f"10.{number % 3}.0.0/16", "RuleId": f"rule-{number}"} for number in range(count)]


def volumes(count: int) -> list[Row]:
    return [
        {
            "Arn": f"arn:vol-{number}",
            "VolumeId": f"vol-{number}",
            "AvailabilityZone": f"{REGION}a",
            "Size": 8 + number,
            "Encrypted": bool(number % 2),
            "InstanceId": f"i-{ACCOUNT}-{number:05}",
        }
        for number in range(count)
    ]


def messages(
    schema: str,
    rows: Iterable[Row],
    *,
    account: str = ACCOUNT,
    tag: int = TAG,
    run: str = "run-1",
    module: str = "module",
    per_message: int = 1_000,
    partition: int = 0,
    offset: int = 0,
    region: str = REGION,
    touch: Touch = "always",
) -> Iterator[Message]:
    """As an intel actor publishes them, with the places that Kafka would give them."""
    rows = list(rows)
    known = {"lastupdated": tag, "AWS_ID": account, "Region": region}
    constants = {name: known[name] for name in schemas.constants(schema)}
    for sequence, start in enumerate(range(0, len(rows), per_message)):
        table = wire.encode_rows(rows[start : start + per_message], schemas.fields(schema))
        job_id = f"{run}/{account}/{module}"
        header = wire.RowsHeader(run, tag, job_id, "attempt-1", sequence, schema, constants, touch)
        (value,) = wire.split(table, 900_000)
        headers = dict(wire.rows_headers(header))
        yield Message("graph_data", partition, offset + sequence, account.encode(), value, headers)


def items(*of: Iterable[Message]) -> list[RowsItem]:
    return [decode(message) for each in of for message in each]


def grouped(decoded: Iterable[RowsItem]) -> tuple[Group, ...]:
    return groups(decoded, lambda schema: statements(schema).labels)


def run(driver: neo4j.Driver, query: str, **parameters: Any) -> list[list[Any]]:
    with driver.session() as session:
        return session.run(query, parameters).values()  # type: ignore[arg-type]


def wipe(driver: neo4j.Driver) -> None:
    run(driver, "MATCH (n) CALL (n) { DETACH DELETE n } IN TRANSACTIONS OF 5000 ROWS")


def snapshot(driver: neo4j.Driver, *but: str) -> tuple[Counter[str], Counter[str]]:
    """All nodes and relationships with all properties of stock's but `firstseen`, in a form that prints well.

    `but`: properties that are left out as well.
    """

    def shown(properties: Mapping[str, Any]) -> str:
        without = {"firstseen", PROPERTY, LAZY_RUNS, *but}
        return repr(sorted((name, value) for name, value in properties.items() if name not in without))

    nodes = run(driver, "MATCH (n) RETURN labels(n), properties(n)")
    relationships = run(driver, "MATCH (a)-[r]->(b) RETURN labels(a), a.id, type(r), properties(r), labels(b), b.id")
    return (
        Counter(f"{sorted(labels)} {shown(properties)}" for labels, properties in nodes),
        Counter(
            f"{sorted(start)} {start_id} -{kind} {shown(properties)}-> {sorted(end)} {end_id}"
            for start, start_id, kind, properties, end, end_id in relationships
        ),
    )
