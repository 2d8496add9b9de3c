"""Messages of every kind as cartoray itself makes them: what the fuzzer damages, and what golden files are made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pyarrow as pa
import pytz

from cartoray import schemas, wire
from cartoray.dead_letters import dead_letter_headers
from cartoray.events import (
    BatchLanded,
    Deferral,
    Event,
    JobEnded,
    JobReleased,
    JobStarted,
    MessageRefused,
    PoolScaled,
    QueryLanded,
    RunPlanned,
    RunPublished,
    StepLanded,
    Unresolved,
    key_of,
)
from cartoray.jobs import Account, Job, Run
from cartoray.messages import Message
from cartoray.queries import SIGNATURE, Cleanup, Query, encode_query, signature
from cartoray.steps import Analyse, CleanupNodes, DeriveLinks, MarkSynced, Settle, Step
from ingestion.ledger import BASE_KEY, Base, Written

INSTANCE = "cartography.models.aws.ec2.instances:EC2InstanceSchema"
SECURITY_GROUP = "cartography.models.aws.ec2.security_groups:EC2SecurityGroupSchema"
VOLUME = "cartography.models.aws.ec2.volumes:EBSVolumeSchema"
VPC = "cartography.models.aws.ec2.vpc:AWSVpcSchema"
ASSUMES = "cartography.models.aws.ec2.instances:EC2InstanceToRoleAssumesMatchLink"

ACCOUNT, TAG, RUN_ID = "111111111111", 1_700_000_000, "20231114T221320Z-ab"
SIGNING_KEY = "a key that all processes share"

RUN = Run(
    run_id=RUN_ID,
    update_tag=TAG,
    accounts=(Account(id=ACCOUNT, name="one"), Account(id="222222222222")),
    modules=("account", "ec2:instance", "ec2:volumes", "network", "tags"),
    once=("analysis:a",),
    wrapped=("network", "tags", "analysis:a"),
    late=("tags",),
    after={"ec2:volumes": ("ec2:instance",)},
    needs={"network": ("ec2:instance",), "tags": ("network",), "analysis:a": ("tags",)},
    cleaned=("ec2:instance",),
    regions=("eu-west-1", "us-gov-west-1"),
    role_name="Reader",
    options=("--some", "thing"),
    touch="always",
    priority="high",
    planned_at_ms=TAG * 1000,
)
JOB_ID = f"{RUN_ID}/{ACCOUNT}/ec2:instance"
ORIGIN = wire.Origin(RUN_ID, TAG, JOB_ID, "a1b2c3", 4)

ODD_TEXTS = ("", "plain", "ünï¢ode 🗺", "line\nbreak\0zero", "'); DROP", "x" * 300, "$lastupdated")
ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    2**63 - 1,
    -(2**63),
    1.5,
    float("inf"),
    ["a", None, ""],
    [],
    {"k": [1, {"deep": None}]},
    datetime(2030, 7, 1, 12, 30, tzinfo=UTC),
    datetime(2030, 7, 1, tzinfo=timezone(timedelta(hours=-5))),
    pytz.timezone("Europe/Berlin").localize(datetime(2030, 7, 1)),
)


def rows(schema: str, count: int, salt: int = 0) -> list[dict[str, Any]]:
    """Each field in one kind of value, the next in another; ids are texts, lists are where relationships need them."""
    fields = schemas.fields(schema)
    found: list[dict[str, Any]] = []
    for number in range(count):
        row: dict[str, Any] = {}
        for at, field in enumerate(fields):
            match (at + salt) % 7:
                case 0:
                    row[field] = ODD_VALUES[(at + salt) % len(ODD_VALUES)] if number % 3 else None
                case 1:
                    row[field] = number
                case 2:
                    row[field] = datetime(2026, 1, 1 + number % 28, tzinfo=UTC)
                case _:
                    row[field] = ODD_TEXTS[(at + number) % len(ODD_TEXTS)]
        for name in _KEYS:
            if name in row:
                row[name] = f"{name}-{number}"
        if "SOURCE_GROUP_IDS" in row:
            row["SOURCE_GROUP_IDS"] = [f"sg-{number}", "sg-0"] if number % 2 else None
        found.append(row)
    return found


_KEYS = ("InstanceId", "GroupId", "Arn", "VolumeId", "VpcId", "instance_id", "role_arn", "ReservationId")


def stream(table: pa.Table | pa.RecordBatch, compression: str | None) -> bytes:
    """As `wire.split` makes it, but for the compression."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        for batch in table.combine_chunks().to_batches() if isinstance(table, pa.Table) else [table]:
            writer.write_batch(batch)
    return bytes(sink.getvalue().to_pybytes())


def data(kind_headers: wire.Headers, value: bytes) -> Message:
    return Message("graph_data", 3, 44, ACCOUNT.encode(), value, dict(kind_headers))


def rows_messages(counts: Sequence[int] = (1, 4, 12)) -> Iterator[Message]:
    known = {"AWS_ID": ACCOUNT, "Region": "eu-west-1", "lastupdated": TAG}
    for salt, schema in enumerate((INSTANCE, SECURITY_GROUP, VOLUME, VPC, ASSUMES)):
        constants: dict[str, str | int | bool | None] = {
            name: known.get(name, "x") for name in schemas.constants(schema)
        }
        header = wire.RowsHeader(**vars(ORIGIN), schema=schema, constants=constants)
        for count in counts:
            table = wire.encode_rows(rows(schema, count, salt), schemas.fields(schema))
            touched = replace(header, touch="lazy" if count == 4 else "always")
            for value in wire.split(table, 900_000):
                yield data(wire.rows_headers(touched), value)
            for compression in (None, "lz4"):
                yield data(wire.rows_headers(touched), stream(table, compression))


