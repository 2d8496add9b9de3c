"""HTTP, as bytes in and requests out."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.replay.connections import BODY_BYTES_MAX, MalformedRequest, RequestReader, response
from bench.replay.requests import Request

PLAIN = b"GET /data?acl HTTP/1.1\r\nHost: a:1\r\nuser-agent: x\r\nAUTHORIZATION:  y \r\n\r\n"
LONG = b"POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello"
CHUNKED = (
    b"PUT /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5;x=y\r\nhello\r\n1\r\n,\r\nA\r\n0123456789\r\n0\r\nTrailer: z\r\n\r\n"
)
EMPTY = b"PUT /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
ALL = (PLAIN, LONG, CHUNKED, EMPTY)
BODIES = [b"", b"hello", b"hello,0123456789", b""]


def taken(reader: RequestReader) -> list[Request]:
    return list(iter(reader.take, None))


@given(st.lists(st.integers(min_value=0, max_value=len(b"".join(ALL))), max_size=20))
def test_requests_are_the_same_however_their_bytes_arrive(cuts: list[int]) -> None:
    reader, data, found = RequestReader(), b"".join(ALL), []
    ends = [0, *sorted(cuts), len(data)]
    for start, end in pairwise(ends):
        reader.feed(data[start:end])
        found += taken(reader)
    assert [(one.method, one.path) for one in found] == [
        ("GET", "/data?acl"),
        ("POST", "/"),
        ("PUT", "/x"),
        ("PUT", "/x"),
    ]
    assert [one.body for one in found] == BODIES
    assert found[0].headers == {"Host": "a:1", "Authorization": "y"}


def test_a_client_that_waits_is_told_to_go_on_once() -> None:
    reader = RequestReader()
    reader.feed(b"PUT /x HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert reader.take() is None
    assert reader.expects_continue
    reader.feed(b"ok")
    request = reader.take()
    assert request is not None
    assert request.body == b"ok"
    assert not reader.expects_continue


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/2\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (BODY_BYTES_MAX + 1),
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"GET / HTTP/1.1\r\n" + b"x" * 100_000,
    ],
)
def test_what_is_no_http_or_too_much_is_refused(data: bytes) -> None:
    reader = RequestReader()
    reader.feed(data)
    with pytest.raises(MalformedRequest):
        reader.take()


def test_a_response_says_how_long_it_is() -> None:
    assert response(200, (("A", "b"),), b"body") == b"HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 4\r\n\r\nbody"
