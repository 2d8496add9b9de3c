"""Input number n of a seed: a message that is damaged, or hostile from the start. The same n gives the same bytes."""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cached_property
from typing import Any

import pyarrow as pa
from support import samples
from support.samples import stream

from cartoray import schemas
from cartoray.messages import Message

_INTEGERS = (
    0,
    1,
    -1,
    7,
    8,
    127,
    128,
    255,
    2**15,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**62,
    2**63 - 1,
    2_000_000_000,
    100_001,
)
_HEADERS = (
    *(b"", b"\0", b"\xff\xfe", b"1", b"2", b"0", b"-1", b"1e3", b"9" * 19, b"9" * 5_000, b" 5", "١٢".encode()),
    *(
        b"rows",
        b"step",
        b"query",
        b"pickle",
        b"lazy",
        b"a/b/c",
        b"a/b",
        b"//",
        b"a/b/c/d",
        "ü".encode(),
        b"null",
        b"[]",
    ),
    *(b"{}", b'{"AWS_ID":1e999}', b'{"AWS_ID":"\\ud800"}', b'{"AWS_ID":"1","AWS_ID":[]}', b'{"lastupdated":"x"}'),
    *(
        b'{"lastupdated":true}',
        b'{"AWS_ID":' + b"9" * 30 + b"}",
        b"[" * 5_000,
        b"cartography.models.core.nodes:CartographyNodeSchema",
    ),
    *(b"os:system", b"cartography.models.aws.ec2.vpc:AWSVpcSchema", b"cartography.models..x:Y", b"x" * 100_000),
)
_JSON: tuple[Any, ...] = (
    *(
        None,
        True,
        0,
        -1,
        2**31,
        2**63,
        10**30,
        1e308,
        float("nan"),
        float("inf"),
        "",
        "\ud800",
        "a/b/c",
        "/",
        "x" * 3_000,
    ),
    *([], {}, [[]], {"$map": []}, {"$map": {"$map": 1}}, {"$datetime": 5}, {"$datetime": "9999-12-31T23:59:59-23:59"}),
    *({"$bytes": "é"}, {"$\ud800": 1}, {"": None}, [1] * 1_000, {"k": {"k": {"k": []}}}),
    *(samples.VPC, "cartography.models.aws:x", "12", "1" * 19, "step_landed", "run_planned", "all"),
)


