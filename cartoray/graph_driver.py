"""How every part of cartoray opens Neo4j."""

from __future__ import annotations

import ssl
from typing import Any

import neo4j
from neo4j.exceptions import ConfigurationError

from cartoray.errors import GraphRefused
from cartoray.settings import Neo4jSettings, variable


def open_driver(settings: Neo4jSettings, name: str, connections: int = 4) -> neo4j.Driver:
    """A driver with at most that many connections; it does not connect yet.

    `name` is what Neo4j's list of connections calls it. Raises GraphRefused for an address that cannot be one, and a
    file of authorities that cannot be used.
    """
    password = settings.password.get_secret_value()
    uri, tls = settings.uri, dict[str, Any]()
    if settings.ca_location:  # the driver takes authorities only beside a URI that says nothing of TLS
        uri = uri.replace("+s://", "://", 1)
        tls = {"ssl_context": _trusting(settings.ca_location)}
    try:
        return neo4j.GraphDatabase.driver(
            uri,
            auth=(settings.user, password) if password else None,
            user_agent=f"cartoray/{name}",
            connection_timeout=settings.timeout_s,
            connection_acquisition_timeout=settings.timeout_s * 2,
            max_connection_pool_size=connections,
            notifications_min_severity="OFF",
            telemetry_disabled=True,
            **tls,
        )
    except (ConfigurationError, ValueError) as error:
        raise GraphRefused(f"{variable('neo4j', 'uri')} is not usable: {error}") from None


def _trusting(path: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=path)
    except OSError as error:  # also of a file that holds none
        where = f"{variable('neo4j', 'ca_location')} is {path!r}"
        raise GraphRefused(f"{where}, which cannot be used: {error.strerror or error}.") from None
