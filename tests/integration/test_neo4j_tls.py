"""A Neo4j that speaks TLS on Bolt, with a certificate that an authority of ours signed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.certificates import Authority

from cartoray.errors import GraphRefused
from cartoray.settings import Neo4jSettings, StackSettings
from cartoray.stack.neo4j_server import CONFIGURATION
from cartoray.stack.servers import EmbeddedStack
from ingestion.writer import check_graph

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def neo4j(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Neo4jSettings]:
    """Its settings with a URI that has no TLS, which the embedded stack itself uses."""
    signed = authority.sign("neo4j")
    options = StackSettings(neo4j_heap="512m", neo4j_pagecache="64m")
    with pytest.MonkeyPatch.context() as patched:
        for name, value in {
            "dbms.ssl.policy.bolt.enabled": "true",
            "dbms.ssl.policy.bolt.base_directory": str(signed.key.parent),
            "dbms.ssl.policy.bolt.private_key": signed.key.name,
            "dbms.ssl.policy.bolt.public_certificate": signed.certificate.name,
            "dbms.ssl.policy.bolt.client_auth": "NONE",
            "server.bolt.tls_level": "OPTIONAL",
        }.items():
            patched.setitem(CONFIGURATION, name, value)
        with EmbeddedStack(tmp_path_factory.mktemp("tls") / "state", options, stores=["neo4j"]) as stack:
            yield Neo4jSettings.model_validate(stack.settings["neo4j"])


def over(neo4j: Neo4jSettings, scheme: str, authority: Path | None = None) -> Neo4jSettings:
    uri = neo4j.uri.replace("bolt://", f"{scheme}://")
    return neo4j.model_copy(update={"uri": uri, "ca_location": str(authority or ""), "timeout_s": 5})


@pytest.mark.parametrize("scheme", ["bolt+s", "neo4j+s"])
def test_a_private_authority_is_trusted_where_it_is_named_and_nowhere_else(
    neo4j: Neo4jSettings, authority: Authority, tmp_path: Path, scheme: str
) -> None:
    check_graph(over(neo4j, scheme, authority.certificate))
    for other in (None, Authority(tmp_path).certificate):
        with pytest.raises(GraphRefused, match=r"certificate.*CARTORAY_NEO4J_CA_LOCATION"):
            check_graph(over(neo4j, scheme, other))


@pytest.mark.parametrize("scheme", ["bolt+ssc", "neo4j+ssc"])
def test_any_certificate_is_taken_where_the_uri_says_so(neo4j: Neo4jSettings, scheme: str) -> None:
    check_graph(over(neo4j, scheme))


def test_a_file_of_authorities_that_is_not_there_is_named(neo4j: Neo4jSettings, tmp_path: Path) -> None:
    with pytest.raises(GraphRefused, match=r"CARTORAY_NEO4J_CA_LOCATION .*none\.pem"):
        check_graph(over(neo4j, "bolt+s", tmp_path / "none.pem"))