class Inputs:
    """All inputs of a seed; making one needs no other."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.valid = samples.valid()
        self._rows = [message for message in self.valid if message.headers.get("kind") == b"rows"]
        self._plain = [message for message in self._rows if message.topic == "graph_data"]
        self._open = [message for message in self._plain if b"\x28\xb5\x2f\xfd" not in message.value]  # not of zstd
        self._numbers = {message.value: numbers_of(message.value) for message in self._plain}
        self._json = [message for message in self.valid if message.headers.get("kind") != b"rows"]
        self._made: dict[int, Message] = {}

    def __getitem__(self, number: int) -> tuple[str, Message]:
        """What was done, and what came of it."""
        chance = random.Random(f"{self._seed}/{number}")
        make = chance.choices(_KINDS, _WEIGHTS)[0]
        return make.__name__.strip("_"), make(self, chance)

    # ---- whatever the message is -------------------------------------------------------------------------------

    def _valid_as_it_is(self, chance: random.Random) -> Message:
        return chance.choice(self.valid)

    def _damaged(self, chance: random.Random) -> Message:
        message = chance.choice(self.valid)
        value = bytearray(message.value)
        for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
            chance.choice(_DAMAGES)(value, chance)
        return replace(message, value=bytes(value))

    def _spliced(self, chance: random.Random) -> Message:
        message, other = chance.choice(self.valid), chance.choice(self.valid)
        first, second = message.value, other.value
        match chance.randrange(4):
            case 0:
                value = first + second
            case 1:
                value = first[: chance.randrange(len(first) + 1)] + second[chance.randrange(len(second) + 1) :]
            case 2:
                at = chance.randrange(len(first) + 1)
                value = first[:at] + second + first[at:]
            case _:
                value = second  # the headers of the one, the value of the other
        return replace(message, value=value)

    def _noise(self, chance: random.Random) -> Message:
        message = chance.choice(self.valid)
        value = chance.choice((b"", b"\xff\xff\xff\xff", b"{", b"ARROW1\0\0", b"null", b"[]", b"0", b"\x78\x9c"))
        return replace(message, value=value + chance.randbytes(chance.choice((0, 1, 8, 100, 1_000))))

    def _with_other_headers(self, chance: random.Random) -> Message:
        message = chance.choice(self.valid)
        headers = dict(message.headers)
        for _ in range(chance.choice((1, 1, 2, 4))):
            name = chance.choice([*headers, "kind", "version", "touch", "step", "signature", "x" * 300, "\u202e", ""])
            match chance.randrange(4):
                case 0:
                    headers.pop(name, None)
                case 1:
                    headers[name] = chance.choice(list(headers.values()) or [b""])
                case 2:
                    value = bytearray(headers.get(name, b""))
                    _flip(value, chance)
                    headers[name] = bytes(value)
                case _:
                    headers[name] = chance.choice(_HEADERS)
        return replace(message, headers=headers, key=chance.choice((message.key, b"", b"\xff" * 9, b"a/b/c")))

    # ---- Arrow -------------------------------------------------------------------------------------------------

    def _arrow_numbers(self, chance: random.Random) -> Message:
        """Lengths, offsets and counts that the stream declares: of rows, columns, buffers, and before decompression."""
        message = chance.choice(self._plain)
        value = bytearray(message.value)
        places = self._numbers[message.value]
        for _ in range(chance.choice((1, 1, 2, 5))):
            at, size = chance.choice(places)
            now = int.from_bytes(value[at : at + size], "little", signed=True)
            odd = chance.choice((*_INTEGERS, now + 1, now - 1, now * 2, -now, now + 2**31, len(value)))
            value[at : at + size] = (odd % 2 ** (8 * size)).to_bytes(size, "little")
        return replace(message, value=bytes(value))

    def _arrow_body(self, chance: random.Random) -> Message:
        """Offsets, validity and values themselves, where nothing is compressed."""
        message = chance.choice(self._open)
        value = bytearray(message.value)
        start = body_of(message.value)
        for _ in range(chance.choice((1, 2, 4, 16))):
            at = chance.randrange(start, max(start + 1, len(value) - 8)) & ~3
            value[at : at + 4] = struct.pack("<I", chance.choice(_INTEGERS) % 2**32)
        return replace(message, value=bytes(value))

    def _arrow_of_other_types(self, chance: random.Random) -> Message:
        message = chance.choice(self._plain)
        table = pa.ipc.open_stream(message.value).read_all()
        at = chance.randrange(table.num_columns)
        name = table.schema.names[at]
        array = chance.choice(self._odd_arrays)
        column = pa.concat_arrays([array] * table.num_rows) if len(array) == 1 else array
        metadata = chance.choice((None, None, {"cartoray.encoding": chance.choice(("json", "iso", "pickle", ""))}))
        field = pa.field(
            chance.choice((name, name, name, table.schema.names[0], "\u202e" * 99)), column.type, metadata=metadata
        )
        columns = [
            column.slice(0, table.num_rows) if number == at else each.combine_chunks()
            for number, each in enumerate(table.columns)
        ]
        fields = [field if number == at else each for number, each in enumerate(table.schema)]
        return replace(
            message, value=_stream(pa.schema(fields, metadata=chance.choice((None, {"pandas": "{"}))), columns, chance)
        )

    def _arrow_of_other_forms(self, chance: random.Random) -> Message:
        """No record batch, many, those of other schemas, dictionaries in between, files instead of streams."""
        message = chance.choice(self._plain)
        table = pa.ipc.open_stream(message.value).read_all()
        sink = pa.BufferOutputStream()
        form = chance.randrange(6)
        if form == 0:
            with pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
        elif form == 1:
            with pa.ipc.new_stream(sink, pa.schema([pa.field("d", pa.dictionary(pa.int8(), pa.string()))])) as writer:
                writer.write_batch(
                    pa.record_batch(
                        [pa.array(["a", "b"]).dictionary_encode().cast(pa.dictionary(pa.int8(), pa.string()))],
                        names=["d"],
                    )
                )
        elif form == 2:
            fields = [pa.field(f"c{number}", pa.null()) for number in range(chance.choice((0, 999, 1_001, 3_000)))]
            nulls = pa.nulls(chance.choice((0, 1, 100_000)))
            with pa.ipc.new_stream(sink, pa.schema(fields)) as writer:
                writer.write_batch(pa.record_batch([nulls] * len(fields), schema=pa.schema(fields)))
        else:
            with pa.ipc.new_stream(sink, table.schema) as writer:
                for _ in range(chance.choice((0, 2, 50))):
                    writer.write_table(table)
        return replace(message, value=bytes(sink.getvalue().to_pybytes()))

    @cached_property
    def _odd_arrays(self) -> list[pa.Array]:
        texts = [
            "2030-01-01T00:00:00+01:00[Nowhere/Land]",
            "0001-01-01T00:00:00+01:00[Asia/Tokyo]",
            "[" * 500,
            "9" * 5_000,
        ]
        texts += [
            '"\\ud800"',
            "[1,",
            "{}",
            "NaN",
            '{"a":1,"a":2}',
            "1e999",
            "9" * 30,
            "2030-01-01T00:00:00+00:00:00.5",
            "[Z",
        ]
        deep: Any = 1
        for _ in range(30):
            deep = [deep]
        found = [
            *(pa.array([text]) for text in texts),
            *(
                pa.array([year * 31_557_600_000_000], pa.timestamp("us", tz="+00:00"))
                for year in (-200_000, -2_000, 8_030, 200_000)
            ),
            pa.array([[2**62]], pa.list_(pa.timestamp("us", tz="+00:00"))),
            pa.array([deep]),
            pa.array([b"\xff\xfe"]).view(pa.string()),
            pa.array([[b"\xff"]], pa.list_(pa.binary())),
            *(
                pa.array([1], kind)
                for kind in (pa.int8(), pa.uint64(), pa.float32(), pa.date32(), pa.time64("us"), pa.duration("us"))
            ),
            *(pa.array([1], pa.timestamp(unit)) for unit in ("s", "ns")),
            pa.array([1], pa.timestamp("us", tz="Europe/Berlin")),
            *(pa.array(["a"], kind) for kind in (pa.large_string(), pa.string_view())),
            pa.array([{"a": [1]}]),
            pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
            pa.array([[1, 2]], pa.list_(pa.int64(), 2)),
            pa.array([[1]], pa.large_list(pa.int64())),
            pa.array([[1]], pa.list_view(pa.int64())),
            pa.array([None]),
            pa.array([[None, None]]),
            pa.array(["a"]).dictionary_encode(),
            pa.RunEndEncodedArray.from_arrays(pa.array([1], pa.int32()), pa.array(["x"])),
            pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])]),
            pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16], pa.binary(16))),
            pa.ExtensionArray.from_storage(pa.json_(), pa.array(["{}"])),
            pa.ExtensionArray.from_storage(pa.opaque(pa.string(), "t", "v"), pa.array(["x"])),
            pa.ExtensionArray.from_storage(
                pa.fixed_shape_tensor(pa.int64(), [1]), pa.array([[1]], pa.list_(pa.int64(), 1))
            ),
            pa.array([float("nan")]),
            pa.array([True]),
            pa.array([2**63 - 1]),
        ]
        return found

    def _bomb(self, chance: random.Random) -> Message:
        """Few bytes that stand for very much."""
        return self.bomb(chance.randrange(len(_BOMBS)))

    def bomb(self, number: int) -> Message:
        """Number 0 … BOMBS-1."""
        if number not in self._made:
            topic, make = _BOMBS[number]
            like = next(each for each in self.valid if topic in (each.topic, each.headers.get("kind", b"").decode()))
            self._made[number] = replace(like, value=make())
        return self._made[number]

    # ---- JSON --------------------------------------------------------------------------------------------------

    def _json_values(self, chance: random.Random) -> Message:
        """Something in the JSON is something else, is twice there, or is missing."""
        message = chance.choice(self._json)
        packed = message.headers.get("kind") == b"query"
        content = json.loads(zlib.decompress(message.value) if packed else message.value)
        for _ in range(chance.choice((1, 1, 1, 2, 4))):
            _replace_one(content, chance)
        text = json.dumps(content)
        if chance.random() < 0.1:
            at = chance.randrange(len(text) + 1)
            text = (
                text[:at]
                + chance.choice(('"a":1,', ",", "]", "}", "\\u0000", "\ufeff", "1e", "/**/", "\\ud83d"))
                + text[at:]
            )
        value = text.encode("utf-8", "surrogatepass")
        return replace(message, value=zlib.compress(value) if packed else value)


def numbers_of(value: bytes) -> list[tuple[int, int]]:
    """(place, bytes) of the numbers in the metadata and before each compressed buffer of a stream of one batch."""
    reader = pa.BufferReader(value)
    pa.ipc.read_message(reader)
    start = reader.tell()
    message = pa.ipc.read_message(reader)
    metadata, body = message.metadata.to_pybytes(), body_of(value)
    at = value.index(metadata[:64], start)
    found = [(at + place, 8) for place in range(0, len(metadata) - 7, 8)] + [
        (at + place, 4) for place in range(0, len(metadata) - 3, 4)
    ]
    found += [(start, 4), (start + 4, 4), (0, 4), (4, 4)]
    found += [(place, 8) for place in range(body, max(body + 8, len(value) - 16), 64)]
    return found


def body_of(value: bytes) -> int:
    """Where the record batch's body begins."""
    reader = pa.BufferReader(value)
    pa.ipc.read_message(reader)
    message = pa.ipc.read_message(reader)
    return int(reader.tell() - message.body.size)


