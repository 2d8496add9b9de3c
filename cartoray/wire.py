"""Rows ⇄ messages on `graph_data`.

A message of rows is one Arrow IPC stream of one record batch, its buffers compressed with zstd inside the stream, and
headers that say what it feeds. Arrow from a topic is untrusted: sizes are checked before anything is decompressed, and
every batch is validated in full before a value is read (with pyarrow 26 a wrong string offset otherwise ends the
process). Extension types, dictionaries and pickles are refused, and so is what `cartoray.values` has no room for: Arrow
needs a few bytes for any number of nulls, and has dates that Python has not.

    header        value                                       on
    kind          rows | step | query                         all
    version       1                                           all
    run, tag      run id, update tag (decimal)                all
    job, attempt  who published it                            rows, query
    sequence      0 … n-1 inside the attempt (decimal)        rows, query
    schema        path of the node schema                     rows
    constants     JSON: the values that all rows share        rows
    touch         lazy: nodes that did not change stay as     rows, optional
                  they are, even their lastupdated
    step          step id                                     step
    signature     see `cartoray.queries`                      query, where a signing key is set
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pytz
from pydantic import TypeAdapter, ValidationError

from cartoray.errors import RowRejected, UnreadableMessage
from cartoray.jobs import FORMAT_VERSION, JOB_ID, Touch
from cartoray.steps import Step
from cartoray.values import INTEGER_MAX, MARKS, VALUES_MAX, check, from_json_text

Row = Mapping[str, Any]
Headers = list[tuple[str, bytes]]

ROWS_MAX = 100_000  # in one message; a null column needs no bytes for its rows, so bytes alone bound nothing
COLUMNS_MAX = 1_000
DECOMPRESSED_BYTES_MAX = 64 * 1024 * 1024
_JSON_COLUMN = {b"cartoray.encoding": b"json"}
_ISO_COLUMN = {b"cartoray.encoding": b"iso"}
_END = b"\xff\xff\xff\xff\0\0\0\0"  # of an IPC stream: the marker of a message, and that it has no bytes
# what pyarrow, struct and json raise on bytes that are not what they should be
_UNREADABLE = (
    pa.ArrowException,
    EOFError,
    OSError,
    ValueError,
    OverflowError,
    struct.error,
    IndexError,
    RecursionError,
)


def _to_iso(value: datetime) -> str:
    """2026-01-02T03:04:05+01:00[Europe/Berlin]: Neo4j keeps the zone's name, where a date-time has one."""
    name = _zone(value)
    return value.isoformat() + (f"[{name}]" if name in pytz.all_timezones_set else "")


def _zone(value: datetime) -> str | None:
    """Its name, as zoneinfo and pytz have it."""
    return getattr(value.tzinfo, "key", None) or getattr(value.tzinfo, "zone", None)


def _from_iso(text: str) -> datetime:
    """Zones are those of pytz: one of zoneinfo ends the process in Neo4j's driver (6.2, `DateTime.as_timezone`)."""
    iso, _, name = text.rstrip("]").partition("[")
    try:
        return datetime.fromisoformat(iso).astimezone(pytz.timezone(name)) if name else datetime.fromisoformat(iso)
    except pytz.UnknownTimeZoneError:
        raise ValueError(f"{name:.80} is no time zone") from None


_READ: Mapping[bytes, Callable[[str], Any]] = {b"json": from_json_text, b"iso": _from_iso}
_UTC = pa.timestamp("us", tz="+00:00")  # read back as datetime.timezone.utc, which Neo4j stores as stock's tzutc
_FIRST, _LAST = (pa.scalar(end.replace(tzinfo=UTC), _UTC) for end in (datetime.min, datetime.max))


@dataclass(frozen=True)
class Origin:
    """Whose a message is: number `sequence` of an attempt."""

    run_id: str
    update_tag: int
    job_id: str
    attempt: str
    sequence: int


@dataclass(frozen=True)
class RowsHeader(Origin):
    """What a message of rows feeds, and whose it is."""

    schema: str
    constants: Mapping[str, str | int | bool | None]
    touch: Touch = "always"


_STEP: TypeAdapter[Step] = TypeAdapter(Step)


