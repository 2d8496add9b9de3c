"""Rows of a message → a number each, which is another one as soon as a value is. Vectorised, pure.

A node carries the fingerprint of the row that it was written from (`PROPERTY`), so that a later sync need not send the
values of a row that did not change. It depends on the values alone: not on the order of columns, on other rows of the
message, on the machine, or on the release of a library. It is keyed, and whoever can set values in the cloud does not
know the key: with 64 bits, two rows that look alike could otherwise be made on purpose.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from itertools import pairwise

import pyarrow as pa
import pyarrow.compute as pc

PROPERTY = "_cartoray_fingerprint"
# no byte of these occurs in UTF-8, so that no value can look like two, or like none
_END, _NONE, _TYPED = b"\xff", b"\xfe", b"\xfd"
_BINARY = pa.binary()


def key_of(salt: bytes, statement: str, constants: Mapping[str, object]) -> bytes:
    """A key for rows that `statement` writes with the same `constants`: what it makes of them counts as well."""
    said = json.dumps([statement, sorted(constants.items())]).encode()
    return blake2b(said, key=blake2b(salt).digest(), digest_size=32).digest()


def fingerprints(batch: pa.RecordBatch, fields: Sequence[str], key: bytes) -> list[int]:
    """One signed 64-bit integer per row of `batch`, over its columns `fields`; one that it lacks is null."""
    absent = pa.nulls(batch.num_rows, _BINARY)
    present = set(batch.schema.names)
    pieces = [_piece(batch.schema.field(name), batch.column(name)) if name in present else absent for name in fields]
    joined = pc.binary_join_element_wise(*pieces, pa.scalar(_END), null_handling="replace", null_replacement=_NONE)
    _, offsets, data = joined.buffers()
    ends = memoryview(offsets).cast("i")[joined.offset : joined.offset + batch.num_rows + 1].tolist()
    keyed = blake2b(key=key, digest_size=8)
    found = []
    values = memoryview(data)
    for start, end in pairwise(ends):
        one = keyed.copy()
        one.update(values[start:end])
        found.append(int.from_bytes(one.digest(), "little", signed=True))
    return found


def _piece(field: pa.Field, column: pa.Array) -> pa.Array:
    """The values as bytes, null where they are null; of another type than plain text they say which one."""
    if column.null_count == len(column):
        return pa.nulls(len(column), _BINARY)
    encoding = (field.metadata or {}).get(b"cartoray.encoding", b"")
    if pa.types.is_string(column.type) and not encoding:
        return column.cast(_BINARY)
    if pa.types.is_list(column.type):
        texts = [None if value is None else json.dumps(value, default=str) for value in column.to_pylist()]
        column = pa.array(texts, pa.string())
    elif pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64()).cast(pa.string())
    elif not pa.types.is_string(column.type):
        column = column.cast(pa.string())
    mark = _TYPED + (encoding or str(field.type).encode())
    return pc.binary_join_element_wise(pa.scalar(mark), column.cast(_BINARY), pa.scalar(b"="))
