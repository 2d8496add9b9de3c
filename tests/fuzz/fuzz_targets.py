"""What every process does with a message, up to what it would send to Neo4j or keep in its state.

`consume` answers whether the message was taken or refused. Whatever it raises would have ended a member of a pool, and
the one after it: that is a bug, whatever the bytes were.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from neo4j._codec.packstream.v1 import PackableBuffer, Packer
from pydantic import SecretStr
from support import samples

from actors import worker
from cartoray.cli.render import as_dict
from cartoray.cluster.coordinator import read_event
from cartoray.completion import FollowUp, FollowUps, Runs, RunState
from cartoray.dead_letters import REASON_MAX, dead_letter_headers, read_dead_letter
from cartoray.errors import UnreadableMessage
from cartoray.events import EVENT, Event, JobStarted, RunPlanned, RunPublished, key_of, run_of
from cartoray.messages import Message
from cartoray.steps import Analyse, CleanupNodes, DeriveLinks
from ingestion import sink
from ingestion.analyses import analysis
from ingestion.batching import Group, QueryItem, RowsItem, StepItem
from ingestion.derivations import derivation
from ingestion.effects import properties_set
from ingestion.ledger import Ledger, Mark, Trust
from ingestion.rows import decode, prepare, relationship_rows
from ingestion.statements import cleanups, statements
from ingestion.units import units

TAKEN, REFUSED = "taken", "refused"
KEY = SecretStr(samples.SIGNING_KEY)
FOLLOW_UPS = {"ec2:instance": FollowUps(cleanup=(FollowUp(CleanupNodes(schema_path=samples.INSTANCE)),))}

_REFUSED_BY_DRIVER = (ValueError, TypeError, OverflowError)  # which `Writer` makes a dead letter of
_HOOKS = importlib.import_module("neo4j._codec.hydration.bolt.v2").HydrationHandler().dehydration_hooks


def consume(message: Message, *, signed: bool = True) -> str:
    """`signed`: queries are looked at although nobody signed them, as where no signing key is set."""
    match message.topic:
        case "graph_data":
            return _data(message, None if signed else KEY)
        case "intel_jobs":
            return _job(message)
        case "run_events":
            return _event(message)
        case "graph_ledger":
            return _ledger(message)
        case _:
            return _dead_letter(message)


def _data(message: Message, key: SecretStr | None) -> str:
    try:
        item = sink._decode(message, key)
    except UnreadableMessage as error:
        _bury(message, str(error), sink._refusal(message, str(error)[:REASON_MAX]))
        return REFUSED
    match item:
        case RowsItem():
            _rows(item)
        case StepItem():
            _step(item)
        case QueryItem():
            for unit in units([item]):
                properties_set(unit.first.text)
                _pack(unit.first.parameters)
    if not isinstance(item, RowsItem):  # a step may point at any message
        with suppress(UnreadableMessage):
            decode(message)
    return TAKEN


def _rows(item: RowsItem) -> None:
    """As `Writer.write`."""
    schema = statements(item.header.schema)
    try:
        prepared = prepare(Group(schema.path, (item,)), schema, Trust({item.header.run_id: b"salt"}))
    except (TypeError, ValueError):
        return
    try:
        prepared.keys()
        rows = prepared.rows(range(len(prepared)))
        related = [relationship_rows(relationship, prepared) for relationship in schema.relationships]
    except _REFUSED_BY_DRIVER:
        return
    _pack({"rows": rows[:1_000], "loads": prepared.loads})
    for found in related:
        if found is not None:
            found.key(0)
    list(map(hash, prepared.ids))


def _step(item: StepItem) -> None:
    """As `Landing.step`, without a database."""
    for action in item.step.actions:
        try:
            match action:
                case CleanupNodes():
                    cleanups(action.schema_path, action.of)
                    statements(action.schema_path)
                case Analyse():
                    analysis(action.path)
                case DeriveLinks():
                    derivation(action.schema_path)
        except UnreadableMessage as error:
            _told(str(error))
    _pack({"tag": item.step.update_tag, "account": item.step.account_id})


def _pack(parameters: Mapping[str, Any]) -> None:
    with suppress(*_REFUSED_BY_DRIVER):
        Packer(PackableBuffer()).pack(dict(parameters), dehydration_hooks=_HOOKS)


def _job(message: Message) -> str:
    try:
        job = worker._decode(message)
    except UnreadableMessage as error:
        _bury(message, str(error), worker._refusal(message, str(error)[:REASON_MAX]))
        return REFUSED
    started = JobStarted(run_id=job.run_id, job_id=job.job_id, attempt="a", actor="b", at_ms=0)
    _send(started)
    _pack({"tag": job.update_tag, "account": job.account.id})
    return TAKEN


def _event(message: Message) -> str:
    message.key.decode(errors="replace").split("/")
    try:
        event = read_event(message)
    except UnreadableMessage:
        return REFUSED
    _send(event)
    for state in (Runs().apply(event), _of_a_run(event) if run_of(event) == samples.RUN_ID else None):
        if state is not None:
            _look(state)
    return TAKEN


def _of_a_run(event: Event) -> RunState:
    state = RunState(samples.RUN_ID)
    for known in (RunPlanned(run=samples.RUN), event, RunPublished(run_id=samples.RUN_ID)):
        state.apply(known)
    return state


def _look(state: RunState) -> None:
    """As coordinator, `sync` and `status`."""
    for step in state.owed(FOLLOW_UPS):
        step.model_dump_json().encode()
    for job in state.due(FOLLOW_UPS):
        job.model_dump_json().encode()
    as_dict(state, FOLLOW_UPS)


def _ledger(message: Message) -> str:
    ledger = Ledger()
    ledger.read([(message.key, message.value)])
    for run_id in (samples.RUN_ID, "another"):
        ledger.begin(run_id, ledger.judge(run_id, Mark("0f" * 16, 9)))
    assert ledger.trust is not None
    return TAKEN if ledger._others or ledger._bases else REFUSED


def _dead_letter(message: Message) -> str:
    try:
        letter = read_dead_letter(message)
    except UnreadableMessage:
        return REFUSED
    letter.reason.encode()
    return TAKEN


def _bury(message: Message, reason: str, event: Event | None) -> None:
    """What is refused says so: in a dead letter that can be read, and on its run's events if it still names one."""
    assert reason
    headers = dict(dead_letter_headers(message, reason[:REASON_MAX]))
    letter = read_dead_letter(replace(message, headers=headers))
    assert (letter.topic, letter.partition, letter.offset) == (message.topic, message.partition, message.offset)
    assert letter.reason
    if event is not None:
        _send(event)


def _send(event: Event) -> None:
    """An event that is published can be read, and be kept under its key."""
    assert EVENT.validate_json(event.model_dump_json()) == event
    key_of(event).encode()


def _told(reason: str) -> None:
    reason.encode()
