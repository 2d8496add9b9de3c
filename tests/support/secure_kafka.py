"""A Kafka that asks who is there and what they may: the embedded stack's, with logins, certificates and ACLs on."""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from support.certificates import Authority

from cartoray.acls import Acl
from cartoray.settings import KafkaSettings, StackSettings
from cartoray.stack import artifacts, ports, process
from cartoray.stack.kafka_server import KafkaServer
from cartoray.stack.launch import LOOPBACK

# The broker speaks to itself, and the test as its administrator, over the listener CLIENT, which needs no login.
_SECURED = """\
listeners=CLIENT://{host}:{client},CONTROLLER://{host}:{controller},SASL://{host}:{sasl},CLEAR://{host}:{clear},\
MUTUAL://{host}:{mutual}
advertised.listeners=CLIENT://{host}:{client},SASL://{host}:{sasl},CLEAR://{host}:{clear},MUTUAL://{host}:{mutual}
listener.security.protocol.map=CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_SSL,CLEAR:SASL_PLAINTEXT,MUTUAL:SSL
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
allow.everyone.if.no.acl.found=false
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
ssl.truststore.type=PEM
ssl.truststore.location={truststore}
listener.name.mutual.ssl.client.auth=required
listener.name.mutual.ssl.principal.mapping.rules=RULE:^CN=([^,]+).*$/$1/
listener.name.sasl.sasl.enabled.mechanisms=SCRAM-SHA-512,PLAIN
listener.name.clear.sasl.enabled.mechanisms=SCRAM-SHA-512,OAUTHBEARER
listener.name.sasl.scram-sha-512.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.clear.scram-sha-512.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
user_plain="of-plain";
listener.name.clear.oauthbearer.sasl.jaas.config=\
org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required \
unsecuredLoginStringClaim_sub="broker";
"""


@dataclass(frozen=True)
class SecureKafka:
    """`admin` does everything, without a login. Users' passwords are `of-` and their name."""

    admin: AdminClient
    ports: Mapping[str, int]
    authority: Authority

    def settings(self, user: str, **changed: Any) -> KafkaSettings:
        """Of a SCRAM user over TLS."""
        return KafkaSettings.model_validate(
            {
                "bootstrap_servers": f"{LOOPBACK}:{self.ports['sasl']}",
                "security_protocol": "SASL_SSL",
                "sasl_mechanism": "SCRAM-SHA-512",
                "sasl_username": user,
                "sasl_password": f"of-{user}",
                "ssl_ca_location": str(self.authority.certificate),
                "jobs_partitions": 2,
                "data_partitions": 2,
            }
            | changed
        )

    def add_users(self, *names: str) -> None:
        kind = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        users = [UserScramCredentialUpsertion(name, kind, f"of-{name}".encode()) for name in names]
        for future in self.admin.alter_user_scram_credentials(users).values():
            future.result(10)

    def allow(self, user: str, acls: Iterable[Acl]) -> None:
        for future in self.admin.create_acls([_binding(user, acl) for acl in acls]).values():
            future.result(10)

    def forbid(self, user: str, acls: Iterable[Acl] | None = None) -> None:
        """All that it may, if no `acls` are named."""
        every = AclBindingFilter(
            ResourceType.ANY,
            None,
            ResourcePatternType.ANY,
            f"User:{user}",
            None,
            AclOperation.ANY,
            AclPermissionType.ANY,
        )
        filters = [every] if acls is None else [_filter(_binding(user, acl)) for acl in acls]
        for future in self.admin.delete_acls(filters).values():
            future.result(10)


def _binding(user: str, acl: Acl) -> AclBinding:
    return AclBinding(
        ResourceType[acl.resource],
        acl.name,
        ResourcePatternType.LITERAL,
        f"User:{user}",
        "*",
        AclOperation[acl.operation],
        AclPermissionType.ALLOW,
    )


def _filter(of: AclBinding) -> AclBindingFilter:
    return AclBindingFilter(
        of.restype, of.name, of.resource_pattern_type, of.principal, of.host, of.operation, of.permission_type
    )


@contextmanager
def secure_kafka(folder: Path) -> Iterator[SecureKafka]:
    """Serves until the block ends."""
    authority = Authority(folder / "certificates")
    server = KafkaServer("256m")
    chosen = {role: ports.any_free() for role in ("client", "controller", "sasl", "clear", "mutual")}
    jars = artifacts.fetch(["kafka"], StackSettings())["kafka"]
    launch = server.prepare(folder / "kafka", chosen, jars)
    secured = _SECURED.format(
        host=LOOPBACK, keystore=authority.sign("broker").both, truststore=authority.certificate, **chosen
    )
    with (folder / "kafka" / "server.properties").open("a") as file:
        file.write(secured)  # of two values of a property the last one counts
    log = folder / "kafka.log"
    running = process.spawn(launch.command, launch.environment, folder / "kafka", log)
    try:
        deadline = time.monotonic() + 60
        while not server.ready(folder / "kafka", chosen):
            assert running.poll() is None and time.monotonic() < deadline, process.last_lines(log, 30)
            time.sleep(0.1)
        yield SecureKafka(AdminClient({"bootstrap.servers": server.endpoint(chosen)}), chosen, authority)
    finally:
        process.stop(running, 10)


def unsecured_token(subject: str) -> str:
    """A JSON Web Token that nobody signed, as Kafka's broker takes it where it is told to validate nothing."""
    now_s = int(time.time())
    parts = ({"alg": "none"}, {"sub": subject, "iat": now_s, "exp": now_s + 600})
    return ".".join(urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts) + "."
