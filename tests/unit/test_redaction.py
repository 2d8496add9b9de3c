"""What libraries say goes into logs and events without secrets."""

from __future__ import annotations

import base64
import json
import logging
import traceback

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from cartoray.logs import log_to_stderr
from cartoray.redaction import HIDDEN, SECRET_MIN, Redaction, redaction
from cartoray.settings import Settings

PLANTED = "planted-token-42"
GITHUB = {"organization": [{"token": PLANTED, "url": "https://github.example.com/graphql", "name": "acme-corporation"}]}


@given(st.text(st.characters(exclude_characters=HIDDEN), min_size=SECRET_MIN), st.text(), st.text())
def test_a_secret_is_in_no_text(secret: str, before: str, after: str) -> None:
    assert secret not in Redaction([secret])(f"{before}{secret}{after}")


def test_of_secrets_that_overlap_nothing_is_left() -> None:
    assert Redaction(["planted", "planted-token"])("a planted-token, a planted one") == f"a {HIDDEN}, a {HIDDEN} one"


@pytest.mark.parametrize("form", [json.dumps(GITHUB), base64.b64encode(json.dumps(GITHUB).encode()).decode()])
def test_what_a_provider_configuration_holds_is_a_secret_but_for_names_and_places(form: str) -> None:
    text = Redaction([form])(f"acme-corporation at https://github.example.com/graphql refuses {PLANTED} of {form}")
    assert text == f"acme-corporation at https://github.example.com/graphql refuses {HIDDEN} of {HIDDEN}"


def test_a_token_that_a_library_quotes_is_hidden_in_its_traceback() -> None:
    token = f"{PLANTED}\n"
    hide = Redaction([base64.b64encode(json.dumps({"token": token}).encode()).decode()])
    with pytest.raises(requests.exceptions.InvalidHeader) as caught:
        requests.get("http://127.0.0.1:1", headers={"Authorization": f"token {token}"}, timeout=1)
    text = "".join(traceback.format_exception(caught.value))
    assert PLANTED in text  # else this test says nothing
    assert PLANTED not in hide(text)


@pytest.mark.parametrize(
    "text",
    [
        "The Canonical String should have been 'POST / x-amz-security-token:IQoJb3JpZ2luX2VjEXAMPLE",
        "GET https://bucket.s3.amazonaws.com/?X-Amz-Security-Token=IQoJb3JpZ2luX2VjEXAMPLE&X-Amz-Date=20260101T000000Z",
        "{'Authorization': 'Bearer IQoJb3JpZ2luX2VjEXAMPLE'}",
        "aws_session_token='IQoJb3JpZ2luX2VjEXAMPLE'",
    ],
)
def test_what_looks_like_credentials_is_hidden_though_nobody_told(text: str) -> None:
    assert "IQoJb3JpZ2luX2VjEXAMPLE" not in Redaction()(text)


def test_what_is_short_stays_since_it_would_be_found_everywhere() -> None:
    assert Redaction(["", " ", "neo4j"])("neo4j at neo4j://neo4j") == "neo4j at neo4j://neo4j"


def test_all_secret_settings_and_those_of_aws_in_the_environment_are_known() -> None:
    settings = Settings.model_validate(
        {
            "neo4j": {"password": "planted-password"},
            "kafka": {"signing_key": "planted-signing-key"},
            "aws": {"external_id": "planted-external-id"},
        }
    )
    environment = {"AWS_SECRET_ACCESS_KEY": "planted-key", "AWS_SESSION_TOKEN": "planted-token", "PATH": "/usr/bin"}
    hide = redaction(settings, environment)
    assert hide("planted-password planted-signing-key planted-external-id planted-key planted-token /usr/bin") == (
        f"{HIDDEN} {HIDDEN} {HIDDEN} {HIDDEN} {HIDDEN} /usr/bin"
    )


def test_log_lines_and_their_tracebacks_are_written_without_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []
    try:
        log_to_stderr("%(message)s", Redaction([PLANTED]))
        try:
            raise ValueError(PLANTED)
        except ValueError:
            logging.getLogger("cartoray.test").exception("refused token=%s", PLANTED)
    finally:
        root.handlers = handlers
        root.setLevel(level)
    said = capsys.readouterr().err
    assert "refused token=" in said and "ValueError" in said
    assert PLANTED not in said