def _stream(schema: pa.Schema, columns: Sequence[pa.Array], chance: random.Random) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=chance.choice((None, "zstd", "lz4")))
    batch = pa.RecordBatch.from_arrays(list(columns), schema=schema)
    with pa.ipc.new_stream(sink, schema, options=options) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue().to_pybytes())


def _replace_one(content: Any, chance: random.Random) -> None:
    places: list[tuple[Any, Any]] = []
    level = [content]
    while level:
        each = level.pop()
        keys = list(each) if isinstance(each, dict) else range(len(each)) if isinstance(each, list) else ()
        for key in keys:
            places.append((each, key))
            level.append(each[key])
    if not places:
        return
    where, key = chance.choice(places)
    match chance.randrange(5):
        case 0 if isinstance(where, dict):
            del where[key]
        case 1 if isinstance(where, dict):
            where[chance.choice(("", "added", "\ud800", "kind", "version", "k" * 5_000))] = deepcopy(where[key])
        case 2:
            other, at = chance.choice(places)
            where[key] = deepcopy(other[at])
        case _:
            where[key] = deepcopy(chance.choice(_JSON))


def _flip(value: bytearray, chance: random.Random) -> None:
    if value:
        value[chance.randrange(len(value))] ^= 1 << chance.randrange(8)


