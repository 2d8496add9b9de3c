"""HTTP/1.1 as AWS's clients speak it: connections that are kept, bodies with a length or in chunks, `100-continue`.

No framework: one costs more than a whole call may here. Requests of one connection are answered in their order, each
taken up when its predecessor is answered.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

from bench.replay.requests import Request

BODY_BYTES_MAX = 64 * 1024 * 1024
_HEAD_BYTES_MAX = 64 * 1024
_KEPT = {
    name.lower().encode(): name
    for name in ("Authorization", "Connection", "Content-Length", "Content-Type", "Expect", "Host", "smithy-protocol",
                 "Transfer-Encoding", "X-Amz-Target")
}  # fmt: skip
_HEADER = re.compile(rb"\r\n(" + b"|".join(_KEPT) + rb"):[ \t]*([^\r]*)", re.IGNORECASE)
_REASONS = {200: "OK", 204: "No Content", 400: "Bad Request", 403: "Forbidden", 404: "Not Found"}


class MalformedRequest(Exception):
    """The bytes are no HTTP/1.1, or more than is taken: the connection is beyond help."""


class RequestReader:
    """Bytes in, requests out; of the socket it knows nothing."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._head: Request | None = None
        self.expects_continue = False

    def feed(self, data: bytes) -> None:
        self._data += data

    def take(self) -> Request | None:
        """The next request once all of it is there. Raises MalformedRequest.

        `expects_continue` is then whether the client waits to be told that it may send the body.
        """
        if self._head is None:
            end = self._data.find(b"\r\n\r\n")
            if end < 0:
                if len(self._data) > _HEAD_BYTES_MAX:
                    raise MalformedRequest("a head without an end")
                return None
            self._head = _parse_head(bytes(self._data[:end]))
            del self._data[: end + 4]
            self.expects_continue = self._head.headers.get("Expect", "").lower() == "100-continue"
        body = self._body(self._head)
        if body is None:
            return None
        head, self._head, self.expects_continue = self._head, None, False
        return Request(head.method, head.path, head.headers, body)

    def _body(self, head: Request) -> bytes | None:
        if head.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return self._chunked()
        length = _number(head.headers.get("Content-Length", "0"), 10)
        if len(self._data) < length:
            return None
        body = bytes(self._data[:length])
        del self._data[:length]
        return body

    def _chunked(self) -> bytes | None:
        body, at = bytearray(), 0
        while True:
            end = self._data.find(b"\r\n", at)
            if end < 0:
                return None
            size = _number(self._data[at:end].partition(b";")[0].decode("latin-1"), 16)
            if size == 0:
                end = self._data.find(b"\r\n\r\n", end) if self._data[end + 2 : end + 4] != b"\r\n" else end
                if end < 0 or len(self._data) < end + 4:
                    return None
                del self._data[: end + 4]
                return bytes(body)
            at = end + 2 + size + 2
            if len(self._data) < at:
                return None
            body += self._data[end + 2 : end + 2 + size]


def _parse_head(head: bytes) -> Request:
    parts = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        raise MalformedRequest(" ".join(parts)[:200])
    headers = {_KEPT[name.lower()]: value.rstrip().decode("latin-1") for name, value in _HEADER.findall(head)}
    return Request(parts[0], parts[1], headers)


def _number(text: str, base: int) -> int:
    try:
        number = int(text, base)
    except ValueError:
        number = -1
    if not 0 <= number <= BODY_BYTES_MAX:
        raise MalformedRequest(f"a length of {text!r}")
    return number


def response(status: int, headers: tuple[tuple[str, str], ...], body: bytes) -> bytes:
    """The bytes of a response."""
    return response_head(status, (*headers, ("Content-Length", str(len(body))))) + b"\r\n" + body


def response_head(status: int, headers: tuple[tuple[str, str], ...]) -> bytes:
    """Status and headers, with the end of the last, but without the empty line."""
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, ""]).encode("latin-1")


class Connection(asyncio.Protocol):
    """One client's connection. `answer` takes a request and when it arrived, and returns its response.

    The response leaves `latency_s` after the arrival, however long others kept the process busy in between.
    """

    def __init__(self, answer: Callable[[Request, float], bytes], latency_s: float) -> None:
        self._answer = answer
        self._latency_s = latency_s
        self._reader = RequestReader()
        self._loop = asyncio.get_running_loop()
        self._waiting = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        if not self._waiting:
            self._take_up(self._loop.time())

    def _take_up(self, arrived_s: float) -> None:
        while not self._waiting and not self._transport.is_closing():
            try:
                request = self._reader.take()
            except MalformedRequest as error:
                self._transport.write(response(400, (("Connection", "close"),), str(error).encode()))
                self._transport.close()
                return
            if request is None:
                if self._reader.expects_continue:
                    self._reader.expects_continue = False
                    self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                return
            answer = self._answer(request, arrived_s)
            closes = request.headers.get("Connection", "").lower() == "close"
            if self._latency_s:
                self._waiting = True
                self._loop.call_at(arrived_s + self._latency_s, self._send_late, answer, closes)
            else:
                self._send(answer, closes)

    def _send_late(self, answer: bytes, closes: object) -> None:
        self._waiting = False
        self._send(answer, closes)
        self._take_up(self._loop.time())

    def _send(self, answer: bytes, closes: object) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)
            if closes:
                self._transport.close()
