"""On real topics: what would end a process, and the next one, becomes a dead letter that says why; the rest lands."""

from __future__ import annotations

import ctypes
import json
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import confluent_kafka
import neo4j
import pyarrow as pa
import pytest
from ingestion_rows import ACCOUNT, INSTANCE, OTHER, instances, messages, run
from ingestion_topics import Bench
from support.samples import stream

from cartoray import schemas, wire
from cartoray.dead_letters import read_dead_letter
from cartoray.kafka import read_all
from cartoray.messages import Message
from cartoray.queries import Query, encode_query
from cartoray.settings import Settings
from cartoray.steps import Settle

pytestmark = pytest.mark.stack

FIELD = next(name for name in schemas.fields(INSTANCE) if name != "InstanceId")
UTC = pa.timestamp("us", tz="+00:00")


@pytest.fixture
def bench(stack_settings: Settings, graph: neo4j.Driver) -> Iterator[Bench]:
    run(graph, "UNWIND $ids AS id MERGE (:AWSAccount {id: id, lastupdated: 0})", ids=[ACCOUNT, OTHER])
    bench = Bench(stack_settings)
    yield bench
    bench.close()


def rows(**columns: pa.Array) -> bytes:
    """A stream of rows with ids, and these columns."""
    first = next(iter(columns.values()))
    named = {"InstanceId": pa.array([f"i-{number}" for number in range(len(first))])} | columns
    return stream(pa.record_batch(list(named.values()), names=list(named)), "zstd")


def encoded(array: pa.Array, encoding: str) -> bytes:
    schema = pa.schema(
        [("InstanceId", pa.string()), pa.field(FIELD, array.type, metadata={"cartoray.encoding": encoding})]
    )
    return stream(pa.record_batch([pa.array(["i-1"]), array], schema=schema), "zstd")


def twice(value: bytes) -> bytes:
    """The same stream with its record batch again."""
    batch, sink = pa.ipc.open_stream(value).read_next_batch(), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
        writer.write_batch(batch)
    return bytes(sink.getvalue().to_pybytes())


def query(content: dict[str, Any]) -> bytes:
    return zlib.compress(json.dumps({"query": "RETURN 1", "parameters": {}} | content).encode())


def hostile(bench: Bench) -> dict[str, Message]:
    (good,) = messages(INSTANCE, instances(2), module="hostile")
    step = bench.step(Settle(deferrals=()), step_id="hostile")
    asked = dict(wire.query_headers(wire.origin(good.headers)))

    def value(content: bytes) -> Message:
        return replace(good, value=content)

    def header(**changed: bytes) -> Message:
        return replace(good, headers={**good.headers, **changed})

    def asking(content: bytes) -> Message:
        return Message("", 0, 0, good.key, content, asked)

    unbound = "MATCH (n:A) MATCH (n)-[r:B]->(:C) WHERE r.lastupdated <> $UPDATE_TAG "
    nulls = pa.ListArray.from_arrays(pa.array([0, 2_000_000_000], pa.int32()), pa.nulls(2_000_000_000))
    return {
        "years that Python has not": value(rows(**{FIELD: pa.array([2**60], UTC)})),
        "two billion nulls in a few bytes": value(rows(**{FIELD: nulls})),
        "ids that are lists": value(rows(InstanceId=pa.array([["i-1"], ["i-2"]]))),
        "numbers that should be JSON": value(encoded(pa.array([1]), "json")),
        "JSON beyond 64 bits": value(encoded(pa.array(["9" * 40]), "json")),
        "half a character": value(encoded(pa.array(['"\\ud800"']), "json")),
        "lists in lists in lists": value(encoded(pa.array(["[" * 500 + "]" * 500]), "json")),
        "more record batches": value(twice(good.value)),
        "an update tag beyond 64 bits": header(tag=b"9" * 30, touch=b"lazy"),
        "a constant beyond 64 bits": header(constants=b'{"AWS_ID": 99999999999999999999, "Region": "r"}'),
        "a header of half a megabyte": header(schema=b"x" * 500_000),
        "a tag of half a character": asking(query({"parameters": {"a": {"$\ud800": 1}}})),
        "a cleanup counted from the end": asking(query({"cleanup": {"schema": INSTANCE, "number": -1}})),
        "a cleanup of every account": asking(
            encode_query(Query(f"{unbound * 2}WITH r LIMIT $LIMIT_SIZE DELETE r;", {"AWS_ID": ACCOUNT}))
        ),
        "a place that is none": replace(
            step,
            value=step.value.replace(
                b'"deferrals":[]', b'"deferrals":[{"partition":0,"offset":%d,"relationship":0,"rows":1}]' % 2**70
            ),
        ),
        "an empty message": Message("", 0, 0, good.key, b"", {}),
    }