def _cut(value: bytearray, chance: random.Random) -> None:
    del value[chance.randrange(len(value) + 1) :]


def _leave_out(value: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(value) + 1)
    del value[at : at + chance.choice((1, 4, 8, 64, 500))]


def _extend(value: bytearray, chance: random.Random) -> None:
    value += chance.choice((b"\0" * 8, b"\xff" * 8, bytes(value), chance.randbytes(50), b"\xff\xff\xff\xff\0\0\0\0"))


def _repeat(value: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(value) + 1)
    value[at:at] = value[at : at + chance.choice((1, 8, 64, 500))]


def _overwrite(value: bytearray, chance: random.Random) -> None:
    size = chance.choice((1, 2, 4, 8))
    at = chance.randrange(len(value) + 1)
    value[at : at + size] = (chance.choice(_INTEGERS) % 2 ** (8 * size)).to_bytes(size, "little")


def _blank(value: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(value) + 1)
    size = min(chance.choice((4, 16, 200)), len(value) - at)
    value[at : at + size] = chance.choice((b"\0", b"\xff")) * size


def _column(array: pa.Array, encoding: str | None = None, compression: str = "zstd") -> bytes:
    """In a column that is decoded, of a schema whose ids are there."""
    name = schemas.fields(samples.INSTANCE)[0]
    fields = [
        pa.field("InstanceId", pa.string()),
        pa.field(name, array.type, metadata={"cartoray.encoding": encoding} if encoding else None),
    ]
    return stream(pa.record_batch([pa.array(["i"] * len(array)), array], schema=pa.schema(fields)), compression)


def _list(entries: int, values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array([0, entries], pa.int32()), values)


def _query(text: bytes) -> bytes:
    return zlib.compress(text, 1)


