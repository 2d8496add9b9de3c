"""A wrong value is one clear line; secrets are never in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cartoray.errors import SettingError
from cartoray.settings import Settings, load, variable


def test_the_environment_goes_before_the_file_before_the_stack_before_the_default(tmp_path: Path) -> None:
    (tmp_path / ".cartoray").mkdir()
    stack = {"kafka": {"bootstrap_servers": "stack:1"}, "neo4j": {"uri": "bolt://stack:2", "password": "s"}}
    (tmp_path / ".cartoray" / "settings.json").write_text(json.dumps(stack))
    (tmp_path / "cartoray.toml").write_text('[neo4j]\nuri = "bolt://file:3"\nuser = "filed"\n')
    loaded = load({"CARTORAY_NEO4J_USER": "someone"}, tmp_path)
    assert loaded.settings.kafka.bootstrap_servers == "stack:1"
    assert loaded.settings.neo4j.uri == "bolt://file:3"
    assert loaded.settings.neo4j.user == "someone"
    assert loaded.settings.neo4j.database == "neo4j"
    assert loaded.sources["kafka", "bootstrap_servers"] == "embedded stack"
    assert loaded.sources["neo4j", "uri"].endswith("cartoray.toml")
    assert loaded.sources["neo4j", "user"] == "environment"
    assert ("neo4j", "database") not in loaded.sources


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        ({"CARTORAY_NEO4J_URI": "http://x"}, "CARTORAY_NEO4J_URI is 'http://x'; it takes: a URI such as bolt://"),
        (
            {"CARTORAY_INTEL_ACTORS_MAX": "many"},
            "CARTORAY_INTEL_ACTORS_MAX is 'many'; it takes: input should be a valid integer",
        ),
        (
            {"CARTORAY_INTEL_ACTORS_MIN": "8"},
            "CARTORAY_INTEL_ACTORS_MIN is '8'; it takes: not more than actors_max, which is 4",
        ),
        ({"CARTORAY_INTEL_ACTORS_MAX": "0"}, "CARTORAY_INTEL_ACTORS_MAX is '0'; it takes: .*than or equal to 1"),
        (
            {"CARTORAY_NEO4J_PASWORD": "x"},
            "CARTORAY_NEO4J_PASWORD is not a setting of cartoray. Settings of neo4j: uri",
        ),
        ({"CARTORAY_NEO": "x"}, "CARTORAY_NEO is not a setting"),
        ({"CARTORAY_CONFIG": "none.toml"}, "CARTORAY_CONFIG names none.toml, which does not exist"),
        ({"CARTORAY_KAFKA_TOPIC_PREFIX": "a b"}, "CARTORAY_KAFKA_TOPIC_PREFIX is 'a b'; it takes"),
    ],
)
def test_a_wrong_value_is_one_line_with_setting_value_and_what_it_takes(
    environment: dict[str, str], text: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingError, match=text) as raised:
        load(environment, tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", ["[neo4j\n", "[neo]\nuri='x'\n", "kafka = 3\n"])
def test_a_wrong_file_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "cartoray.toml").write_text(content)
    with pytest.raises(SettingError, match=r"cartoray\.toml"):
        load({}, tmp_path)


def test_a_secret_is_in_no_error_and_no_picture(tmp_path: Path) -> None:
    environment = {"CARTORAY_NEO4J_PASSWORD": "planted-secret", "CARTORAY_NEO4J_TIMEOUT_S": "-1"}
    with pytest.raises(SettingError) as raised:
        load(environment, tmp_path)
    assert "planted-secret" not in str(raised.value)
    assert "planted-secret" not in repr(load({"CARTORAY_NEO4J_PASSWORD": "planted-secret"}, tmp_path))


def test_credentials_inside_a_uri_are_not_shown(tmp_path: Path) -> None:
    with pytest.raises(SettingError) as raised:
        load({"CARTORAY_NEO4J_URI": "http://neo4j:planted-secret@host:7687"}, tmp_path)
    assert "planted-secret" not in str(raised.value)


@pytest.mark.parametrize(("group", "name"), [(g, n) for g, s in Settings() for n in type(s).model_fields])
def test_every_setting_can_be_given_by_its_variable(group: str, name: str, tmp_path: Path) -> None:
    value = getattr(getattr(Settings(), group), name)
    text = value.get_secret_value() if hasattr(value, "get_secret_value") else str(value)
    loaded = load({variable(group, name): text}, tmp_path)
    assert loaded.sources[group, name] == "environment"
