"""Three providers through cartoray: the graph of stock Cartography. `make test-providers` takes minutes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import neo4j
import pytest
from providers.comparison import cartoray_environment, held_against_stock, run
from providers.standins import PROVIDERS, start
from support.commands import cartoray, serving

from cartoray.settings import Neo4jSettings, Settings

pytestmark = [pytest.mark.stack, pytest.mark.ray, pytest.mark.timeout(1_800)]


@pytest.mark.parametrize("way", ["command", "job"])
@pytest.mark.parametrize("name", PROVIDERS)
def test_cartoray_gives_stocks_graph(  # noqa: PLR0917 - fixtures
    name: str, way: str, stack_settings: Settings, stock_neo4j: Neo4jSettings, graph: neo4j.Driver, tmp_path: Path
) -> None:
    """By `cartoray cartography`, and by a job in the workers: `cartoray sync --provider`."""
    kafka = stack_settings.kafka.model_copy(update={"topic_prefix": f"{name}.{way}."})
    settings = stack_settings.model_copy(update={"kafka": kafka})
    with start(name, tmp_path) as provider:
        variables = cartoray_environment(provider, settings)

        def command(arguments: Sequence[str], tag: int) -> int:
            tagged = [*arguments, "--update-tag", str(tag)]
            run(["cartoray.cli.main", "cartography", "--", *tagged], variables, tmp_path)
            return tag

        def job(arguments: Sequence[str], _: int) -> int:
            modules, options = provider_and_options(arguments)
            sync = ("sync", "--json", "--provider", modules, "--", *options)
            done = cartoray(*sync, environment=variables, folder=tmp_path).expect(0)
            return int(done.result["update_tag"])

        with serving(variables, tmp_path, "--intel-actors", "1"):
            differences = held_against_stock(
                provider,
                stock=stock_neo4j,
                graph=graph,
                folder=tmp_path,
                run_ours=command if way == "command" else job,
            )
    assert not differences, "\n".join([f"{len(differences)} differences", *differences[:80]])


def provider_and_options(arguments: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Cartography's `--selected-modules` is our `--provider`; the rest is passed on as it is."""
    place = arguments.index("--selected-modules")
    return arguments[place + 1], [*arguments[:place], *arguments[place + 2 :]]


def test_what_a_job_says_of_its_failure_holds_no_secret(
    stack_settings: Settings, graph: neo4j.Driver, tmp_path: Path
) -> None:
    kafka = stack_settings.kafka.model_copy(update={"topic_prefix": "refusing."})
    settings = stack_settings.model_copy(update={"kafka": kafka})
    secret = "not-a-config-and-still-private"
    with start("github", tmp_path) as provider:
        variables = {**cartoray_environment(provider, settings), "GITHUB_OF_NOBODY": secret}
        command = ("sync", "--json", "--provider", "github", "--instance", "nobody")
        with serving(variables, tmp_path, "--intel-actors", "1"):
            options = ("--", "--github-config-env-var", "GITHUB_OF_NOBODY")
            done = cartoray(*command, *options, environment=variables, folder=tmp_path).expect(4)
    (failure,) = done.result["failures"]
    assert failure["job"].endswith("/nobody/github")
    assert "cartography/intel/github" in failure["traceback"]
    assert secret not in json.dumps(done.result)
