"""What happened to a run: the values on `run_events` (JSON), from which its state is rebuilt at any time.

Every event is a fact about one attempt, batch or step: the same event twice, or events in another order, give the same
state (see `cartoray.completion`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, TypeAdapter, model_validator

from cartoray.jobs import Frozen, JobId, Milliseconds, Run
from cartoray.settings import PoolName

Partition = Annotated[int, Field(ge=0, lt=2**31)]
Offset = Annotated[int, Field(ge=0, lt=2**63)]  # Kafka's: below 0 they mean something else
Count = Annotated[int, Field(ge=0)]


def _unicode(text: object) -> object:
    return text.encode("utf-8", "backslashreplace").decode() if isinstance(text, str) else text


Text = Annotated[str, BeforeValidator(_unicode)]  # what somebody else may have worded: half characters are written out
Place = tuple[Partition, Offset]
"""(partition, offset) of a message."""


class Deferral(Frozen):
    """Relationships whose other end was not in the graph when their message was written.

    Points at the message on `graph_data` that holds them: (partition, offset) of `rows` rows, relationship number
    `relationship` of its schema (as `ingestion.statements` numbers them).
    """

    partition: Partition
    offset: Offset
    relationship: Count
    rows: Count


class Unresolved(Frozen):
    """Relationships whose other end did not come until the end of the run."""

    relationship: str
    target_label: str
    rows: int
    sample: tuple[Text, ...] = ()


class RunPlanned(Frozen):
    """Published before the run's first job."""

    kind: Literal["run_planned"] = "run_planned"
    run: Run


class RunPublished(Frozen):
    """All jobs of the run are on `intel_jobs`. A run without it was cut off while it was being published."""

    kind: Literal["run_published"] = "run_published"
    run_id: str


class RunCancelled(Frozen):
    """The run was asked to stop: nothing more of it is started, and nothing of it is deleted any more."""

    kind: Literal["run_cancelled"] = "run_cancelled"
    run_id: str
    at_ms: int


class JobStarted(Frozen):
    kind: Literal["job_started"] = "job_started"
    run_id: str
    job_id: JobId
    attempt: str
    actor: str
    at_ms: Milliseconds


class JobReleased(Frozen):
    """A job that was held until what it needs had landed is on `intel_jobs` now."""

    kind: Literal["job_released"] = "job_released"
    run_id: str
    job_id: JobId


class JobEnded(Frozen):
    """An attempt ended and all `messages` that it published are acknowledged by Kafka (sequences 0 … messages-1).

    *partial*: it failed, since the cloud refused or did not answer a part of it, but what it found was published, and
    is true. *cancelled*: its run was, so it was not begun, or ended half-way. `reason` says why it failed, in words
    that need no log, `traceback` where in the code, for a module that raised. `skipped_regions` are not enabled for the
    account.
    """

    kind: Literal["job_ended"] = "job_ended"
    run_id: str
    job_id: JobId
    attempt: str
    outcome: Literal["finished", "partial", "failed", "cancelled"]
    messages: Count
    rows: Count
    calls: Count
    duration_ms: Count
    at_ms: Milliseconds
    reason: Text = ""
    traceback: Text = ""
    skipped_regions: tuple[str, ...] = ()


class BatchLanded(Frozen):
    """Messages of one attempt are in Neo4j: committed there before this event was published.

    `rows` are those of each message, in the order of `sequences`. `untouched` are (partition, offset) of the messages
    on `graph_data` of which nodes were there, and were left as they are: a cleanup reads in them which ones.
    """

    kind: Literal["batch_landed"] = "batch_landed"
    run_id: str
    job_id: JobId
    attempt: str
    sequences: tuple[Count, ...]
    rows: tuple[Count, ...]
    at_ms: Milliseconds
    deferrals: tuple[Deferral, ...] = ()
    untouched: tuple[Place, ...] = ()

    @model_validator(mode="after")
    def _rows_of_each(self) -> Self:
        if len(self.sequences) != len(self.rows):
            raise ValueError("as many rows as sequences")
        return self


class MessageRefused(Frozen):
    """A message of an attempt went to the dead-letter topic: its job has not landed, and does not clean up."""

    kind: Literal["message_refused"] = "message_refused"
    run_id: str
    job_id: JobId
    attempt: str
    sequence: Count
    reason: Text


class QueryLanded(Frozen):
    """A query of an attempt was run. `counters` are Neo4j's that are not 0; `answer` is what it returned.

    `answer`: JSON of `cartoray.queries`, a list of records, each the values in the order of `keys`.
    """

    kind: Literal["query_landed"] = "query_landed"
    run_id: str
    job_id: JobId
    attempt: str
    sequence: Count
    at_ms: Milliseconds
    counters: Mapping[str, int] = Field(default_factory=dict)
    keys: tuple[str, ...] = ()
    answer: str = "[]"


class StepLanded(Frozen):
    """A cleanup or settle step of the run is in Neo4j; with a `reason`, it cannot be done, and that is why."""

    kind: Literal["step_landed"] = "step_landed"
    run_id: str
    step_id: str
    at_ms: Milliseconds
    nodes_deleted: int = 0
    relationships_deleted: int = 0
    relationships_settled: int = 0
    unresolved: tuple[Unresolved, ...] = ()
    reason: Text = ""


class PoolScaled(Frozen):
    """A pool is to have another number of members from now on. Of no run: all that are open have use of it."""

    kind: Literal["pool_scaled"] = "pool_scaled"
    pool: PoolName
    before: int
    target: int
    reason: str
    at_ms: Milliseconds


Event = Annotated[
    RunPlanned
    | RunPublished
    | RunCancelled
    | JobReleased
    | JobStarted
    | JobEnded
    | BatchLanded
    | QueryLanded
    | MessageRefused
    | StepLanded
    | PoolScaled,
    Field(discriminator="kind"),
]
EVENT: TypeAdapter[Event] = TypeAdapter(Event)


def run_of(event: Event) -> str:
    """Empty if it is of none."""
    match event:
        case RunPlanned():
            return event.run.run_id
        case PoolScaled():
            return ""
        case _:
            return event.run_id


def key_of(event: Event) -> str:
    """The event's key on `run_events`: a fact told twice has the same key, so compaction drops the repetition."""
    match event:
        case RunPlanned() | RunPublished() | RunCancelled():
            what = ""
        case JobReleased():
            what = event.job_id
        case JobStarted() | JobEnded():
            what = f"{event.job_id}/{event.attempt}"
        case BatchLanded():
            what = f"{event.job_id}/{event.attempt}/{','.join(map(str, event.sequences))}"
        case MessageRefused() | QueryLanded():
            what = f"{event.job_id}/{event.attempt}/{event.sequence}"
        case StepLanded():
            what = event.step_id
        case PoolScaled():
            what = f"{event.pool}/{event.at_ms}"
    return f"{run_of(event)}/{event.kind}/{what}"
