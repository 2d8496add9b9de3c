"""Texts without secrets. Errors of libraries may repeat what they were given: a token in a header that is no header.

What cartoray itself says holds none; this is for what others say, before it goes into a log or an event.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import SecretStr

from cartoray.settings import Settings

HIDDEN = "…"
SECRET_MIN = 6  # characters; what is shorter would be found everywhere
_OF_AWS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_NO_SECRETS = frozenset({"name", "url"})  # of a provider's configuration: without them a reason is worth little

# What nobody told us: the credentials of assumed roles, as AWS repeats what was signed, and those of requests.
_OF_REQUESTS = re.compile(
    r"(x-amz-security-token\W{1,4}|\b(?:bearer|basic)\s+|aws_session_token\W{1,4}|aws_secret_access_key\W{1,4})"
    r"[\w%+/.~=-]{16,}",
    re.IGNORECASE,
)


class Redaction:
    """Called with a text, answers it without the secrets that it knows, and without what looks like credentials."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets: list[str] = []
        self.add(secrets)

    def add(self, secrets: Iterable[str]) -> None:
        """Secrets, each with what it holds: those of providers are often JSON, and that in base64."""
        found = {form for secret in secrets for form in _forms(secret) if len(form) >= SECRET_MIN}
        self._secrets = sorted({*self._secrets, *found}, key=len, reverse=True)  # one may be part of another

    def __call__(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return _OF_REQUESTS.sub(rf"\g<1>{HIDDEN}", text)


def redaction(settings: Settings, environment: Mapping[str, str] = os.environ) -> Redaction:
    """What hides the settings that are secrets, and AWS's of the environment."""
    own = (value.get_secret_value() for _, group in settings for _, value in group if isinstance(value, SecretStr))
    return Redaction([*own, *(environment[name] for name in _OF_AWS if name in environment)])


def _forms(secret: str) -> Iterator[str]:
    yield from _texts(secret)
    try:
        decoded = base64.b64decode(secret, validate=True).decode()
    except ValueError:
        return
    yield from _texts(decoded)


def _texts(text: str) -> Iterator[str]:
    yield text
    yield text.strip()
    yield repr(text)[1:-1]  # as a traceback shows a line break in it
    try:
        yield from _leaves(json.loads(text))
    except (ValueError, RecursionError):
        return


def _leaves(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
            yield value.strip()
            yield repr(value)[1:-1]
        case dict():
            for name, each in value.items():
                if name not in _NO_SECRETS:
                    yield from _leaves(each)
        case list():
            for each in value:
                yield from _leaves(each)
