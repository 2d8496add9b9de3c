"""A proxy before the simulated AWS, which keeps what one account was answered.

Importing this module loads moto, whose routes know the names of REST operations; the server that replays does not.
"""

from __future__ import annotations

import http.client
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.replay.recording import Recording, Response
from bench.replay.requests import ENDPOINT, Request, key_of
from cartoray.stack.simulated_aws_moto import HttpRequest, named
from cartoray.stack.simulated_aws_protocol import Problem, error

_LOOPBACK = "127.0.0.1"
# Of the connection, of the moment, or a checksum of a body that will be another's.
_LEFT_OUT = re.compile(
    r"connection|content-length|date|keep-alive|server|transfer-encoding|etag|content-md5|x-amz-checksum-.*|x-amz-crc32",
    re.IGNORECASE,
)
_NOT_PASSED_ON = frozenset({"accept-encoding", "connection", "content-length", "expect"})
_BALANCER = re.compile(rb"([A-Za-z0-9-]+)(\.[a-z0-9-]+\.elb\.amazonaws\.com)")
_DATABASE = re.compile(rb"\.[a-z0-9]{10,12}(\.[a-z0-9-]+\.rds\.amazonaws\.com)")


def with_account_in_names(body: bytes, account: bytes) -> bytes:
    """DNS names, which AWS makes unique and moto does not, with the account in them, so that each has its own."""
    body = _BALANCER.sub(rb"\g<1>-" + account + rb"\2", body)
    return _DATABASE.sub(rb".c" + account + rb"\1", body)


@contextmanager
def record(endpoint_url: str, account: str, path: Path) -> Iterator[str]:
    """The endpoint URL of a proxy to the simulated AWS at `endpoint_url`; on leaving, the recording is in `path`.

    Recorded is what `account` calls, but for STS. Of equal requests the last answer counts; throttling and failures of
    the simulated AWS are passed on and not recorded. Take a member: the management account is in the roles of all.
    """
    server = _Server(urlsplit(endpoint_url).netloc, account)
    thread = threading.Thread(target=server.serve_forever, name="recorder", daemon=True)
    thread.start()
    try:
        yield f"http://{_LOOPBACK}:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    Recording(account, server.responses).save(path)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, upstream: str, account: str) -> None:
        super().__init__((_LOOPBACK, 0), _Proxy)
        self.upstream, self.account = upstream, account
        self.responses: dict[bytes, Response] = {}

    def keep(self, request: Request, status: int, headers: tuple[tuple[str, str], ...], body: bytes) -> None:
        call = request.call
        if call.account != self.account or call.service == "sts" or status >= 500:
            return
        throttled = error(call, Problem.THROTTLED)
        if (status, body) == (throttled.status, throttled.body):
            return
        call = named(call, HttpRequest(request.method, request.path, request.headers, request.body))
        body = body.replace(request.headers["Host"].encode(), ENDPOINT)
        self.responses[key_of(request, call, lambda text: text)] = Response(call.action, status, headers, body)


class _Proxy(BaseHTTPRequestHandler):
    """One client's connection, and one of its own to the simulated AWS."""

    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are written apart

    def setup(self) -> None:
        super().setup()
        self._upstream = http.client.HTTPConnection(self.server.upstream, timeout=600)

    def finish(self) -> None:
        self._upstream.close()
        super().finish()

    def _pass_on(self) -> None:
        if "Transfer-Encoding" in self.headers:
            raise NotImplementedError("a request in chunks: reads have none")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = Request(self.command, self.path, dict(self.headers.items()), body)
        passed = {name: value for name, value in self.headers.items() if name.lower() not in _NOT_PASSED_ON}
        self._upstream.request(request.method, request.path, request.body or None, passed)
        answer = self._upstream.getresponse()
        body = with_account_in_names(answer.read(), self.server.account.encode())
        headers = tuple((name, value) for name, value in answer.getheaders() if not _LEFT_OUT.fullmatch(name))
        length = (
            "Content-Length",
            answer.getheader("Content-Length", "0") if self.command == "HEAD" else str(len(body)),
        )
        self.server.keep(request, answer.status, (*headers, length) if self.command == "HEAD" else headers, body)
        self.send_response_only(answer.status)
        for name, value in (*headers, length):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_DELETE = do_GET = do_HEAD = do_PATCH = do_POST = do_PUT = _pass_on

    def log_message(self, *_: Any) -> None:
        pass