def encode_rows(rows: Sequence[Row], columns: Sequence[str]) -> pa.Table:
    """`rows` (one per node, in order) as a table of `columns`; a field that a row lacks is null.

    Types are inferred per column over all rows. A column that mixes types, or holds maps, travels as JSON; date-times
    that are not all at offset 0 travel as texts, since Arrow has one zone a column.
    Raises RowRejected naming the field: what `cartoray.values` refuses, or a value of no known type.
    """
    fields, arrays = [], []
    for column in columns:
        values = [row.get(column) for row in rows]
        field, array = _encode_column(column, values)
        fields.append(field)
        arrays.append(array)
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def _encode_column(column: str, values: list[Any]) -> tuple[pa.Field, pa.Array]:
    try:
        array: pa.Array | None = pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError):
        array = None
    if array is not None and pa.types.is_timestamp(array.type):
        if any(value is not None and (value.utcoffset() != timedelta(0) or _zone(value)) for value in values):
            texts = [None if value is None else _to_iso(value) for value in values]
            return pa.field(column, pa.string(), metadata=_ISO_COLUMN), pa.array(texts, pa.string())
        array = array.cast(_UTC)
    if array is not None and not _kept(array.type, values):
        array = None
    if array is not None and _plain(array.type):
        return pa.field(column, array.type), array
    for number, value in enumerate(values):
        try:
            check(value)
        except ValueError as error:
            raise RowRejected(f"Row {number}: {column} is {error}.") from None
    try:
        texts = [None if value is None else json.dumps(value) for value in values]
    except (TypeError, ValueError) as error:
        raise RowRejected(f"Column {column}: {error}.") from None
    return pa.field(column, pa.string(), metadata=_JSON_COLUMN), pa.array(texts, pa.string())


def _kept(kind: pa.DataType, values: Sequence[Any]) -> bool:
    """Whether Arrow took the values as they are: of integers beside floats it makes floats, in Neo4j another type."""
    if pa.types.is_list(kind):
        return all(_kept(kind.value_type, each) for each in values if each is not None)
    return not pa.types.is_float64(kind) or all(isinstance(each, float) for each in values if each is not None)


def _plain(kind: pa.DataType) -> bool:
    """Whether a column of this type comes back as the very Python values that went in."""
    if pa.types.is_list(kind):
        return _plain(kind.value_type)
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_int64(kind)
        or pa.types.is_float64(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_null(kind)
        or kind == _UTC
    )


def split(table: pa.Table, bytes_max: int) -> Iterator[bytes]:
    """Slices of `table`, in order, each an IPC stream of at most `bytes_max` bytes and ROWS_MAX rows.

    Raises RowRejected when a single row is larger: Kafka cannot split a message.
    """
    pending = [table.slice(start, ROWS_MAX) for start in range(0, table.num_rows, ROWS_MAX)][::-1]
    while pending:
        part = pending.pop()
        if part.nbytes <= DECOMPRESSED_BYTES_MAX // 2 and _values(part) <= VALUES_MAX:
            value = _stream(part)
            if len(value) <= bytes_max:
                yield value
                continue
        if part.num_rows == 1:
            raise RowRejected(f"One row needs more than {bytes_max} bytes (CARTORAY_KAFKA_MESSAGE_BYTES_MAX).")
        half = part.num_rows // 2
        pending += [part.slice(half), part.slice(0, half)]


def _stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        for batch in table.combine_chunks().to_batches():
            writer.write_batch(batch)
    value: bytes = sink.getvalue().to_pybytes()
    return value


class Columns(Mapping[str, list[Any]]):
    """The columns of a message by name, as Python values in row order; each is decoded when it is first asked for."""

    def __init__(self, batch: pa.RecordBatch, read: Mapping[str, list[Any]]) -> None:
        """`batch` was validated in full; `read` are the values of those columns that travel as something else."""
        self.batch = batch
        self.rows: int = batch.num_rows
        self._read = read
        self._values = dict(read)

    def __getitem__(self, name: str) -> list[Any]:
        if name not in self._values:
            self._values[name] = self.batch.column(name).to_pylist()
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.batch.schema.names)

    def __len__(self) -> int:
        return int(self.batch.num_columns)

    def has(self, name: str) -> bool:
        """Whether there is such a column, and any value in it."""
        return name in self.batch.schema.names and bool(self.batch.column(name).null_count < self.rows)

    def take(self, places: Sequence[int]) -> Columns:
        """The rows at these places, in that order."""
        read = {name: [values[place] for place in places] for name, values in self._read.items()}
        return Columns(self.batch.take(pa.array(places, pa.int64())), read)


def decode_rows(value: bytes) -> Columns:
    """The columns of a message. Raises UnreadableMessage for anything but a stream that `split` could have written."""
    try:
        batch = _read_batch(value)
        if (values := _values(batch)) > VALUES_MAX:
            raise UnreadableMessage(f"Holds {values} values; at most {VALUES_MAX} are taken.")
        read = {}
        for field, array in zip(batch.schema, batch.columns, strict=True):
            if decode := _decoding(field):
                read[field.name] = [None if text is None else decode(text) for text in array.to_pylist()]
    except _UNREADABLE as error:
        raise UnreadableMessage(f"Not a valid Arrow IPC stream: {error}") from None
    return Columns(batch, read)


