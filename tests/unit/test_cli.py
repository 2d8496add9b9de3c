"""Every command teaches itself, and what is wrong is one line with the right exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
import typer

from cartoray.cli.main import app
from cartoray.cli.serve import _actors
from cartoray.cli.sync import read_accounts
from cartoray.errors import UsageError

ROOT = Path(__file__).parents[2]


def commands(group: click.Command, *path: str) -> list[tuple[str, ...]]:
    if not isinstance(group, click.Group) and not hasattr(group, "commands"):
        return [path]
    return [found for name, command in group.commands.items() for found in commands(command, *path, name)]


COMMANDS = commands(typer.main.get_command(app))


def cartoray(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "cartoray.cli.main", *arguments],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_and_option_has_help(command: tuple[str, ...]) -> None:
    found = typer.main.get_command(app)
    for name in command:
        found = found.commands[name]
    assert found.help
    for parameter in found.params:
        assert getattr(parameter, "help", None), f"{' '.join(command)}: {parameter.name}"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_is_in_the_readme(command: tuple[str, ...]) -> None:
    assert f"cartoray {' '.join(command)}" in (ROOT / "README.md").read_text()


def test_help_loads_neither_ray_nor_boto3_nor_cartography() -> None:
    code = (
        "import sys, cartoray.cli.main; "
        "print([name for name in ('ray', 'boto3', 'neo4j', 'cartography', 'moto', 'pyarrow') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["plan"], 2, "Give one of --account"),
        (["plan", "--account", "12"], 2, "'12' is not an AWS account ID; they have 12 digits"),
        (["plan", "--account", "111111111111", "--provider", "gcp"], 2, "--account: for --provider aws alone"),
        (["plan", "--provider", "gpc"], 2, "Did you mean gcp"),
        (["plan", "--account", "111111111111", "--scope", "ec2:instances"], 2, "Did you mean ec2:instance"),
        (["plan", "--account", "111111111111", "--region", "mars"], 2, "'mars' is not a region"),
        (["plan", "--account", "111111111111", "--account", "222222222222"], 2, "no role to assume"),
        (["plan", "--accounts-file", "none.txt"], 2, "none.txt"),
        (["sync", "--account", "111111111111", "--nonsense"], 2, "No such option"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(arguments: list[str], code: int, text: str, tmp_path: Path) -> None:
    result = cartoray(*arguments, cwd=tmp_path)
    assert result.returncode == code, result.stderr
    assert text in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_plan_shows_the_jobs_as_json_and_nothing_else(tmp_path: Path) -> None:
    result = cartoray(
        "plan", "--account", "111111111111", "--scope", "ec2:volumes,ec2:instance", "--json", cwd=tmp_path
    )
    jobs = json.loads(result.stdout)["jobs"]
    assert [job["module"] for job in jobs] == ["account", "ec2:instance", "ec2:volumes"]


def test_config_masks_secrets_and_says_where_each_value_comes_from(tmp_path: Path) -> None:
    result = cartoray("config", "--json", cwd=tmp_path, CARTORAY_NEO4J_PASSWORD="planted-secret")
    entries = {entry["setting"]: entry for entry in json.loads(result.stdout)}
    assert entries["CARTORAY_NEO4J_PASSWORD"]["value"] == "********"
    assert entries["CARTORAY_NEO4J_PASSWORD"]["source"] == "environment"
    assert entries["CARTORAY_NEO4J_URI"]["source"] == "default"
    assert "planted-secret" not in result.stdout + result.stderr
    assert "planted-secret" not in cartoray("config", cwd=tmp_path, CARTORAY_NEO4J_PASSWORD="planted-secret").stdout


def test_a_wrong_setting_is_one_line_on_stderr(tmp_path: Path) -> None:
    result = cartoray("runs", cwd=tmp_path, CARTORAY_KAFKA_TIMEOUT_S="soon")
    assert result.returncode == 2
    assert result.stderr.strip().startswith("error: CARTORAY_KAFKA_TIMEOUT_S is 'soon'; it takes")
    assert len(result.stderr.strip().splitlines()) == 1


def test_an_accounts_file_has_ids_names_and_comments(tmp_path: Path) -> None:
    path = tmp_path / "accounts"
    path.write_text("# ours\n111111111111 prod main\n\n222222222222,dev  # old\n333333333333\n")
    assert [(each.id, each.name) for each in read_accounts(path)] == [
        ("111111111111", "prod main"),
        ("222222222222", "dev"),
        ("333333333333", None),
    ]
    path.write_text("111111111111\n11111\n")
    with pytest.raises(UsageError, match="line 2: '11111' is not"):
        read_accounts(path)


@pytest.mark.parametrize(("text", "least", "most"), [("2", 2, 2), ("0-8", 0, 8), ("1-1", 1, 1)])
def test_a_pool_has_a_number_of_actors_or_a_range(text: str, least: int, most: int) -> None:
    assert _actors("--intel-actors", text) == {"actors_min": least, "actors_max": most}


@pytest.mark.parametrize("text", ["", "0", "two", "4-2", "-1", "1-2-3"])
def test_other_texts_for_the_size_of_a_pool_are_refused_with_what_it_takes(text: str) -> None:
    with pytest.raises(UsageError, match=r"--intel-actors is .*2, or 0-8"):
        _actors("--intel-actors", text)
