"""Cypher ⇄ messages: what comes out is what went in, and anything else is refused."""

from __future__ import annotations

import json
import zlib
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cartoray.errors import RowRejected, UnreadableMessage
from cartoray.queries import Cleanup, Query, check_signature, decode_query, encode_query, signature

VPC = "cartography.models.aws.ec2.vpc:AWSVpcSchema"

plain = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.dates()
    | st.datetimes(timezones=st.just(UTC))
)
values = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.just("$date"), inner, max_size=3),
    max_leaves=8,
)


@given(text=st.text(), parameters=st.dictionaries(st.text(), values, max_size=4))
def test_a_query_comes_back_as_it_was_sent(text: str, parameters: dict[str, Any]) -> None:
    assert decode_query(encode_query(Query(text, parameters))) == Query(text, parameters)


def test_a_cleanup_travels_without_its_text() -> None:
    sent = Query("is not sent", {"UPDATE_TAG": 1, "LIMIT_SIZE": 10}, repeat=True, cleanup=Cleanup(VPC, 0))
    value = encode_query(sent)
    assert b"is not sent" not in zlib.decompress(value)
    read = decode_query(value)
    assert "DETACH DELETE n" in read.text
    assert (read.parameters, read.repeat, read.cleanup) == (sent.parameters, True, sent.cleanup)


@pytest.mark.parametrize(
    "content",
    [
        {"cleanup": {"schema": VPC, "number": 99}, "parameters": {}},
        {"cleanup": {"schema": VPC, "number": "0"}, "parameters": {}},
        {"cleanup": {"schema": "os:system", "number": 0}, "parameters": {}},
        {"cleanup": {"schema": "cartography.models.aws.ec2.vpc:Nothing", "number": 0}, "parameters": {}},
        {"cleanup": {"schema": VPC}, "parameters": {}},
        {"cleanup": VPC, "parameters": {}},
        {"query": 1, "parameters": {}},
        {"query": "RETURN 1", "parameters": []},
        {"query": "RETURN 1", "parameters": {"at": {"$datetime": "yesterday"}}},
        {"query": "RETURN 1", "parameters": {"at": {"$pickle": ""}}},
        {"query": "RETURN 1", "parameters": {}, "repeat": True},
        {"query": "RETURN 1", "parameters": {"LIMIT_SIZE": 0}, "repeat": True},
        {"parameters": {}},
        [],
    ],
)
def test_what_is_no_query_is_refused(content: object) -> None:
    with pytest.raises(UnreadableMessage):
        decode_query(zlib.compress(json.dumps(content).encode()))


def test_a_query_that_is_cut_off_or_expands_without_end_is_refused() -> None:
    whole = encode_query(Query("RETURN 1", {"when": datetime(2026, 1, 1, tzinfo=UTC), "day": date(2026, 1, 1)}))
    for bad in (whole[:-1], b"", b"x", zlib.compress(b" " * (65 * 1024 * 1024))):
        with pytest.raises(UnreadableMessage):
            decode_query(bad)


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, object(), {1: 2}, [{"deep": 2**64}]])
def test_a_parameter_that_cypher_has_no_type_for_is_named(value: object) -> None:
    with pytest.raises(RowRejected, match="Parameter odd"):
        encode_query(Query("RETURN $odd", {"odd": value}))


def test_a_signature_covers_headers_and_value() -> None:
    headers = [("run", b"r"), ("tag", b"1")]
    signed = {**dict(headers), "signature": signature("key", headers, b"value")}
    check_signature("key", signed, b"value")
    for key, changed, value in (
        ("other", signed, b"value"),
        ("key", {**signed, "tag": b"2"}, b"value"),
        ("key", signed, b"other"),
        ("key", dict(headers), b"value"),
    ):
        with pytest.raises(UnreadableMessage, match="CARTORAY_KAFKA_SIGNING_KEY"):
            check_signature(key, changed, value)