_STALE = b'{"query":"MATCH (n)-[r]->() WHERE r.lastupdated <> $UPDATE_TAG'
_UNBOUND = b"MATCH (n:A) MATCH (n)-[r:B]->(:C) WHERE r.lastupdated <> $UPDATE_TAG "
_BITS, _TEXTS = 400_000_000, 5_000_000
_BOMBS: tuple[tuple[str, Callable[[], bytes]], ...] = (
    ("rows", lambda: _column(pa.array(["x" * 60_000_000]))),
    ("rows", lambda: _column(pa.array(["x" * 70_000_000]), compression="lz4")),
    ("rows", lambda: _column(pa.nulls(100_000))),
    ("rows", lambda: _column(pa.nulls(100_001))),
    ("rows", lambda: _column(_list(2_000_000_000, pa.nulls(2_000_000_000)))),
    (
        "rows",
        lambda: _column(
            _list(_BITS, pa.Array.from_buffers(pa.bool_(), _BITS, [None, pa.py_buffer(bytes(_BITS // 8))]))
        ),
    ),
    (
        "rows",
        lambda: _column(
            _list(
                _TEXTS,
                pa.Array.from_buffers(
                    pa.string(), _TEXTS, [None, pa.py_buffer(bytes(4 * _TEXTS + 4)), pa.py_buffer(b"")]
                ),
            )
        ),
    ),
    ("rows", lambda: _column(pa.array(["[" + "[]," * 5_000_000 + "0]"]), "json")),
    ("rows", lambda: _column(pa.array(["[" + "[]," * 600_000 + "0]"]), "json")),
    ("rows", lambda: _column(pa.array(['[{"a":{}}' + ',{"a":{}}' * 300_000 + "]"]), "json")),
    ("rows", lambda: _column(pa.array(["9" * 1_000_000]), "json")),
    ("rows", lambda: _column(pa.array(["1." + "9" * 10_000_000]), "json")),
    ("rows", lambda: _column(pa.array(["[" * 100_000]), "json")),
    ("query", lambda: _query(b" " * 70_000_000)),
    ("query", lambda: _query(b'{"query":"","parameters":{"a":[' + b"[]," * 5_000_000 + b"0]}}")),
    ("query", lambda: _query(b'{"query":"","parameters":{"a":[' + b"[]," * 600_000 + b"0]}}")),
    ("query", lambda: _query(b'{"query":"","parameters":{"a":' + b"9" * 1_000_000 + b"}}")),
    ("query", lambda: _query(b'{"query":"' + b"/*" * 100_000 + b'","parameters":{}}')),
    ("query", lambda: _query(b'{"query":"' + b"'\\\\" * 100_000 + b'","parameters":{}}')),
    ("query", lambda: _query(_STALE + b" AND a" * 40 + b' DELETE r","parameters":{}}')),
    ("query", lambda: _query(_STALE + b" AND a" * 20_000 + b' DELETE r","parameters":{}}')),
    ("query", lambda: _query(_STALE + b" AND " * 20_000 + b' DELETE r","parameters":{}}')),
    ("query", lambda: _query(_STALE + b" AND" + b" " * 100_000 + b' DELETE r","parameters":{}}')),
    (
        "query",
        lambda: _query(
            b'{"query":"'
            + _UNBOUND * 2
            + _STALE[10:]
            + b' WITH r LIMIT $LIMIT_SIZE DELETE r;","parameters":{"AWS_ID":"1"}}'
        ),
    ),
    (
        "query",
        lambda: _query(b'{"query":"' + _UNBOUND * 5_000 + _STALE[10:] + b' DELETE r","parameters":{"AWS_ID":"1"}}'),
    ),
    ("query", lambda: _query(b'{"query":"' + b"/* " * 100_000 + b'","parameters":{}}')),
    ("query", lambda: _query(b'{"query":"' + b"'\\\\" * 100_000 + b'\\\\","parameters":{}}')),
    ("query", lambda: _query(b'{"query":"' + b"SET a." * 100_000 + b'","parameters":{}}')),
    (
        "query",
        lambda: _query(
            b'{"query":"MATCH (n) WHERE n.lastupdated <> $UPDATE_TAG '
            + b" " * 100_000
            + b'DETACH DELETE n","parameters":{}}'
        ),
    ),
    ("query", lambda: _query(b'{"query":"","parameters":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001)),
    *(
        (topic, lambda text=text: text)  # type: ignore[misc]
        for topic in ("step", "intel_jobs", "run_events", "graph_ledger")
        for text in (
            b"[" * 900_000,
            b'{"a":' * 150_000,
            b'{"kind":' + b"9" * 900_000 + b"}",
            b'{"' + b"k" * 900_000 + b'":1}',
            b'{"kind":"batch_landed","run_id":"r","job_id":"a/b/c","attempt":"a","at_ms":1,"rows":[1],"sequences":['
            + b"1," * 440_000
            + b"1]}",
        )
    ),
)
BOMBS = len(_BOMBS)
_DAMAGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    *(_flip, _flip, _flip, _cut, _leave_out, _extend, _repeat, _overwrite, _overwrite, _blank),
)
_KINDS, _WEIGHTS = zip(
    (Inputs._damaged, 3_000),
    (Inputs._arrow_numbers, 1_500),
    (Inputs._arrow_body, 1_500),
    (Inputs._json_values, 1_500),
    (Inputs._with_other_headers, 1_000),
    (Inputs._spliced, 600),
    (Inputs._arrow_of_other_types, 400),
    (Inputs._arrow_of_other_forms, 100),
    (Inputs._noise, 200),
    (Inputs._valid_as_it_is, 50),
    (Inputs._bomb, 5),
    strict=True,
)
