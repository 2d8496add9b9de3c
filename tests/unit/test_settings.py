"""A wrong value is one clear line; secrets are never in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cartoray.errors import SettingError
from cartoray.settings import Settings, as_pool, load, variable


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


def kafka(**values: str) -> dict[str, str]:
    return {variable("kafka", name): value for name, value in values.items()}


SCRAM = kafka(security_protocol="SASL_SSL", sasl_mechanism="SCRAM-SHA-512", sasl_username="u", sasl_password="planted")
TOKEN = kafka(
    security_protocol="SASL_SSL",
    sasl_mechanism="OAUTHBEARER",
    oauth_token_url="https://idp/token",
    oauth_client_id="c",
    oauth_client_secret="planted",
)


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        (kafka(sasl_username="u"), "_SASL_USERNAME is set, but .*PROTOCOL is PLAINTEXT.*to SASL_SSL, or leave"),
        (kafka(sasl_password="planted", security_protocol="SSL"), "_SASL_PASSWORD is set, but .*PROTOCOL is SSL"),
        (kafka(sasl_mechanism="PLAIN"), "_SASL_MECHANISM is set, but .*PROTOCOL is PLAINTEXT"),
        (kafka(security_protocol="SASL_SSL"), "_SASL_MECHANISM is not set. Set it to PLAIN, SCRAM"),
        (SCRAM | kafka(sasl_username=""), "is SCRAM-SHA-512, which needs CARTORAY_KAFKA_SASL_USERNAME: set it"),
        (SCRAM | kafka(sasl_username="", sasl_password=""), "SASL_USERNAME and CARTORAY_KAFKA_SASL_PASSWORD: set"),
        (SCRAM | kafka(oauth_scope="s"), "_OAUTH_SCOPE is set, but .*SCRAM-SHA-512, which does not use it"),
        (TOKEN | kafka(oauth_client_secret=""), "OAUTHBEARER, which needs CARTORAY_KAFKA_OAUTH_CLIENT_SECRET"),
        (TOKEN | kafka(sasl_password="planted"), "_SASL_PASSWORD is set, but .*OAUTHBEARER, which does not use it"),
        (kafka(ssl_ca_location="ca.pem"), "_SSL_CA_LOCATION is set, but .*PLAINTEXT, which has no TLS. Set it to SSL"),
        (
            SCRAM | kafka(ssl_ca_location="ca.pem", security_protocol="SASL_PLAINTEXT"),
            "_SSL_CA_LOCATION is set, but .*SASL_PLAINTEXT, which has no TLS. Set it to SASL_SSL",
        ),
        (kafka(security_protocol="SSL", ssl_key_location="k"), "_SSL_CERTIFICATE_LOCATION and .* belong together"),
        (kafka(security_protocol="SSL", ssl_key_password="planted"), "KEY_PASSWORD to them: set both"),
        (
            {"CARTORAY_INTEL_KAFKA_SASL_USERNAME": "i"},
            "CARTORAY_INTEL_KAFKA_SASL_USERNAME is set, but CARTORAY_KAFKA_SEC",
        ),
        (
            SCRAM | {"CARTORAY_INGESTION_KAFKA_SASL_USERNAME": "i"},
            "CARTORAY_KAFKA_SASL_MECHANISM is SCRAM-SHA-512, which needs CARTORAY_INGESTION_KAFKA_SASL_PASSWORD",
        ),
        (
            {"CARTORAY_NEO4J_CA_LOCATION": "ca.pem"},
            r"CARTORAY_NEO4J_CA_LOCATION is set, but CARTORAY_NEO4J_URI is not bolt\+s",
        ),
    ],
)
def test_logins_and_tls_that_contradict_themselves_are_one_line_with_the_setting_and_the_remedy(
    environment: dict[str, str], text: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingError, match=text) as raised:
        load(environment, tmp_path)
    assert "\n" not in str(raised.value)
    assert "planted" not in str(raised.value)


@pytest.mark.parametrize("environment", [{}, SCRAM, TOKEN, kafka(security_protocol="SSL", ssl_ca_location="ca.pem")])
def test_a_pool_without_an_identity_of_its_own_has_that_of_all(environment: dict[str, str], tmp_path: Path) -> None:
    settings = load(environment, tmp_path).settings
    assert as_pool(settings, "intel").kafka == as_pool(settings, "ingestion").kafka == settings.kafka


def test_a_pools_own_identity_is_whole_and_the_rest_is_shared(tmp_path: Path) -> None:
    mutual = kafka(ssl_ca_location="ca.pem", ssl_certificate_location="c.pem", ssl_key_location="k.pem")
    own = {"CARTORAY_INTEL_KAFKA_SASL_USERNAME": "i", "CARTORAY_INTEL_KAFKA_SASL_PASSWORD": "own"}
    settings = load(SCRAM | mutual | own, tmp_path).settings
    intel = as_pool(settings, "intel").kafka
    assert (intel.sasl_username, intel.sasl_password.get_secret_value()) == ("i", "own")
    assert (intel.ssl_certificate_location, intel.ssl_key_location) == ("", "")
    assert (intel.security_protocol, intel.sasl_mechanism, intel.ssl_ca_location) == (
        "SASL_SSL",
        "SCRAM-SHA-512",
        "ca.pem",
    )
    assert as_pool(settings, "ingestion").kafka.sasl_username == "u"
