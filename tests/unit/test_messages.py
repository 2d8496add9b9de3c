"""Every message that can be made can be read, and is then what it was."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import models

from cartoray import wire
from cartoray.cluster.coordinator import read_event
from cartoray.completion import Runs
from cartoray.dead_letters import REASON_MAX, dead_letter_headers, read_dead_letter, without_content
from cartoray.errors import UnreadableMessage
from cartoray.events import Event, JobEnded, MessageRefused, StepLanded, key_of
from cartoray.jobs import Job, Run
from cartoray.messages import Message
from cartoray.steps import Step
from ingestion.ledger import Base, Ledger, Written

EVENTS = get_args(get_args(Event)[0])

names = st.text(max_size=20)
headers = st.dictionaries(names, st.binary(max_size=20), max_size=4)
numbers = st.integers(0, 2**63 - 1)
constants = st.dictionaries(
    names, st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=20), max_size=4
).filter(lambda each: "lastupdated" not in each)
rows_headers = st.builds(
    wire.RowsHeader,
    run_id=names,
    update_tag=numbers,
    job_id=st.from_regex(r"[^/]+/[^/]+/[^/]+", fullmatch=True),
    attempt=names,
    sequence=numbers,
    schema=names,
    constants=constants,
    touch=st.sampled_from(["always", "lazy"]),
)


def event_message(event: Event) -> Message:
    return Message("run_events", 0, 0, key_of(event).encode(), event.model_dump_json().encode(), {})


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_an_event_comes_back_as_it_was_told(kind: type, data: st.DataObject) -> None:
    event = data.draw(models(kind))
    assert read_event(event_message(event)) == event


@given(data=st.data())
def test_no_event_of_any_run_breaks_the_state_of_runs(data: st.DataObject) -> None:
    runs = Runs()
    for kind in data.draw(st.lists(st.sampled_from(EVENTS), max_size=5)):
        state = runs.apply(data.draw(models(kind)))
        if state is not None:
            assert list(state.owed({})) == list(state.owed({}))
            state.due({})
            state.failures()


@given(models(Job))
def test_a_job_comes_back_as_it_was_published(job: Job) -> None:
    assert Job.model_validate_json(job.model_dump_json()) == job
    assert len(job.job_id.split("/")) == 3


@given(models(Run))
def test_jobs_of_a_run_have_ids_of_three_parts(run: Run) -> None:
    assert Run.model_validate_json(run.model_dump_json()) == run
    assert all(len(job.job_id.split("/")) == 3 for job in run.jobs())


@given(models(Step))
def test_a_step_comes_back_as_it_was_published(step: Step) -> None:
    assert wire.decode_step(wire.encode_step(step)) == step
    assert wire.kind_of(dict(wire.step_headers(step))) == "step"


@given(rows_headers)
def test_headers_of_rows_come_back_as_they_went(header: wire.RowsHeader) -> None:
    found = dict(wire.rows_headers(header))
    assert wire.kind_of(found) == "rows"
    assert wire.rows_header(found) == header
    assert wire.origin(dict(wire.query_headers(header))) == wire.origin(found)


@given(models(Base), models(Written))
def test_the_ledger_reads_what_members_write(base: Base, written: Written) -> None:
    ledger = Ledger()
    ledger.read([(b"base", base.model_dump_json().encode()), (b"member", written.model_dump_json().encode())])
    assert (ledger._bases, ledger._others) == ({base.run_id: base}, {"member": written})


@given(
    message=st.builds(Message, names, numbers, numbers, st.binary(), st.binary(), headers),
    reason=st.text(st.characters(codec=None, categories=None)),
)
def test_a_dead_letter_says_why_and_where_from_whatever_the_message_was(message: Message, reason: str) -> None:
    letter = read_dead_letter(replace(message, headers=dict(dead_letter_headers(message, reason))))
    assert (letter.topic, letter.partition, letter.offset) == (message.topic, message.partition, message.offset)
    assert letter.reason == reason.encode("utf-8", "backslashreplace").decode()
    assert dict(letter.headers) == message.headers
    short = read_dead_letter(replace(message, headers=dict(without_content(message, reason))))
    assert (short.topic, short.offset, short.headers) == (message.topic, message.offset, ())
    assert str(len(message.value)) in short.reason


@pytest.mark.parametrize("text", ["half \ud83d a character", "\udfff"])
def test_what_others_have_worded_can_be_told_whatever_it_is(text: str) -> None:
    attempt = {"run_id": "r", "job_id": "r/a/m", "attempt": "a"}
    counted = {"messages": 0, "rows": 0, "calls": 0, "duration_ms": 0, "at_ms": 0}
    for event in (
        JobEnded(**attempt, **counted, outcome="failed", reason=text, traceback=text),
        MessageRefused(**attempt, sequence=0, reason=text),
        StepLanded(run_id="r", step_id="s", at_ms=0, reason=text),
    ):
        assert "\\ud" in event.reason
        assert read_event(event_message(event)) == event


@pytest.mark.parametrize(
    "text",
    [
        '{"kind": "batch_landed", "run_id": "r", "job_id": "r/a/m", "attempt": "a", "at_ms": 0, '
        '"sequences": [0, 1], "rows": [5]}',
        '{"kind": "message_refused", "run_id": "r", "job_id": "r/a/m", "attempt": "a", "sequence": -1, "reason": ""}',
        '{"kind": "message_refused", "run_id": "r", "job_id": "m", "attempt": "a", "sequence": 1, "reason": ""}',
        '{"kind": "run_published", "run_id": "r", "added": "later"}',
        '{"kind": "run_planned", "run": {"run_id": "a/b", "update_tag": 1, "accounts": [], "modules": [], '
        '"planned_at_ms": 1}}',
        '{"kind": "run_planned", "run": {"run_id": "r", "update_tag": 1, "accounts": [], "modules": ["x/y"], '
        '"planned_at_ms": 1}}',
        '{"kind": "run_planned", "run": {"run_id": "r", "update_tag": 9223372036854775808, "accounts": [], '
        '"modules": [], "planned_at_ms": 1}}',
    ],
)
def test_an_event_that_no_process_of_ours_tells_is_refused(text: str) -> None:
    with pytest.raises(UnreadableMessage):
        read_event(Message("run_events", 0, 0, b"", text.encode(), {}))


def test_a_reason_is_cut_where_a_dead_letter_would_be_too_large() -> None:
    message = Message("graph_data", 1, 2, b"", b"x" * 10, {"huge": b"h" * 10_000})
    assert sum(len(value) for _, value in without_content(message, "r" * 1_000_000)) < REASON_MAX + 500