def _decoding(field: pa.Field) -> Callable[[str], Any] | None:
    """How the texts of a column are read that travels as something else. Raises UnreadableMessage."""
    encoding = (field.metadata or {}).get(b"cartoray.encoding")
    if encoding is None:
        return None
    if encoding not in _READ or not pa.types.is_string(field.type):
        raise UnreadableMessage(f"Column {field.name!r} is of type {field.type}, encoded as {encoding!r}.")
    return _READ[encoding]


def _values(table: pa.Table | pa.RecordBatch) -> int:
    """How many values it holds, or some more: those in lists and in JSON as well, and of columns that nobody asks for.

    Nothing of it need be valid but the texts.
    """
    total = 0
    for field, column in zip(table.schema, table.columns, strict=True):
        total += len(column)
        if (field.metadata or {}).get(b"cartoray.encoding") == b"json" and pa.types.is_string(field.type):
            for mark in MARKS:
                total += pc.sum(pc.count_substring(column, mark)).as_py() or 0
        for array in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
            total += sum(map(len, _entries(array)))
    return total


def _entries(array: pa.Array) -> Iterator[pa.Array]:
    """What is in its lists, and in the lists in these."""
    while pa.types.is_list(array.type):
        array = array.flatten()
        yield array


def _check_dates(array: pa.Array) -> None:
    """Raises UnreadableMessage: Arrow's years go far beyond those of Python and Neo4j's driver."""
    *_, values = (array, *_entries(array))
    if pa.types.is_timestamp(values.type):
        ends = pc.min_max(values)
        if ends["min"].is_valid and not (_FIRST.value <= ends["min"].value and ends["max"].value <= _LAST.value):
            raise UnreadableMessage("A date-time whose year is not one of 1 to 9999.")


def _read_batch(value: bytes) -> pa.RecordBatch:
    reader = pa.BufferReader(value)
    first = pa.ipc.read_message(reader)
    if first.type != "schema":
        raise UnreadableMessage(f"An Arrow IPC stream begins with its schema, not with a {first.type}.")
    schema = pa.ipc.read_schema(first)
    if len(schema) > COLUMNS_MAX or len(set(schema.names)) != len(schema):
        raise UnreadableMessage(f"{len(schema)} columns, at most {COLUMNS_MAX} with names of their own are taken.")
    for field in schema:
        if not _plain(field.type):
            raise UnreadableMessage(f"Column {field.name!r} is of type {field.type}, which no message carries.")
    second = pa.ipc.read_message(reader)
    if second.type != "record batch":
        raise UnreadableMessage(f"A record batch was expected after the schema, not a {second.type}.")
    rows, decompressed = _declared(second)
    if not 0 <= rows <= ROWS_MAX or decompressed > DECOMPRESSED_BYTES_MAX:
        raise UnreadableMessage(
            f"Declares {rows} rows and {decompressed} bytes; at most {ROWS_MAX} and {DECOMPRESSED_BYTES_MAX} are taken."
        )
    if (rest := value[reader.tell() :]) != _END:
        raise UnreadableMessage(f"{len(rest)} bytes after the record batch, where the stream should end.")
    batch = pa.ipc.read_record_batch(second, schema)
    batch.validate(full=True)
    for column in batch.columns:
        _check_dates(column)
    return batch


def _declared(message: pa.Message) -> tuple[int, int]:
    """(rows, bytes after decompression) that a record batch declares, without decompressing it.

    Arrow has no call for this. Layout: Message.fbs of the Arrow format (flatbuffers, little-endian): Message.header is
    field 2, RecordBatch has length (0), buffers (2: structs of offset and length) and compression (3); a compressed
    buffer begins with its length after decompression, -1 meaning that it is stored as it is.
    """
    metadata, body = message.metadata.to_pybytes(), message.body
    root = struct.unpack_from("<I", metadata, 0)[0]
    header = _field(metadata, root, 2)
    if header is None:
        raise UnreadableMessage("A message without a header.")
    table = header + struct.unpack_from("<I", metadata, header)[0]
    length_at, buffers_at, compression_at = (_field(metadata, table, number) for number in (0, 2, 3))
    rows = struct.unpack_from("<q", metadata, length_at)[0] if length_at is not None else 0
    if buffers_at is None:
        return rows, 0
    vector = buffers_at + struct.unpack_from("<I", metadata, buffers_at)[0]
    total = 0
    for number in range(struct.unpack_from("<I", metadata, vector)[0]):
        offset, length = struct.unpack_from("<qq", metadata, vector + 4 + 16 * number)
        if offset < 0 or length < 0 or offset + length > body.size:
            raise UnreadableMessage("A buffer outside of its message.")
        if compression_at is not None and length >= 8:
            declared = struct.unpack("<q", body.slice(offset, 8).to_pybytes())[0]
            if declared < -1:
                raise UnreadableMessage("A buffer of negative length.")
            total += length if declared == -1 else declared
        else:
            total += length
    return rows, total


