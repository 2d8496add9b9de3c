"""How every Kafka client is made, and what it means when one cannot do what was asked.

Clients are made by the process that uses them, never at import: librdkafka's threads do not survive a fork.
"""

from __future__ import annotations

import logging
import os
import ssl
import time
from collections.abc import Callable
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException

from cartoray.errors import CartorayError, KafkaRefused, KafkaUnavailable, SettingError
from cartoray.settings import KafkaSettings, variable

log = logging.getLogger(__name__)
T = TypeVar("T")
C = TypeVar("C")

_AGAIN_S = 0.1
_SHARES = (0.2, 0.8)  # of a time-out, after each of which refusals are looked for
# of a token endpoint's answer (RFC 6749, 5.2), and of a certificate of its that is not trusted
_TOKEN_REFUSED = ("invalid_", "unauthorized_client", "unsupported_grant_type", "SSL certificate")
DENIED = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }
)
_NOT_YET = frozenset(  # of a leader or coordinator that has just been elected, and does not know it
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    }
)


def unavailable(settings: KafkaSettings, what: str, error: object = "") -> KafkaUnavailable:
    detail = f" ({error})" if error else ""
    return KafkaUnavailable(
        f"Kafka at {settings.bootstrap_servers} {what}{detail}. Start it with `cartoray up`, "
        f"or set {variable('kafka', 'bootstrap_servers')} to the brokers you have and "
        f"{variable('kafka', 'security_protocol')} to what they speak there."
    )


def denied(settings: KafkaSettings, operation: str, resource: str) -> KafkaRefused:
    """For a login that is good, and a right that it lacks."""
    return KafkaRefused(
        f"Kafka at {settings.bootstrap_servers} denies {_principal(settings)} {operation} on {resource}. "
        "`cartoray acls` prints the topics, and the rights that each part of cartoray needs."
    )


class Troubles:
    """Of one client: what its errors mean.

    librdkafka tells of brokers that refuse the login, or that cannot be trusted, beside its answers, within `poll`. It
    goes on trying, so that a call which needs one of them runs into its time-out.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self.told: KafkaError | None = None

    def __call__(self, error: KafkaError) -> None:
        if error.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL):
            self.told = error

    def meaning(self, error: KafkaError, what: str, operation: str, resource: str) -> CartorayError:
        """What to raise for `error`, met when `operation` was asked for on `resource`; `what` if it is of no kind."""
        if error.code() in DENIED:
            return denied(self._settings, operation, resource)
        return unavailable(self._settings, what, error.str()) if self.told is None else self._of_login(self.told)

    def raise_final(self) -> None:
        """For who goes on for a long time: what brokers say of the login is final; what else was told may pass."""
        told, self.told = self.told, None
        if told is not None:
            error = self._of_login(told)
            if isinstance(error, KafkaRefused) and told.code() != KafkaError._SSL:
                raise error
            log.warning("kafka_trouble reason=%s", error)

    def answer(self, ask: Callable[[], T], operation: str, resource: str) -> T:
        """Asks again while it is too early. Raises KafkaUnavailable, and KafkaRefused if `operation` is not allowed."""
        deadline = time.monotonic() + self._settings.timeout_s
        while True:
            try:
                answer = ask()
            except TimeoutError as error:
                raise unavailable(self._settings, "does not answer", error) from error
            except KafkaException as error:
                if error.args[0].code() not in _NOT_YET or time.monotonic() > deadline:
                    raise self.meaning(error.args[0], "does not answer", operation, resource) from error
                time.sleep(_AGAIN_S)
            else:
                self.told = None  # of another broker, or gone by
                return answer

    def _of_login(self, error: KafkaError) -> CartorayError:
        """Refused is what the other side said; a connection that was lost while it was made may pass."""
        settings, text = self._settings, error.str()
        where = f"Kafka at {settings.bootstrap_servers}"
        if error.code() == KafkaError._SSL:
            own = " and the certificate of the client" if settings.ssl_certificate_location else ""
            refused = "verify failed" in text or "alert" in text
            return (KafkaRefused if refused else KafkaUnavailable)(
                f"{where} and this client do not agree on TLS ({text}). Check "
                f"{variable('kafka', 'ssl_ca_location')}, {variable('kafka', 'security_protocol')}{own}."
            )
        if "acquire SASL OAUTHBEARER token" in text:
            refused = any(sign in text for sign in _TOKEN_REFUSED)
            return (KafkaRefused if refused else KafkaUnavailable)(
                f"No token for {where} from {settings.oauth_token_url} ({text}). Check "
                f"{variable('kafka', 'oauth_token_url')}, _CLIENT_ID, _CLIENT_SECRET, _SCOPE and _CA_LOCATION."
            )
        names = variable("kafka", "sasl_username") + ", _PASSWORD and _MECHANISM"
        if settings.sasl_mechanism == "OAUTHBEARER":
            names = variable("kafka", "oauth_client_id")
        return KafkaRefused(f"{where} refuses the login of {_principal(settings)} ({text}). Check {names}.")


def new_client(kind: Callable[[dict[str, Any]], C], settings: KafkaSettings, troubles: Troubles, **more: Any) -> C:
    """A client of confluent-kafka's `kind`. Raises SettingError for a file that librdkafka cannot use."""
    configuration = {
        "bootstrap.servers": settings.bootstrap_servers,
        # librdkafka's own log lines on stderr would tear the progress display; errors reach the callers as exceptions
        "log_level": 0,
        "socket.keepalive.enable": True,
        "error_cb": troubles,
        **security(settings),
        **more,
    }
    try:
        return kind(configuration)
    except KafkaException as error:
        raise SettingError(_unusable(settings, error.args[0].str())) from None


