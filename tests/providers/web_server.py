"""What the stand-ins have in common: an HTTP server on loopback that answers JSON, and TLS for hosts led to it.

Where a client insists on a host of its own (ghcr.io, an Okta organization), the server is its proxy for https: it takes
CONNECT for the hosts that it stands in for, and no other, so nothing that is meant for it can leave this machine.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from support.certificates import Authority

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Request:
    method: str
    url: str  # scheme, host and path as the client wrote them, without the query
    path: str  # decoded
    query: Mapping[str, str]
    body: bytes
    dropped: int = 0

    def left(self, items: Sequence[Any]) -> Sequence[Any]:
        """`items` without those that have been deleted: of each list, the last."""
        return items[: max(0, len(items) - self.dropped)]

    def again(self, **changed: str) -> str:
        """The URL of this request with some parameters of its query replaced."""
        return f"{self.url}?{urlencode({**self.query, **changed}, quote_via=quote)}"


@dataclass(frozen=True)
class Answer:
    body: object
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


Respond = Callable[[Request], Answer]


@dataclass
class State:
    """What happened, and what is to happen. `faults`: tracebacks of the stand-in itself; a test holds them to be none.

    `dropped`: how many entries are missing at the end of every list, as if they had been deleted.
    """

    dropped: int = 0
    requests: list[str] = field(default_factory=list)  # "GET /path?query 200"
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Server:
    url: str
    state: State
    certificates: Path | None = None  # of the authority that signed for the hosts led here

    def proxy(self) -> dict[str, str]:
        """The variables with which a client reaches this server under https:// URLs of its hosts.

        In capitals only: gRPC, which Ray uses, would take `https_proxy` for itself.
        """
        return {
            "HTTPS_PROXY": self.url,
            "NO_PROXY": "",
            "SSL_CERT_FILE": str(self.certificates),
            "REQUESTS_CA_BUNDLE": str(self.certificates),
        }


def paged(request: Request, items: Sequence[Any], most: int, start: str) -> tuple[list[Any], dict[str, str]]:
    """A page of `items` and its Link header. `start`: the parameter that carries the cursor."""
    items = request.left(items)
    first = int(request.query.get(start, "0"))
    last = first + min(most, int(request.query.get("per_page", request.query.get("limit", str(most)))))
    more = {"Link": f'<{request.again(**{start: str(last)})}>; rel="next"'} if last < len(items) else {}
    return list(items[first:last]), more


@contextlib.contextmanager
def serving(respond: Respond, hosts: Sequence[str] = (), folder: Path | None = None) -> Iterator[Server]:
    """Serves until the block ends. `hosts` are stood in for with a certificate whose authority is kept in `folder`."""
    state = State()
    context = None
    authority = None
    if hosts and folder:
        signer = Authority(folder)
        authority = signer.certificate
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(signer.sign(hosts[0], *hosts).both)
    handler = type("Handler", (_Handler,), {"respond": staticmethod(respond), "state": state, "hosts": tuple(hosts)})
    handler.context = context  # type: ignore[attr-defined]
    with ThreadingHTTPServer((LOOPBACK, 0), cast(type[BaseHTTPRequestHandler], handler)) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield Server(f"http://{LOOPBACK}:{server.server_port}", state, authority)
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    respond: Respond
    state: State
    hosts: tuple[str, ...]
    context: ssl.SSLContext | None = None
    tunnel = ""  # the host that this connection believes to have reached
    timeout = 60

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", "0"))))

    def do_CONNECT(self) -> None:
        host = self.path.partition(":")[0]
        if self.context is None or host not in self.hosts:
            self.state.faults.append(f"CONNECT {self.path}: not a host of this stand-in")
            self.send_error(403)
            return
        self.send_response(200)
        self.end_headers()
        self.tunnel = host
        self.connection = self.context.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb", -1)
        self.wfile = self.connection.makefile("wb", -1)
        self.close_connection = False

    def _answer(self, body: bytes) -> None:
        split = urlsplit(self.path)
        base = f"https://{self.tunnel}" if self.tunnel else f"http://{self.headers['Host']}"
        request = Request(
            self.command,
            base + split.path,
            unquote(split.path),
            dict(parse_qsl(split.query, keep_blank_values=True)),
            body,
            self.state.dropped,
        )
        try:
            answer = type(self).respond(request)
        except Exception:  # noqa: BLE001, whatever is wrong in a stand-in is shown by the test
            self.state.faults.append(f"{self.command} {self.path}\n{body[:2_000]!r}\n{traceback.format_exc()}")
            answer = Answer({"message": "fault of the stand-in"}, 500)
        self.state.requests.append(f"{self.command} {self.tunnel}{self.path} {answer.status}")
        content = json.dumps(answer.body).encode()
        self.send_response(answer.status)
        for name, value in {"Content-Type": "application/json", **answer.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Silent: `state` has it."""
