"""Everything that can be planned: Cartography's modules are all there, and can be put in an order."""

from __future__ import annotations

import pytest
from cartography.sync import TOP_LEVEL_MODULES

from actors.catalogue import catalogue
from actors.modules import modules
from actors.wrapped.aws import job_parameters
from actors.wrapped.configuration import configuration, secret_names
from actors.wrapped.dependencies import ACCOUNT_ANALYSIS, NEEDS, RUN_ANALYSIS
from actors.wrapped.modules import PROVIDERS
from cartoray.errors import UsageError
from cartoray.jobs import EVERY_ACCOUNT, Account
from cartoray.planning import Request, plan


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_whole_of_aws_can_be_planned_and_nothing_waits_for_what_is_not_there(wrapped: bool) -> None:  # noqa: FBT001
    known = catalogue("aws", wrapped=wrapped)
    assert known.keys() >= {*NEEDS, *ACCOUNT_ANALYSIS, *RUN_ANALYSIS, *modules()}
    assert {module.name for module in known.values() if not module.wrapped} == (
        {"account"} if wrapped else {*modules()}
    )
    run, jobs = plan(Request((Account(id="111111111111"),)), known, now_ms=0, nonce="x")
    assert {job.module for job in run.jobs()} == known.keys()
    assert "account" in {job.module for job in jobs}
    for module, needed in run.needs.items():
        everywhere = {*run.modules, *run.once} if module in run.once else {*run.modules}
        assert {*needed} <= everywhere, module


def test_every_top_level_module_of_cartography_is_a_provider_in_its_order() -> None:
    assert [name for name in TOP_LEVEL_MODULES if name != "aws"] == list(PROVIDERS)
    run, _ = plan(Request((Account(id="x"),), provider="cartography"), catalogue("cartography"), now_ms=0, nonce="x")
    assert run.modules[-2:] == ("ontology", "analysis") == run.late
    assert run.needs["zizmor"] == ("github",)


def test_the_parameters_of_a_job_are_those_that_cartography_makes_and_its_own() -> None:
    import ast
    import inspect

    from cartography.intel import aws

    (made,) = [
        node
        for node in ast.walk(ast.parse(inspect.getsource(aws.start_aws_ingestion)))
        if isinstance(node, ast.Dict) and len(node.keys) > 3
    ]
    config = configuration(("--aws-guardduty-severity-threshold", "HIGH"))
    found = job_parameters(config, 7, Account(id="111111111111"))
    assert found.keys() == {key.value for key in made.keys if isinstance(key, ast.Constant)} | {"AWS_ID"}
    assert (found["UPDATE_TAG"], found["aws_guardduty_severity_threshold"]) == (7, "HIGH")
    assert found is not job_parameters(config, 7, Account(id="111111111111"))
    assert "AWS_ID" not in job_parameters(config, 7, Account(id=EVERY_ACCOUNT))


def test_options_that_cartography_does_not_take_are_refused_with_its_reason() -> None:
    with pytest.raises(UsageError, match="No such option: --okta-orgid"):
        configuration(("--okta-orgid", "x"))
    with pytest.raises(UsageError, match="for a question"):
        configuration(("--help",))


def test_a_secret_is_read_from_the_file_that_its_variable_names(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "key"  # type: ignore[operator]
    path.write_text("from-a-file\n")
    monkeypatch.setenv("OKTA_OF_TEST_FILE", str(path))
    options = ("--okta-org-id", "acme", "--okta-api-key-env-var=OKTA_OF_TEST")
    assert secret_names(options) == ("OKTA_OF_TEST",)
    assert configuration(options).okta_api_key == "from-a-file"
    monkeypatch.delenv("OKTA_OF_TEST")
    monkeypatch.setenv("OTHER_OF_TEST_FILE", str(path) + ".none")
    with pytest.raises(UsageError, match=r"OTHER_OF_TEST_FILE is .*none, which cannot be read"):
        configuration(("--okta-org-id", "acme", "--okta-api-key-env-var", "OTHER_OF_TEST"))


@pytest.mark.parametrize("name", ["CARTORAY_NEO4J_PASSWORD", "AWS_SECRET_ACCESS_KEY"])
def test_an_option_names_no_secret_of_cartoray_or_aws_which_another_could_send_to_any_host(name: str) -> None:
    for options in (("--gitlab-token-env-var", name), (f"--gitlab-token-env-var={name}",)):
        with pytest.raises(UsageError, match=name):
            configuration(("--gitlab-url", "https://elsewhere.example.com", *options))
