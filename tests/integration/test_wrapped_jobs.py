"""Cartography's AWS modules as jobs: what they need first, what a refusal and a failure leave in the graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from support.commands import EC2, Done, cartoray, environment, serving
from support.databases import empty, open_graph

from cartoray.cluster.coordinator import read_event
from cartoray.events import JobEnded, JobReleased, JobStarted
from cartoray.kafka import read_all
from cartoray.settings import Settings
from cartoray.stack.simulated_aws import SimulatedAws

pytestmark = [pytest.mark.stack, pytest.mark.ray, pytest.mark.timeout(300)]

REGIONS = ("us-east-1", "eu-west-1")
SCOPE = f"{EC2},iam,iaminstanceprofiles,kms,secretsmanager,ssm,analysis"


@dataclass(frozen=True)
class Played:
    """A sync of everything in the scope; and a second by Cartography's own code alone, in which KMS is refused in one

    region and IAM altogether.
    """

    accounts: tuple[str, ...]
    first: Done
    events: list[Any]
    before: dict[str, int]
    second: Done
    after: dict[str, int]

    def of(self, done: Done, what: str) -> dict[str, str]:
        """Account/module → reason, of what was `failures` or `skipped`."""
        return {entry["job"].split("/", 1)[1]: entry["reason"] for entry in done.result[what]}


@pytest.fixture(scope="module")
def played(
    stack_settings: Settings, simulated_aws: SimulatedAws, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Played]:
    kafka = stack_settings.kafka.model_copy(update={"topic_prefix": "wrapped-jobs."})
    variables = environment(stack_settings.model_copy(update={"kafka": kafka}), simulated_aws)
    folder = tmp_path_factory.mktemp("wrapped")
    accounts = simulated_aws.accounts[:2]
    command = ["sync", "--json", "--scope", SCOPE, "--region", ",".join(REGIONS)]
    command += [word for account in accounts for word in ("--account", account)]
    with open_graph(stack_settings.neo4j) as driver, serving(variables, folder):
        empty(driver)

        def count() -> dict[str, int]:
            with driver.session() as session:
                return dict(session.run("MATCH (n) UNWIND labels(n) AS label RETURN label, count(n)").values())

        first = cartoray(*command, environment=variables, folder=folder)
        before = count()
        with driver.session() as session:  # what no account has any more, and who is to delete it
            session.run(
                "MATCH (a:AWSAccount{id: $account}) UNWIND $stale AS stale CALL (a, stale) { "
                "MERGE (k:AWSKMSKey{id: 'stale ' + stale}) SET k.lastupdated = 1 MERGE (a)-[r:RESOURCE]->(k) "
                "SET r.lastupdated = 1 } RETURN 1",
                account=accounts[0],
                stale=[1, 2],
            ).consume()
        denied = [
            {"account": accounts[0], "region": REGIONS[1], "action": "kms:ListKeys"},
            {"account": accounts[0], "action": "iam:ListUsers"},
        ]
        simulated_aws.faults(deny=denied)
        try:
            second = cartoray(*command, "--wrapped", environment=variables, folder=folder)
        finally:
            simulated_aws.faults(deny=[])
        events = [read_event(message) for message in read_all(kafka, "wrapped-jobs.run_events")]
        yield Played(accounts, first, events, before, second, count())


def test_wrapped_and_native_modules_complete_a_run_together(played: Played) -> None:
    result = played.first.expect(0).result
    assert result["jobs"]["landed"] == result["jobs"]["total"]
    assert (result["failures"], result["skipped"]) == ([], [])
    for label in ("AWSEC2Instance", "AWSKMSKey", "AWSRole", "AWSPolicy"):
        assert played.before.get(label), f"no {label} in {sorted(played.before)}"


def test_a_job_starts_when_what_it_needs_has_landed_and_not_before(played: Played) -> None:
    run = played.first.result["run_id"]
    events = [event for event in played.events if getattr(event, "run_id", "") == run]
    ended = {event.job_id: event.at_ms for event in events if isinstance(event, JobEnded)}
    started = {event.job_id: event.at_ms for event in events if isinstance(event, JobStarted)}
    released = {event.job_id for event in events if isinstance(event, JobReleased)}
    for account in played.accounts:
        for module, needed in (("secretsmanager", "kms"), ("ssm", "kms"), ("ssm", "ec2:instance")):
            assert started[f"{run}/{account}/{module}"] >= ended[f"{run}/{account}/{needed}"]
            assert f"{run}/{account}/{module}" in released
        # and no whole phase was waited for: some job started while others of its account were still at it
        own = [job for job in released if f"/{account}/" in job]
        assert min(started[job] for job in own) < max(ended[job] for job in own)


def test_a_refused_region_fails_its_module_which_deletes_nothing_and_what_needs_it_goes_on(played: Played) -> None:
    account = played.accounts[0]
    failed = played.of(played.second.expect(3), "failures")
    assert f"kms:ListKeys in {REGIONS[1]}, account {account}: AccessDenied" in failed[f"{account}/kms"]
    assert played.after["AWSKMSKey"] == played.before["AWSKMSKey"] + 2  # the stale ones
    assert f"{account}/secretsmanager" not in failed
    assert f"{account}/secretsmanager" not in played.of(played.second, "skipped")


def test_a_module_that_raises_fails_with_reason_and_traceback_and_what_needs_it_is_skipped(played: Played) -> None:
    account, other = played.accounts
    failed = played.of(played.second, "failures")
    assert "AccessDenied" in failed[f"{account}/iam"]
    (end,) = [
        event
        for event in played.events
        if isinstance(event, JobEnded) and event.job_id == f"{played.second.result['run_id']}/{account}/iam"
    ]
    assert "cartography/intel/aws/iam.py" in end.traceback
    skipped = played.of(played.second, "skipped")
    assert skipped[f"{account}/iaminstanceprofiles"] == "It needs iam, which did not land."
    assert f"{account}/analysis:instance_profile" in skipped
    assert not any(job.startswith(other) for job in {**failed, **skipped})
    assert played.after["AWSRole"] == played.before["AWSRole"]
