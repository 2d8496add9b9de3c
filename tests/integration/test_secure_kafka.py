"""A Kafka with TLS, logins and ACLs: with the rights that `cartoray.acls` names all works, with less it does not.

The broker is the embedded stack's own, told to authorise; see `support.secure_kafka`.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import neo4j
import pytest
from pydantic import SecretStr
from support.certificates import KEY_PASSWORD, Authority
from support.commands import EC2, cartoray, environment, one_line_error, serving
from support.secure_kafka import SecureKafka, secure_kafka, token_endpoint, variables

from cartoray.acls import SERVICES, Acl, Service, acls
from cartoray.errors import KafkaRefused, KafkaUnavailable, SettingError
from cartoray.kafka import Admin, GroupConsumer, GroupLag, Publisher, read_all, read_at
from cartoray.settings import KafkaSettings, Settings
from cartoray.stack.simulated_aws import SimulatedAws
from cartoray.topics import group, topics

pytestmark = [pytest.mark.stack, pytest.mark.long]

PREFIX = "least."
LONG_S = 30.0


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    with secure_kafka(tmp_path_factory.mktemp("secure")) as kafka:
        kafka.add_users(*SERVICES, "nobody")
        yield kafka


Needed = Mapping[Service, tuple[Acl, ...]]


def prepared(secure: SecureKafka, prefix: str) -> Needed:
    """Topics as an administrator makes them, and each service's rights, which it gets."""
    kafka = secure.root(prefix)
    Admin(kafka).ensure(topics(kafka))
    needed = acls(kafka)
    for service, of in needed.items():
        secure.allow(service, of)
    return needed


@pytest.fixture(scope="module")
def needed(secure: SecureKafka) -> Needed:
    """The rights on topics that begin with PREFIX, in each of which there is something to read."""
    needed = prepared(secure, PREFIX)
    root = secure.root(PREFIX)
    with closing(Publisher(root, "test")) as publisher:
        for topic in topics(root):
            for key in range(20):  # so that every partition has some
                publisher.publish(topic.name, str(key).encode(), b"v")
    return needed


# ---- the whole --------------------------------------------------------------------------------------------------


def test_a_whole_sync_works_with_the_documented_rights_each_service_as_itself(
    secure: SecureKafka, stack_settings: Settings, graph: neo4j.Driver, simulated_aws: SimulatedAws, tmp_path: Path
) -> None:
    prefix = "whole."
    prepared(secure, prefix)

    def as_user(user: str) -> dict[str, str]:
        kafka = secure.settings(user, topic_prefix=prefix)
        of_commands = environment(stack_settings.model_copy(update={"kafka": kafka}), simulated_aws)
        return of_commands | variables(kafka)

    pools = {
        f"CARTORAY_{pool.upper()}_KAFKA_SASL_{name}": value
        for pool in ("intel", "ingestion")
        for name, value in (("USERNAME", pool), ("PASSWORD", f"of-{pool}"))
    }
    with serving(as_user("driver") | pools, tmp_path) as workers:
        with closing(Publisher(secure.root(prefix), "test")) as publisher:
            publisher.publish(f"{prefix}intel_jobs", b"k", b"no job").result()
        done = cartoray(
            *("sync", "--account", simulated_aws.accounts[0], "--scope", EC2, "--json"),
            environment=as_user("orchestrator"),
            folder=tmp_path,
        ).expect(0)
        assert done.result["jobs"]["landed"] == 7
        said = workers.log.read_text()
        assert "denies" not in said
        assert "refuses" not in said
    with graph.session() as session:
        assert session.run("MATCH (i:AWSEC2Instance) RETURN count(i)").single(strict=True)[0] > 0
    assert cartoray("runs", "--json", environment=as_user("orchestrator"), folder=tmp_path).expect(0).result
    letters = cartoray("dlq", "list", "--json", environment=as_user("dlq"), folder=tmp_path).expect(0).result
    assert [letter["topic"] for letter in letters] == [f"{prefix}intel_jobs"]
    assert "1 sent again" in cartoray("dlq", "replay", "--all", environment=as_user("dlq"), folder=tmp_path).output


# ---- the least --------------------------------------------------------------------------------------------------


def publish(kafka: KafkaSettings, topic: str) -> None:
    with closing(Publisher(kafka, "test")) as publisher:
        publisher.publish(topic, b"k", b"v").result(LONG_S)


def take(kafka: KafkaSettings, topic: str, pool: str) -> None:
    """A message, as a member of the pool; its offset is committed."""
    consumer = GroupConsumer(
        kafka,
        topic=topic,
        group=group(kafka, pool),
        name="test",
        on_assigned=lambda _: None,
        on_revoked=lambda _: None,
    )
    deadline = time.monotonic() + LONG_S
    with closing(consumer):
        while (message := consumer.poll(0.1)) is None:
            assert time.monotonic() < deadline, "no message came"
        assert consumer.commit({message.partition: message.offset})  # it stays there for the next one


