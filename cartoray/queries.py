"""Cypher that travels: the third kind of message on `graph_data`, for what no schema describes.

A query changes whatever it likes, so ingestion runs it only for producers that it trusts: with a signing key set
(`CARTORAY_KAFKA_SIGNING_KEY`, the same for all processes), a query without the right signature is refused.

A cleanup that Cartography's builder makes from a schema travels as the schema's path and the number of the query, not
as its text, so that what it deletes, and where, is known without reading Cypher.

Values are JSON; what JSON has no word for is a map with the one key `$type`:

    {"$datetime": "2026-01-01T00:00:00+00:00"}   {"$date": …}   {"$bytes": base64}   {"$map": a map with such a key}
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any

from cartoray import schemas
from cartoray.errors import RowRejected, TooLarge, UnreadableMessage
from cartoray.values import VALUES_MAX, check, count, from_json_text

DECOMPRESSED_BYTES_MAX = 64 * 1024 * 1024
SIGNATURE = "signature"
LIMIT = "LIMIT_SIZE"  # Cartography's name for how much one run of a repeated query may change
_TAGS: dict[str, Callable[[Any], Any]] = {
    "$datetime": datetime.fromisoformat,
    "$date": date.fromisoformat,
    "$bytes": base64.b64decode,
}


@dataclass(frozen=True)
class Cleanup:
    """Query `number` of those that `schemas.cleanup` gives for the schema of path `schema`."""

    schema: str
    number: int
    cascade: bool = False


@dataclass(frozen=True)
class Query:
    """Cypher and its parameters.

    `repeat`: it changes at most $LIMIT_SIZE of something, and is to be run until it changes nothing. `cleanup`: whose
    text it is.
    """

    text: str
    parameters: Mapping[str, Any]
    repeat: bool = False
    cleanup: Cleanup | None = None


def encode_query(query: Query) -> bytes:
    """Raises RowRejected naming the parameter: an integer beyond 64 bits, or a value that Cypher has no type for.

    And TooLarge for more than one message may hold.
    """
    parameters = {}
    for name, value in query.parameters.items():
        try:
            parameters[name] = to_json(value)
            check({"parameters": {name: parameters[name]}})
        except RowRejected as error:
            raise RowRejected(f"Parameter {name}: {error}") from None
        except (ValueError, RecursionError) as error:
            raise RowRejected(f"Parameter {name!r}: {error}.") from None
    try:
        check(query.text)
    except ValueError as error:
        raise RowRejected(f"A query cannot be sent: {error}.") from None
    what = {"query": query.text} if query.cleanup is None else {"cleanup": asdict(query.cleanup)}
    content = {**what, "parameters": parameters} | ({"repeat": True} if query.repeat else {})
    text = json.dumps(content).encode()
    if len(text) > DECOMPRESSED_BYTES_MAX or count(text) > VALUES_MAX:
        raise TooLarge(f"A query of {len(text)} bytes and some {count(text)} values is more than a message may hold.")
    return zlib.compress(text)


def decode_query(value: bytes) -> Query:
    """Raises UnreadableMessage for anything but what `encode_query` could have written."""
    try:
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(value, DECOMPRESSED_BYTES_MAX)
        if not unpacker.eof or unpacker.unused_data:
            raise UnreadableMessage(
                f"A query that is cut off, goes on, or has more than {DECOMPRESSED_BYTES_MAX} bytes."
            )
        if (values := count(text)) > VALUES_MAX:
            raise UnreadableMessage(f"A query of {values} values; at most {VALUES_MAX} are taken.")
        content = from_json_text(text.decode())
        if not isinstance(content, dict) or content.keys() - {"query", "cleanup", "parameters", "repeat"}:
            raise UnreadableMessage("A query of a form that this release does not know.")
        cleanup = _cleanup(**content["cleanup"]) if "cleanup" in content else None
        query = (
            content["query"]
            if cleanup is None
            else schemas.cleanup(cleanup.schema, cascade=cleanup.cascade)[cleanup.number]
        )
        parameters, repeat = content["parameters"], content.get("repeat", False)
        if not isinstance(query, str) or not isinstance(parameters, dict):
            raise UnreadableMessage("A query is a text and a map of parameters.")
        if repeat and not (isinstance(parameters.get(LIMIT), int) and parameters[LIMIT] > 0):
            raise UnreadableMessage(f"A query that is to be repeated has a {LIMIT} above 0.")
        return Query(query, {name: from_json(each) for name, each in parameters.items()}, bool(repeat), cleanup)
    except (zlib.error, ValueError, LookupError, TypeError, OverflowError, RecursionError) as error:
        raise UnreadableMessage(f"Not a query: {error}") from None


def _cleanup(schema: object, number: object, *, cascade: object = False) -> Cleanup:
    """Raises ValueError. A number below 0 would be taken for one from the end."""
    if not isinstance(schema, str) or type(number) is not int or number < 0 or not isinstance(cascade, bool):
        raise ValueError("a cleanup is the path of a schema, a number and whether it cascades")
    return Cleanup(schema, number, cascade)


def to_json(value: Any) -> Any:  # noqa: PLR0911 - one for each type
    """The value in JSON's types. Raises RowRejected."""
    match value:
        case None | bool() | float() | str():
            return value
        case int():
            if not -(2**63) <= value < 2**63:
                raise RowRejected(f"{value} is an integer beyond 64 bits; Neo4j has none.")
            return value
        case datetime():
            return {"$datetime": value.isoformat()}
        case date():
            return {"$date": value.isoformat()}
        case bytes() | bytearray():
            return {"$bytes": base64.b64encode(value).decode()}
        case Mapping():
            if odd := [key for key in value if not isinstance(key, str)]:
                raise RowRejected(f"a map has the key {odd[0]!r}, which is no text.")
            plain = {key: to_json(each) for key, each in value.items()}
            return {"$map": plain} if len(plain) == 1 and next(iter(plain)).startswith("$") else plain
        case list() | tuple():
            return [to_json(each) for each in value]
    raise RowRejected(f"Cypher has no type for a {type(value).__name__}.")


def from_json(value: Any) -> Any:
    """The inverse of `to_json`, but that a tuple comes back as a list. Raises ValueError for an unknown tag."""
    if isinstance(value, list):
        return [from_json(each) for each in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((tag, content),) = value.items()
        if tag == "$map":
            if not isinstance(content, dict):
                raise ValueError("a $map that is none")
            return {key: from_json(each) for key, each in content.items()}
        if tag in _TAGS:
            return _TAGS[tag](content)
        if tag.startswith("$"):
            raise ValueError(f"unknown type {tag}")
    return {key: from_json(each) for key, each in value.items()}


def signature(key: str, headers: Sequence[tuple[str, bytes]], value: bytes) -> bytes:
    """HMAC-SHA256 over the headers, in order of their names, and the value, each with its length before it."""
    mac = hmac.new(key.encode(), digestmod=hashlib.sha256)
    for part in (*(part for name, content in sorted(headers) for part in (name.encode(), content)), value):
        mac.update(len(part).to_bytes(8, "big") + part)
    return mac.hexdigest().encode()


def check_signature(key: str, headers: Mapping[str, bytes], value: bytes) -> None:
    """Raises UnreadableMessage unless the headers hold the signature of the others and the value."""
    signed = [(name, content) for name, content in headers.items() if name != SIGNATURE]
    if not hmac.compare_digest(headers.get(SIGNATURE, b""), signature(key, signed, value)):
        raise UnreadableMessage(
            "A query without the right signature: producer and worker need the same CARTORAY_KAFKA_SIGNING_KEY."
        )
