"""`cartoray iam-policy`: what IAM must allow, and no more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from actors.modules import modules
from actors.policies import assuming, reading, trusting
from cartoray.cli.main import app
from cartoray.errors import UsageError

EXTERNAL_ID = "planted-external-id"


@pytest.fixture(autouse=True)
def no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def asked(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["iam-policy", *arguments])


def statement(found: Result) -> Any:
    """The only one of the policy that was printed."""
    assert found.exit_code == 0, found.output
    (only,) = json.loads(found.stdout)["Statement"]
    return only


def test_a_scope_needs_what_its_modules_declare_each_action_once_and_nothing_with_a_star() -> None:
    (only,) = reading(modules().values())["Statement"]
    assert only["Action"] == sorted({action for module in modules().values() for action in module.permissions})
    assert not any("*" in action for action in only["Action"])


def test_a_scope_is_that_of_sync_and_standard_output_is_the_policy_alone() -> None:
    found = asked("--scope", "ec2:vpc,ec2:volumes")
    actions = ["ec2:DescribeRegions", "ec2:DescribeVolumes", "ec2:DescribeVpcs", "sts:GetCallerIdentity"]
    assert statement(found)["Action"] == actions
    assert found.stderr == ""


@pytest.mark.parametrize("scope", [("--scope", "ec2:vpc,sns"), ("--scope", "ec2:vpc", "--wrapped"), ()])
def test_what_is_not_native_needs_what_cartography_asks_for(scope: tuple[str, ...]) -> None:
    found = asked(*scope)
    assert statement(found)
    assert "arn:aws:iam::aws:policy/SecurityAudit" in found.stderr


def test_what_only_reads_the_graph_needs_nothing() -> None:
    assert asked("--scope", "native,analysis").stderr == ""


def test_workers_may_assume_that_role_and_no_other() -> None:
    workers, organization = assuming("Reader", "aws-us-gov")["Statement"]
    assert (workers["Action"], workers["Resource"]) == ("sts:AssumeRole", "arn:aws-us-gov:iam::*:role/Reader")
    assert organization["Action"] == "organizations:ListAccounts"


def test_a_role_trusts_that_principal_alone() -> None:
    (only,) = trusting("arn:aws:iam::111122223333:role/workers", None)["Statement"]
    assert only["Principal"] == {"AWS": "arn:aws:iam::111122223333:role/workers"}
    assert "Condition" not in only  # the workers send no external ID, and would be refused


def test_the_external_id_is_printed_only_if_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARTORAY_AWS_EXTERNAL_ID", EXTERNAL_ID)
    trust = ("--trust", "arn:aws:iam::111122223333:role/workers")
    hidden = asked(*trust)
    assert EXTERNAL_ID not in hidden.output
    assert statement(hidden)["Condition"]["StringEquals"] == {"sts:ExternalId": "<the external ID>"}
    shown = asked(*trust, "--show-external-id")
    assert statement(shown)["Condition"]["StringEquals"] == {"sts:ExternalId": EXTERNAL_ID}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--scope", "ec2:vpcs"), "Did you mean ec2:vpc"),
        (("--workers",), "CARTORAY_AWS_ROLE_NAME"),
        (("--workers", "--trust", "111122223333"), "one after the other"),
        (("--trust", "*"), "it takes one principal"),
        (("--show-external-id",), "CARTORAY_AWS_EXTERNAL_ID"),
    ],
)
def test_what_cannot_be_is_a_usage_error(arguments: tuple[str, ...], said: str) -> None:
    error = asked(*arguments).exception
    assert isinstance(error, UsageError)
    assert said in str(error)