def look(kafka: KafkaSettings, topic: str, pool: str) -> None:
    with closing(GroupLag(kafka, topic, group(kafka, pool))) as lag:
        lag.messages()


def verbs(service: Service, kafka: KafkaSettings) -> list[Callable[[], object]]:
    """What the service does with Kafka: each verb of `cartoray.kafka` on each topic or group."""
    names = topics(kafka)
    jobs, data, events, cancels, ledger, dead = (topic.name for topic in names)
    match service:
        case "orchestrator":
            return [
                lambda: Admin(kafka).ensure(names),
                lambda: publish(kafka, jobs),
                *(lambda topic=topic: publish(kafka, topic) for topic in (events, cancels)),
                lambda: list(read_all(kafka, events)),
            ]
        case "driver":
            return [
                lambda: Admin(kafka).ensure(names),
                *(lambda topic=topic: publish(kafka, topic) for topic in (jobs, data, events)),
                lambda: list(read_all(kafka, events)),
                lambda: look(kafka, jobs, "intel"),
                lambda: look(kafka, data, "ingestion"),
            ]
        case "intel":
            return [
                *(lambda topic=topic: publish(kafka, topic) for topic in (data, events, dead)),
                lambda: take(kafka, jobs, "intel"),
                *(lambda topic=topic: list(read_all(kafka, topic)) for topic in (events, cancels)),
                lambda: look(kafka, data, "ingestion"),
            ]
        case "ingestion":
            return [
                *(lambda topic=topic: publish(kafka, topic) for topic in (events, dead, ledger)),
                lambda: take(kafka, data, "ingestion"),
                lambda: list(read_at(kafka, data, [(0, 0), (1, 0)])),
                *(lambda topic=topic: list(read_all(kafka, topic)) for topic in (ledger, cancels)),
            ]
        case "dlq":
            return [
                lambda: Admin(kafka).check(),
                lambda: list(read_all(kafka, dead)),
                *(lambda topic=topic: publish(kafka, topic) for topic in (jobs, data)),
            ]
        case "cartography":
            return [
                lambda: Admin(kafka).ensure(names),
                lambda: publish(kafka, data),
                lambda: list(read_all(kafka, events)),
                lambda: look(kafka, data, "ingestion"),
            ]


def test_every_single_right_is_needed(secure: SecureKafka, needed: Needed) -> None:
    """Without one of them, something that the service does is refused by an error that names what, where, and whom."""

    def without_each(service: Service) -> dict[Acl, str]:
        kafka = secure.settings(service, topic_prefix=PREFIX)
        for verb in verbs(service, kafka):
            verb()
        refusals = {}
        for acl in needed[service]:
            secure.forbid(service, [acl])
            try:
                for verb in verbs(service, kafka):
                    verb()
            except KafkaRefused as error:
                refusals[acl] = str(error)
            secure.allow(service, [acl])
        return refusals

    with ThreadPoolExecutor(len(SERVICES)) as pool:
        refused = dict(zip(SERVICES, pool.map(without_each, SERVICES), strict=True))
    assert {service: set(found) for service, found in refused.items()} == {
        service: set(of) for service, of in needed.items()
    }
    for service, found in refused.items():
        for acl, text in found.items():
            assert f"denies User:{service} " in text
            assert f"{acl.resource.lower()} {acl.name}" in text
            assert "cartoray acls" in text
            assert "of-" not in text


# ---- what is refused --------------------------------------------------------------------------------------------


def test_commands_without_rights_or_with_a_wrong_password_are_one_line_that_says_so(
    secure: SecureKafka, needed: Needed, tmp_path: Path
) -> None:
    assert needed
    nobody = secure.settings("nobody", topic_prefix=PREFIX)
    wrong = secure.settings("driver", topic_prefix=PREFIX, sasl_password="mistyped-and-private")
    commands = [("sync", "--account", "111111111111"), ("serve",), ("runs",), ("dlq", "list")]

    def said(of: tuple[KafkaSettings, tuple[str, ...]]) -> str:
        kafka, command = of
        variables_of = {**os.environ, "COLUMNS": "240", **variables(kafka)}
        done = cartoray(*command, environment=variables_of, folder=tmp_path).expect(4)
        assert "mistyped-and-private" not in done.output + done.errors
        return one_line_error(done)

    with ThreadPoolExecutor(2) as pool:
        denied = list(pool.map(said, [(nobody, command) for command in commands]))
        refused = list(pool.map(said, [(wrong, command) for command in commands[:2]]))
    for text in denied:
        assert re.search(rf"denies User:nobody DESCRIBE on topic {re.escape(PREFIX)}\w+\. `cartoray acls`", text), text
    for text in refused:
        assert "refuses the login of User:driver" in text
        assert "CARTORAY_KAFKA_SASL_USERNAME, _PASSWORD and _MECHANISM" in text