def _field(metadata: bytes, table: int, number: int) -> int | None:
    """Position of a flatbuffers table's field, None when it is absent."""
    vtable = table - struct.unpack_from("<i", metadata, table)[0]
    if vtable < 0 or struct.unpack_from("<H", metadata, vtable)[0] <= 4 + 2 * number:
        return None
    offset = struct.unpack_from("<H", metadata, vtable + 4 + 2 * number)[0]
    return table + offset if offset else None


def rows_headers(header: RowsHeader) -> Headers:
    return [
        *_origin_headers("rows", header),
        ("schema", header.schema.encode()),
        ("constants", json.dumps(dict(header.constants), sort_keys=True).encode()),
        *([("touch", b"lazy")] if header.touch == "lazy" else []),
    ]


def query_headers(origin: Origin) -> Headers:
    return _origin_headers("query", origin)


def _origin_headers(kind: str, origin: Origin) -> Headers:
    return [
        ("kind", kind.encode()),
        ("version", str(FORMAT_VERSION).encode()),
        ("run", origin.run_id.encode()),
        ("tag", str(origin.update_tag).encode()),
        ("job", origin.job_id.encode()),
        ("attempt", origin.attempt.encode()),
        ("sequence", str(origin.sequence).encode()),
    ]


def step_headers(step: Step) -> Headers:
    return [
        ("kind", b"step"),
        ("version", str(FORMAT_VERSION).encode()),
        ("run", step.run_id.encode()),
        ("tag", str(step.update_tag).encode()),
        ("step", step.step_id.encode()),
    ]


def encode_step(step: Step) -> bytes:
    return step.model_dump_json().encode()


def decode_step(value: bytes) -> Step:
    """Raises UnreadableMessage."""
    try:
        return _STEP.validate_json(value)
    except ValidationError as error:
        raise UnreadableMessage(f"Not a step: {error.errors(include_input=False)[0]['msg']}.") from None


def kind_of(headers: Mapping[str, bytes]) -> Literal["rows", "step", "query"]:
    """Raises UnreadableMessage: a kind or version that this release does not know."""
    version = headers.get("version", b"").decode("ascii", "replace")
    if version != str(FORMAT_VERSION):
        raise UnreadableMessage(f"Format version {version!r}; this release reads {FORMAT_VERSION}.")
    match headers.get("kind"):
        case b"rows":
            return "rows"
        case b"step":
            return "step"
        case b"query":
            return "query"
        case other:
            raise UnreadableMessage(f"Message of kind {other!r}.")


def origin(headers: Mapping[str, bytes]) -> Origin:
    """Raises UnreadableMessage naming the header that is missing or wrong."""
    try:
        job_id = headers["job"].decode()
        if not re.match(JOB_ID, job_id):
            raise ValueError(f"{job_id!r:.80} is no job")
        return Origin(
            run_id=headers["run"].decode(),
            update_tag=_number(headers["tag"]),
            job_id=job_id,
            attempt=headers["attempt"].decode(),
            sequence=_number(headers["sequence"]),
        )
    except KeyError as error:
        raise UnreadableMessage(f"Header {error} is missing.") from None
    except ValueError as error:
        raise UnreadableMessage(f"A header cannot be read: {error}.") from None


def _number(text: bytes) -> int:
    """As `_origin_headers` writes it. Raises ValueError."""
    if not re.fullmatch(rb"\d{1,19}", text) or int(text) > INTEGER_MAX:
        raise ValueError(f"{text!r:.80} is no number of 64 bits")
    return int(text)


def rows_header(headers: Mapping[str, bytes]) -> RowsHeader:
    """Raises UnreadableMessage naming the header that is missing or wrong."""
    try:
        constants = from_json_text(headers["constants"].decode())
        if not isinstance(constants, dict) or any(isinstance(value, dict | list) for value in constants.values()):
            raise ValueError("constants is not a JSON object of plain values")
        schema = headers["schema"].decode()
        touch: Touch = "lazy" if headers.get("touch") == b"lazy" else "always"
    except KeyError as error:
        raise UnreadableMessage(f"Header {error} is missing.") from None
    except (ValueError, RecursionError) as error:
        raise UnreadableMessage(f"A header cannot be read: {error}.") from None
    return RowsHeader(**vars(origin(headers)), schema=schema, constants=constants, touch=touch)