def step_messages() -> Iterator[Message]:
    deferrals = (
        Deferral(partition=3, offset=44, relationship=1, rows=7),
        Deferral(partition=0, offset=0, relationship=0, rows=1),
    )
    actions = (
        CleanupNodes(schema_path=VPC),
        CleanupNodes(schema_path=INSTANCE, of="AWSPolicy"),
        Analyse(path="cartography.analysis.aws.s3.analysis:AWS_S3ACL_ANALYSIS"),
        MarkSynced(label="AWSVpc"),
        DeriveLinks(schema_path=ASSUMES),
        Settle(deferrals=deferrals),
    )
    for number, some in enumerate(((actions[0],), actions)):
        step = Step(
            run_id=RUN_ID,
            update_tag=TAG,
            step_id=f"{RUN_ID}/cleanup/{ACCOUNT}/{number}",
            account_id=ACCOUNT,
            actions=some,
            untouched=((3, 44), (3, 45)),
        )
        yield data(wire.step_headers(step), wire.encode_step(step))


def query_messages() -> Iterator[Message]:
    everything = {f"p{number}": value for number, value in enumerate((*ODD_VALUES, *ODD_TEXTS, b"\0\xff"))}
    for query in (
        Query(
            "MERGE (n:Thing{id: $id}) SET n.lastupdated = $UPDATE_TAG, n.`odd name` = 'it\\'s' // why",
            {"id": "x", "UPDATE_TAG": TAG},
        ),
        Query(
            "UNWIND $rows AS row MERGE (n:Thing{id: row.id})",
            {"rows": [{"id": at, "all": everything} for at in range(30)]},
        ),
        Query(
            "MATCH (n) WHERE n.lastupdated <> $UPDATE_TAG WITH n LIMIT $LIMIT_SIZE DETACH DELETE n",
            {"UPDATE_TAG": TAG, "LIMIT_SIZE": 100},
            repeat=True,
        ),
        Query("", {"UPDATE_TAG": TAG, "LIMIT_SIZE": 100, "AWS_ID": ACCOUNT}, repeat=True, cleanup=Cleanup(VPC, 0)),
    ):
        value, headers = encode_query(query), wire.query_headers(ORIGIN)
        yield data([*headers, (SIGNATURE, signature(SIGNING_KEY, headers, value))], value)


def job_messages() -> Iterator[Message]:
    for job in RUN.jobs():
        yield Message("intel_jobs", 0, 7, job.account.id.encode(), job.model_dump_json().encode(), {})
    provider = Job(
        run_id=RUN_ID,
        update_tag=TAG,
        provider="cartography",
        account=Account(id="github"),
        module="github",
        wrapped=True,
    )
    yield Message("intel_jobs", 0, 7, b"github", provider.model_dump_json().encode(), {})


def events() -> tuple[Event, ...]:
    attempt = {"run_id": RUN_ID, "job_id": JOB_ID, "attempt": "a1b2c3"}
    return (
        RunPlanned(run=RUN),
        RunPublished(run_id=RUN_ID),
        JobReleased(run_id=RUN_ID, job_id=f"{RUN_ID}/{ACCOUNT}/network"),
        JobStarted(**attempt, actor="intel-000-abcd", at_ms=1),
        JobEnded(
            **attempt,
            outcome="partial",
            messages=2,
            rows=20,
            calls=3,
            duration_ms=4,
            at_ms=5,
            reason="ec2:DescribeVolumes in eu-west-3: denied",
            traceback="Traceback …",
            skipped_regions=("me-south-1",),
        ),
        BatchLanded(
            **attempt,
            sequences=(0, 1),
            rows=(10, 10),
            at_ms=6,
            deferrals=(Deferral(partition=3, offset=44, relationship=1, rows=7),),
            untouched=((3, 44),),
        ),
        QueryLanded(
            **attempt,
            sequence=2,
            at_ms=7,
            counters={"nodes_created": 1},
            keys=("n",),
            answer='[[{"$date": "2026-01-01"}]]',
        ),
        MessageRefused(**attempt, sequence=3, reason="Not a valid Arrow IPC stream"),
        StepLanded(
            run_id=RUN_ID,
            step_id=f"{RUN_ID}/settle/{ACCOUNT}/0a1b",
            at_ms=8,
            nodes_deleted=1,
            relationships_deleted=2,
            relationships_settled=3,
            unresolved=(Unresolved(relationship="A-R->B", target_label="B", rows=2, sample=("b-1", "b-2")),),
            reason="",
        ),
        PoolScaled(pool="ingestion", before=1, target=2, reason="180 messages wait", at_ms=9),
    )


def event_messages() -> Iterator[Message]:
    for event in events():
        yield Message("run_events", 1, 8, key_of(event).encode(), event.model_dump_json().encode(), {})


def ledger_messages() -> Iterator[Message]:
    database = "0f" * 16
    base = Base(run_id=RUN_ID, database=database, number=9, commits=4, opaque=0, salt="ab" * 16)
    written = Written(database=database, commits=4, properties=("exposed",), opaque=1)
    yield Message("graph_ledger", 0, 0, BASE_KEY, base.model_dump_json().encode(), {})
    yield Message("graph_ledger", 0, 1, b"a1b2c3d4e5f60718", written.model_dump_json().encode(), {})


def dead_letter_messages() -> Iterator[Message]:
    message = next(rows_messages((1,)))
    yield replace(
        message, topic="dead_letters", headers=dict(dead_letter_headers(message, "Not a valid Arrow IPC stream"))
    )


def valid() -> list[Message]:
    """One of every kind, and of several forms of each."""
    return [
        *rows_messages(),
        *step_messages(),
        *query_messages(),
        *job_messages(),
        *event_messages(),
        *ledger_messages(),
        *dead_letter_messages(),
    ]