def test_a_topic_that_is_absent_and_may_not_be_created_is_named(secure: SecureKafka) -> None:
    kafka = secure.settings("orchestrator", topic_prefix="absent.")
    (jobs, *_) = topics(kafka)
    secure.allow("orchestrator", [Acl("TOPIC", jobs.name, "DESCRIBE")])
    with pytest.raises(KafkaRefused, match=r"denies User:orchestrator CREATE on topic absent\.intel_jobs, which is ab"):
        Admin(kafka).ensure([jobs])


@pytest.mark.parametrize("password", ["of-intel", "mistyped"])
def test_a_member_that_is_refused_ends_and_does_not_wait(secure: SecureKafka, needed: Needed, password: str) -> None:
    """The group is another's; with the wrong password, so is the name."""
    assert needed
    kafka = secure.settings("intel", topic_prefix=PREFIX, sasl_password=password)
    began_s = time.monotonic()
    with pytest.raises(
        KafkaRefused, match=r"refuses the login|denies User:intel READ on group least\.cartoray\.ingestion"
    ):
        take(kafka, f"{PREFIX}intel_jobs", "ingestion")
    assert time.monotonic() - began_s < LONG_S


def test_a_broker_that_cannot_be_trusted_is_told_from_one_that_is_away(secure: SecureKafka, tmp_path: Path) -> None:
    other = Authority(tmp_path)
    with pytest.raises(KafkaRefused, match=r"do not agree on TLS .*verify failed.* CARTORAY_KAFKA_SSL_CA_LOCATION"):
        Admin(secure.settings("driver", ssl_ca_location=str(other.certificate))).check()
    with pytest.raises(SettingError, match=r"CARTORAY_KAFKA_SSL_CA_LOCATION .*none\.pem.* can be read here"):
        Admin(secure.settings("driver", ssl_ca_location=str(tmp_path / "none.pem")))


# ---- the other ways to log in -----------------------------------------------------------------------------------


def test_a_client_may_log_in_by_its_certificate_alone(secure: SecureKafka, needed: Needed) -> None:
    assert needed
    own = secure.authority.sign("intel")
    kafka = KafkaSettings(
        bootstrap_servers=f"127.0.0.1:{secure.ports['mutual']}",
        topic_prefix=PREFIX,
        security_protocol="SSL",
        ssl_ca_location=str(secure.authority.certificate),
        ssl_certificate_location=str(own.certificate),
        ssl_key_location=str(own.locked),
        ssl_key_password=SecretStr(KEY_PASSWORD),
        timeout_s=5,
    )
    publish(kafka, f"{PREFIX}graph_data")
    with pytest.raises(KafkaRefused, match=rf"denies the owner of {own.certificate} WRITE on topic"):
        publish(kafka, f"{PREFIX}intel_jobs")
    without = {"ssl_certificate_location": "", "ssl_key_location": "", "ssl_key_password": SecretStr("")}
    with pytest.raises((KafkaRefused, KafkaUnavailable)):
        Admin(kafka.model_copy(update=without)).check()


def test_a_client_may_log_in_by_a_token_of_an_oidc_provider(secure: SecureKafka, needed: Needed) -> None:
    assert needed
    signed = secure.authority.sign("idp")
    with token_endpoint("intel", "of-the-client", signed.both) as (url, asked):
        kafka = KafkaSettings(
            bootstrap_servers=f"127.0.0.1:{secure.ports['clear']}",
            topic_prefix=PREFIX,
            security_protocol="SASL_PLAINTEXT",
            sasl_mechanism="OAUTHBEARER",
            oauth_token_url=url,
            oauth_client_id="client",
            oauth_client_secret=SecretStr("of-the-client"),
            oauth_scope="kafka",
            oauth_ca_location=str(secure.authority.certificate),
            timeout_s=5,
        )
        publish(kafka, f"{PREFIX}graph_data")
        assert "grant_type=client_credentials" in asked[0]
        assert "scope=kafka" in asked[0]
        with pytest.raises(KafkaRefused, match="denies OAuth client client WRITE on topic"):
            publish(kafka, f"{PREFIX}intel_jobs")
        wrong = {"oauth_client_secret": SecretStr("mistyped")}
        with pytest.raises(
            KafkaRefused, match=r"No token .*invalid_client.*CARTORAY_KAFKA_OAUTH_TOKEN_URL, _CLIENT_ID"
        ):
            Admin(kafka.model_copy(update=wrong)).check()
        with pytest.raises(KafkaRefused, match=r"No token .*certificate.* and _CA_LOCATION"):
            Admin(kafka.model_copy(update={"oauth_ca_location": ""})).check()
    with pytest.raises(KafkaUnavailable, match=r"No token .*connect"):
        Admin(kafka).check()  # the endpoint has ended
