"""Is a server really ready? The only place of the embedded stack that talks to the servers themselves."""

from __future__ import annotations

import http.client
from enum import Enum

PROBE_TIMEOUT_S = 1.0


class Login(Enum):
    """What became of a login."""

    OK = "ok"
    REFUSED = "refused"
    NOT_YET = "not yet"


def kafka_cluster(bootstrap_servers: str) -> str | None:
    """Id of the cluster whose broker answers a metadata request there within a second; none if none does."""
    from confluent_kafka import KafkaException  # noqa: PLC0415 - other commands of the stack need no Kafka client
    from confluent_kafka.admin import AdminClient  # noqa: PLC0415

    configuration: dict[str, str | int | float | bool] = {
        "bootstrap.servers": bootstrap_servers,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 200,
        "log_level": 0,  # it would print every refused connection
    }
    try:
        metadata = AdminClient(configuration).list_topics(timeout=PROBE_TIMEOUT_S)
    except KafkaException:
        return None
    return metadata.cluster_id if metadata.brokers else None


def neo4j_login(uri: str, user: str, password: str) -> Login:
    """Log in and run `RETURN 1` in the database neo4j."""
    from neo4j import GraphDatabase, exceptions  # noqa: PLC0415

    try:
        with (
            GraphDatabase.driver(uri, auth=(user, password), connection_timeout=PROBE_TIMEOUT_S) as driver,
            driver.session(database="neo4j") as session,
        ):
            session.run("RETURN 1").consume()
    except exceptions.AuthError:
        return Login.REFUSED
    except (exceptions.DriverError, exceptions.Neo4jError):
        return Login.NOT_YET
    return Login.OK


def neo4j_set_password(uri: str, user: str, old: str, new: str) -> bool:
    """Change the password from `old` to `new`; whether `old` was it. True as well if Neo4j cannot change it yet."""
    from neo4j import GraphDatabase, exceptions  # noqa: PLC0415

    try:
        with (
            GraphDatabase.driver(uri, auth=(user, old), connection_timeout=PROBE_TIMEOUT_S) as driver,
            driver.session(database="system") as session,
        ):
            session.run("ALTER CURRENT USER SET PASSWORD FROM $old TO $new", old=old, new=new).consume()
    except exceptions.AuthError:
        return False
    except (exceptions.DriverError, exceptions.Neo4jError):
        return True
    return True


def http_ok(host: str, port: int, path: str) -> bool:
    """Whether `GET path` answers 200 there within a second."""
    connection = http.client.HTTPConnection(host, port, timeout=PROBE_TIMEOUT_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