def in_two(ask: Callable[[float], T], timeout_s: float, told: Callable[[], KafkaError | None]) -> T:
    """What `ask(seconds)` answers. A refusal is told beside the answers: it is looked for before the time-out is over.

    Raises KafkaException, for what was told, else for what `ask` raised.
    """
    for share in _SHARES:
        try:
            return ask(timeout_s * share)
        except KafkaException as error:
            failed = error
        if (refusal := told()) is not None:
            raise KafkaException(refusal)
    raise failed


def security(settings: KafkaSettings) -> dict[str, Any]:
    """What librdkafka takes of TLS and of the login; what is not set is left to it."""
    by_token = settings.sasl_mechanism == "OAUTHBEARER"
    entries = {
        "security.protocol": settings.security_protocol,
        "sasl.mechanism": settings.sasl_mechanism,
        "sasl.username": settings.sasl_username,
        "sasl.password": settings.sasl_password.get_secret_value(),
        "sasl.oauthbearer.method": "oidc" if by_token else "",
        "sasl.oauthbearer.token.endpoint.url": settings.oauth_token_url,
        "sasl.oauthbearer.client.id": settings.oauth_client_id,
        "sasl.oauthbearer.client.secret": settings.oauth_client_secret.get_secret_value(),
        "sasl.oauthbearer.scope": settings.oauth_scope,
        "https.ca.location": settings.oauth_ca_location or (_system_authorities() if by_token else ""),
        "ssl.ca.location": settings.ssl_ca_location,
        "ssl.certificate.location": settings.ssl_certificate_location,
        "ssl.key.location": settings.ssl_key_location,
        "ssl.key.password": settings.ssl_key_password.get_secret_value(),
    }
    return {name: value for name, value in entries.items() if value}


def _system_authorities() -> str:
    """Those of Python's OpenSSL: librdkafka's wheels know a path of one distribution alone for token endpoints."""
    paths = ssl.get_default_verify_paths()
    return paths.cafile or paths.capath or ""


def _unusable(settings: KafkaSettings, reason: str) -> str:
    for field in ("ssl_ca_location", "ssl_certificate_location", "ssl_key_location", "oauth_ca_location"):
        path = getattr(settings, field)
        if path and not os.access(path, os.R_OK):
            return f"{variable('kafka', field)} (or the pool's own) is {path!r}; it takes a file that can be read here."
    return f"The settings of Kafka's clients cannot be used: {reason}."


def _principal(settings: KafkaSettings) -> str:
    """Who the client is, as far as it knows: rules of the broker may make another name of it."""
    if settings.sasl_mechanism == "OAUTHBEARER":
        return f"OAuth client {settings.oauth_client_id}"
    if settings.sasl_mechanism:
        return f"User:{settings.sasl_username}"
    if settings.ssl_certificate_location:
        return f"the owner of {settings.ssl_certificate_location}"
    return "User:ANONYMOUS (no login is set)"