def publish_with_odd_header(settings: Settings, topic: str, key: bytes) -> None:
    """A header's name that is no UTF-8: this client cannot make one, the library below it can."""
    package = Path(confluent_kafka.__file__).parent
    (found,) = package.parent.glob("confluent_kafka.libs/librdkafka*.so*")
    library = ctypes.CDLL(str(found))
    library.rd_kafka_conf_new.restype = library.rd_kafka_new.restype = ctypes.c_void_p
    configuration, said = ctypes.c_void_p(library.rd_kafka_conf_new()), ctypes.create_string_buffer(500)
    servers = settings.kafka.bootstrap_servers.encode()
    assert library.rd_kafka_conf_set(configuration, b"bootstrap.servers", servers, said, 500) == 0
    producer = ctypes.c_void_p(library.rd_kafka_new(0, configuration, said, 500))
    assert producer.value
    size = ctypes.c_size_t
    failed = library.rd_kafka_producev(
        producer,
        *(
            1,
            ctypes.c_char_p(topic.encode()),
        ),  # RD_KAFKA_VTYPE_TOPIC, …_VALUE, …_KEY, …_HEADER, …_MSGFLAGS: copy, …_END
        *(4, ctypes.c_char_p(b"odd"), size(3)),
        *(5, ctypes.c_char_p(key), size(len(key))),
        *(9, ctypes.c_char_p(b"\xff\xfe"), ctypes.c_char_p(b"x"), size(1)),
        *(7, 2),
        0,
    )
    assert failed == 0
    assert library.rd_kafka_flush(producer, 20_000) == 0
    library.rd_kafka_destroy(producer)


def publish_compressed(settings: Settings, topic: str, key: bytes, value: bytes) -> None:
    """By a producer that lets Kafka compress: the limits of topics are those of what is sent."""
    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": settings.kafka.bootstrap_servers,
            "compression.type": "gzip",
            "message.max.bytes": 100_000_000,
        }
    )
    reports: list[object] = []
    producer.produce(topic, key=key, value=value, on_delivery=lambda error, _: reports.append(error))
    assert producer.flush(30) == 0
    assert reports == [None]


def test_what_no_process_of_ours_sends_is_buried_with_a_reason_and_the_others_land(
    bench: Bench, graph: neo4j.Driver
) -> None:
    bad = hostile(bench)
    good = list(messages(INSTANCE, instances(len(bad) + 3), per_message=1, module="good"))
    places = {}
    for (name, message), before in zip(bad.items(), good, strict=False):
        bench.publish([before])
        (places[name],) = bench.publish([message])
    topic = bench.topics.data.name
    publish_with_odd_header(bench.settings, topic, good[0].key)
    publish_compressed(bench.settings, topic, good[0].key, bytes(30_000_000))
    bench.publish(good[len(bad) :])
    with bench.sink() as sink:
        events = bench.until(bench.landed(len(good)), timeout_s=90)
        assert sink.status().messages_refused == len(bad) + 2
    assert run(graph, "MATCH (n:AWSEC2Instance) RETURN count(n)") == [[len(good)]]
    dead = list(read_all(bench.settings.kafka, bench.topics.dead_letters.name))
    letters = {(letter.partition, letter.offset): letter for letter in map(read_dead_letter, dead)}
    values = {
        (letter.partition, letter.offset): each.value
        for letter, each in zip(map(read_dead_letter, dead), dead, strict=True)
    }
    assert len(letters) == len(bad) + 2
    for name, message in bad.items():
        assert letters[places[name]].reason, name
        assert values[places[name]] == message.value, name
    others = [letter for place, letter in letters.items() if place not in places.values()]
    assert sorted("30000000 bytes, too many" in letter.reason for letter in others) == [False, True]
    assert events
