"""What a user gets for what is wrong: one line that says what to do and the right exit code; other accounts go on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import neo4j
import pytest
from support.commands import EC2, Done, cartoray, environment, one_line_error, serving
from support.databases import empty, open_graph, run

from cartoray.cli.runs import read_runs
from cartoray.settings import Settings
from cartoray.stack import ports
from cartoray.stack.simulated_aws import SimulatedAws

pytestmark = pytest.mark.stack

NOBODY = "999999999999"  # an account that has no role for us
ONE_ACCOUNT = ("sync", "--scope", "native", "--account", "111111111111")


@pytest.fixture
def variables(stack_settings: Settings, simulated_aws: SimulatedAws) -> dict[str, str]:
    prefixed = stack_settings.kafka.model_copy(update={"topic_prefix": "bad-input."})
    return environment(stack_settings.model_copy(update={"kafka": prefixed}), simulated_aws)


@pytest.fixture
def dead_port() -> int:
    """A port that nobody listens on."""
    return ports.any_free()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--account", "12345"), "'12345' is not an AWS account ID; they have 12 digits."),
        (("--account", "arn:aws:iam::111111111111:root"), "they have 12 digits."),
        (("--account", "111111111111", "--account", "111111111111"), "Account 111111111111 is given twice."),
        (("--account", "111111111111", "--scope", "ec2:instnace"), "Did you mean ec2:instance"),
        (("--account", "111111111111", "--scope", "ec2:volumes,ec2:vcp"), "Did you mean ec2:vpc"),
        (("--account", "111111111111", "--region", "europe"), "'europe' is not a region"),
        (("--account", "111111111111", "--provider", "gpc"), "Did you mean gcp"),
        (("--account", "111111111111", "--provider", "github"), "--account: for --provider aws alone."),
        (("--provider", "aws,github"), "aws is synced by a run of its own"),
        (("--account", "111111111111", "--instance", "x"), "--instance is for providers other than aws"),
        (("--provider", "github", "--instance", "all"), "'all' stands for all of a run"),
        (("--provider", "github", "--", "--github-config"), "No such option: --github-config"),
        ((), "Give one of --account ID (repeatable), --accounts-file F and --organization."),
    ],
)
def test_a_request_that_cannot_be_is_refused_before_anything_is_published(
    variables: dict[str, str], stack_settings: Settings, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    refused = stack_settings.kafka.model_copy(update={"topic_prefix": "refused."})
    variables["CARTORAY_KAFKA_TOPIC_PREFIX"] = refused.topic_prefix
    done = cartoray("sync", *arguments, environment=variables, folder=tmp_path).expect(2)
    assert said in one_line_error(done)
    assert not read_runs(refused).states


def test_a_kafka_that_does_not_answer_is_named_with_its_setting(
    variables: dict[str, str], tmp_path: Path, dead_port: int
) -> None:
    variables |= {"CARTORAY_KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{dead_port}", "CARTORAY_KAFKA_TIMEOUT_S": "2"}
    for command in (ONE_ACCOUNT, ("serve",), ("status",)):
        done = cartoray(*command, environment=variables, folder=tmp_path).expect(4)
        assert f"127.0.0.1:{dead_port}" in one_line_error(done)
        assert "CARTORAY_KAFKA_BOOTSTRAP_SERVERS" in one_line_error(done)


def test_a_neo4j_that_does_not_answer_is_named_with_its_setting(
    variables: dict[str, str], tmp_path: Path, dead_port: int
) -> None:
    variables |= {"CARTORAY_NEO4J_URI": f"bolt://127.0.0.1:{dead_port}", "CARTORAY_NEO4J_TIMEOUT_S": "2"}
    for command in (("serve",), ("graph",), (*ONE_ACCOUNT, "--serve", "--json")):
        done = cartoray(*command, environment=variables, folder=tmp_path).expect(4)
        assert f"127.0.0.1:{dead_port}" in one_line_error(done)
        assert "CARTORAY_NEO4J_URI" in one_line_error(done)


def test_a_wrong_password_is_named_with_its_setting_and_never_shown(variables: dict[str, str], tmp_path: Path) -> None:
    right, wrong = variables["CARTORAY_NEO4J_PASSWORD"], "mistyped-and-still-private"
    variables["CARTORAY_NEO4J_PASSWORD"] = wrong
    for command in (("serve",), ("graph",), (*ONE_ACCOUNT, "--serve", "--json")):
        done = cartoray(*command, environment=variables, folder=tmp_path).expect(4)
        assert "CARTORAY_NEO4J_PASSWORD" in one_line_error(done)
        assert not any(secret in done.output + done.errors for secret in (right, wrong))


@dataclass(frozen=True)
class Seen:
    """Of a sync after changes in AWS, while some of it was denied: how it ended, and what is in the graph."""

    done: Done
    changes: list[dict[str, str]]
    accounts: tuple[str, ...]
    nodes: frozenset[tuple[str, str]]  # (label, ID)

    @property
    def result(self) -> Any:
        return self.done.result

    def changed(self, kind: str, verb: str, account: str) -> set[str]:
        found = {
            change["id"]
            for change in self.changes
            if (change["kind"], change["verb"], change["account"]) == (kind, verb, account)
        }
        assert found, f"nothing to see: no {kind} of {account} was {verb}"
        return found

    def has(self, label: str, ids: set[str]) -> set[str]:
        """Those of `ids` that are in the graph."""
        return {id_ for id_ in ids if (label, id_) in self.nodes}


@pytest.fixture(scope="module")
def denied(
    stack_settings: Settings, simulated_aws: SimulatedAws, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Seen]:
    """Everything is synced once. Then AWS changes, one operation is denied in one region of the second account, and

    an account is asked for that has no role; the graph has an instance of it, from a time when there was one.
    """
    prefixed = stack_settings.kafka.model_copy(update={"topic_prefix": "denied."})
    variables = environment(stack_settings.model_copy(update={"kafka": prefixed}), simulated_aws)
    folder = tmp_path_factory.mktemp("denied")
    accounts = simulated_aws.accounts
    asked = [word for account in (*accounts, NOBODY) for word in ("--account", account)]
    denial = {"account": accounts[1], "region": "eu-west-1", "action": "ec2:DescribeVolumes"}
    with open_graph(stack_settings.neo4j) as driver:
        empty(driver)
        with serving(variables, folder):
            everything = ("sync", "--organization", "--scope", EC2, "--json")
            cartoray(*everything, environment=variables, folder=folder).expect(0)
            assert run(driver, _OF_NOBODY, account=NOBODY)
            changes = simulated_aws.mutate(seed=700_001)
            simulated_aws.faults(deny=[denial])
            try:
                done = cartoray("sync", "--scope", EC2, *asked, "--json", environment=variables, folder=folder).expect(
                    3
                )
            finally:
                simulated_aws.faults(deny=[])
        yield Seen(done, changes, accounts, _nodes(driver))


_OF_NOBODY = """
MERGE (a:AWSAccount{id: $account})
CREATE (i:AWSEC2Instance{id: 'i-of-nobody', lastupdated: 1})<-[:RESOURCE{lastupdated: 1}]-(a)
"""


def _nodes(driver: neo4j.Driver) -> frozenset[tuple[str, str]]:
    records, _, _ = driver.execute_query("MATCH (n) UNWIND labels(n) AS label RETURN label, n.id AS id")
    return frozenset((record["label"], record["id"]) for record in records)


def test_an_account_without_a_role_fails_alone_with_the_reason(denied: Seen) -> None:
    of_nobody = [failure for failure in denied.result["failures"] if failure["job"].split("/")[1] == NOBODY]
    assert len(of_nobody) == len(denied.result["modules"])
    for failure in of_nobody:
        assert f"arn:aws:iam::{NOBODY}:role/" in failure["reason"]
        assert "\n" not in failure["reason"]
    assert denied.result["state"] == "complete with failed jobs"
    assert denied.result["jobs"]["failed"] == len(of_nobody) + 1


def test_an_account_without_a_role_loses_nothing(denied: Seen) -> None:
    assert ("AWSEC2Instance", "i-of-nobody") in denied.nodes


def test_a_denied_call_fails_its_module_with_operation_region_and_account(denied: Seen) -> None:
    account = denied.accounts[1]
    (failure,) = [failure for failure in denied.result["failures"] if failure["job"].split("/")[1] == account]
    assert failure["job"].endswith("/ec2:volumes")
    for said in ("ec2:DescribeVolumes", "eu-west-1", account):
        assert said in failure["reason"]
    assert "\n" not in failure["reason"]


def test_a_module_that_failed_deletes_nothing_not_even_in_regions_that_answered(denied: Seen) -> None:
    removed = denied.changed("volume", "removed", denied.accounts[1])
    assert denied.has("AWSEBSVolume", removed) == removed


def test_the_other_modules_of_that_account_land_and_clean_up(denied: Seen) -> None:
    account = denied.accounts[1]
    assert not denied.has("AWSEC2Instance", denied.changed("instance", "removed", account))
    assert not denied.has("AWSVpc", denied.changed("vpc", "removed", account))
    added = denied.changed("instance", "added", account)
    assert denied.has("AWSEC2Instance", added) == added


def test_the_same_module_of_other_accounts_lands_and_cleans_up(denied: Seen) -> None:
    for account in (denied.accounts[0], denied.accounts[2]):
        assert not denied.has("AWSEBSVolume", denied.changed("volume", "removed", account))
        added = denied.changed("volume", "added", account)
        assert denied.has("AWSEBSVolume", added) == added
