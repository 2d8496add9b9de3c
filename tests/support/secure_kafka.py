"""A Kafka that asks who is there and what they may: the embedded stack's, with logins, certificates and ACLs on."""

from __future__ import annotations

import json
import ssl
import threading
import time
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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
from pydantic import SecretStr
from support.certificates import Authority

from cartoray.acls import Acl
from cartoray.settings import KafkaSettings, StackSettings, variable
from cartoray.stack import artifacts, ports, process
from cartoray.stack.kafka_server import KafkaServer
from cartoray.stack.launch import LOOPBACK

WAIT_S = 30.0
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

    def root(self, prefix: str) -> KafkaSettings:
        """Of the administrator."""
        address = f"{LOOPBACK}:{self.ports['client']}"
        return KafkaSettings(
            bootstrap_servers=address, topic_prefix=prefix, jobs_partitions=2, data_partitions=2, timeout_s=30
        )

    def add_users(self, *names: str) -> None:
        kind = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        users = [UserScramCredentialUpsertion(name, kind, f"of-{name}".encode()) for name in names]
        for future in self.admin.alter_user_scram_credentials(users).values():
            future.result(WAIT_S)

    def allow(self, user: str, acls: Iterable[Acl]) -> None:
        """Returns when the broker knows it."""
        bindings = [_binding(user, acl) for acl in acls]
        for future in self.admin.create_acls(bindings).values():
            future.result(WAIT_S)
        self._until(user, lambda known: known >= {*map(_key, bindings)})

    def forbid(self, user: str, acls: Iterable[Acl]) -> None:
        """Returns when the broker knows it."""
        bindings = [_binding(user, acl) for acl in acls]
        for future in self.admin.delete_acls([_filter(binding) for binding in bindings]).values():
            future.result(WAIT_S)
        self._until(user, lambda known: not known & {*map(_key, bindings)})

    def _until(self, user: str, done: Callable[[set[Any]], bool]) -> None:
        every = AclBindingFilter(
            ResourceType.ANY,
            None,
            ResourcePatternType.ANY,
            f"User:{user}",
            None,
            AclOperation.ANY,
            AclPermissionType.ANY,
        )
        deadline = time.monotonic() + WAIT_S
        while not done({_key(binding) for binding in self.admin.describe_acls(every).result(WAIT_S)}):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def variables(settings: KafkaSettings) -> dict[str, str]:
    """What is not a default, as the environment has it."""
    default = KafkaSettings()
    return {
        variable("kafka", name): value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for name, value in settings
        if value != getattr(default, name)
    }


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


def _key(of: AclBinding) -> tuple[Any, ...]:
    return (of.restype, of.name, of.operation)


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
        deadline = time.monotonic() + 120
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


@contextmanager
def token_endpoint(subject: str, secret: str, certificate: Path) -> Iterator[tuple[str, list[str]]]:
    """Its URL, and the bodies of what it was asked. Whoever has the secret gets a token, the others a refusal."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            login = b64decode(self.headers.get("Authorization", "").removeprefix("Basic ")).decode()
            good = login.endswith(f":{secret}")
            answer = {"access_token": unsecured_token(subject)} if good else {"error": "invalid_client"}
            content = json.dumps(answer).encode()
            self.send_response(200 if good else 401)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Silent."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with ThreadingHTTPServer((LOOPBACK, 0), Handler) as server:
        server.daemon_threads = True
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield f"https://{LOOPBACK}:{server.server_port}/token", asked
        finally:
            server.shutdown()
            thread.join()
