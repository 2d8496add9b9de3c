"""moto as one function from a request to an answer, with a memory of what it answered.

Not thread-safe, and on purpose without a lock: moto is not safe under concurrent changes, and one thread is as fast
as many under the interpreter's lock. The server gives all calls of a `Moto` to the same worker thread.
"""

import io
import logging
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from urllib.parse import unquote, urlencode

from moto.core.request import Request
from moto.core.routing import get_service_router
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

from cartoray.stack.simulated_aws_protocol import Answer, Call, Problem, error

log = logging.getLogger(__name__)

_EC2_VERSION = "2016-11-15"
_REST = ("rest-json", "rest-xml", "s3")
_EXPIRATION = re.compile(rb"(?<=<Expiration>)[^<]*(?=</Expiration>)")
_ACCESS_KEY = re.compile(rb"<AccessKeyId>([^<]*)</AccessKeyId>")


@dataclass(frozen=True)
class HttpRequest:
    """What moto needs of a request; `path` as it arrived, with its query."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class AnswerCache:
    """Answers to calls that change nothing, the oldest forgotten beyond `bytes_max`.

    Rendering 1,000 instances takes moto a second, and a benchmark on the same machine would measure that. A change in
    an account forgets that account's answers: their place has the account's generation in it, and each change makes a
    new one. The place is taken before moto is asked, so an answer that a change has overtaken is never found.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._answers: OrderedDict[tuple[object, ...], Answer] = OrderedDict()
        self._generations: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._answers)

    def place(self, call: Call, request: HttpRequest) -> tuple[object, ...]:
        """Where the answer belongs, as long as nothing changes in the account."""
        asked = frozenset(call.parameters.items()) or request.body
        return (call.account, self._generations.get(call.account, 0), call.region, call.action, request.path, asked)

    def get(self, call: Call, request: HttpRequest) -> Answer | None:
        """The answer given before, if nothing changed since."""
        return self._answers.get(self.place(call, request)) if call.changes_nothing else None

    def put(self, call: Call, place: tuple[object, ...], answer: Answer) -> None:
        """Keeps a good answer to a call that changes nothing; any other call forgets its account's answers."""
        if not call.changes_nothing:
            if call.service != "sts":
                self.forget(call.account)
        elif answer.status == 200 and place not in self._answers:
            self._answers[place] = answer
            self._bytes += len(answer.body)
            while self._bytes > self._bytes_max:
                self._bytes -= len(self._answers.popitem(last=False)[1].body)

    def forget(self, account: str) -> None:
        """The account has changed."""
        self._generations[account] = self._generations.get(account, 0) + 1


def named(call: Call, request: HttpRequest) -> Call:
    """The call with its operation's name: for REST protocols the service's routes know it, if they do."""
    if call.protocol not in _REST:
        return call
    path, _, query = request.path.partition("?")
    routed: Any = Request.from_primitives(request.method, f"http://localhost{path}?{query}", dict(request.headers), b"")
    try:
        operation, _ = get_service_router(call.service).match(routed)
    except Exception:  # noqa: BLE001 - botocore has no model of that service, or the model no such path
        return call
    return replace(call, operation=str(operation.name))


def query_call(
    account: str, region: str, service: str, operation: str, parameters: Mapping[str, str]
) -> tuple[Call, HttpRequest]:
    """A call as botocore would make it, for a service of the protocols ec2 and query."""
    asked = {"Action": operation, "Version": _EC2_VERSION} | dict(parameters)
    headers = {
        "Authorization": f"AWS4-HMAC-SHA256 Credential=warm/20260101/{region}/{service}/aws4_request",
        "Content-Type": "application/x-www-form-urlencoded; charset=utf-8",
        "Host": "localhost",
    }
    call = Call("", account, region, service, operation, "ec2", asked)
    return call, HttpRequest("POST", "/", headers, urlencode(asked).encode())


class Moto:
    """moto's own server application, called without a socket."""

    def __init__(self) -> None:
        self._application = DomainDispatcherApplication(create_backend_app)
        self._failed: set[str] = set()

    def answer(self, call: Call, request: HttpRequest) -> Answer:
        """moto's answer. What moto lacks, or breaks on, is the protocol's error for an unknown operation."""
        started: list[tuple[int, tuple[tuple[str, str], ...]]] = []

        def start_response(status: str, headers: Iterable[tuple[str, str]], *_: object) -> None:
            started.append((int(status.split(" ", 1)[0]), tuple(headers)))

        try:
            chunks = self._application(_environ(call, request), start_response)
            body = b"".join(chunks)
            chunks.close()
        except Exception as failure:  # noqa: BLE001 - whatever moto raises, its client gets an AWS error
            return self._lacking(call, repr(failure))
        status, headers = started[-1]
        if _is_moto_failure(call, status, headers, body):
            return self._lacking(call, f"status {status}")
        kept = tuple((name, value) for name, value in headers if name.lower() not in _HOP_BY_HOP)
        return Answer(status, kept, body)

    def _lacking(self, call: Call, failure: str) -> Answer:
        if call.action not in self._failed:  # once each: Cartography asks again for every account and region
            self._failed.add(call.action)
            log.info("unsupported %s: %s", call.action, failure)
        return error(call, Problem.UNSUPPORTED)


_HOP_BY_HOP = {"content-length", "connection", "date", "server", "transfer-encoding"}


def _environ(call: Call, request: HttpRequest) -> dict[str, Any]:
    path, _, query = request.path.partition("?")
    environ: dict[str, Any] = {
        f"HTTP_{name.upper().replace('-', '_')}": value for name, value in request.headers.items()
    }
    environ["CONTENT_TYPE"] = request.headers.get("Content-Type", "")
    return environ | {
        "CONTENT_LENGTH": str(len(request.body)),
        "HTTP_X_MOTO_ACCOUNT_ID": call.account,  # spares moto a search through the keys of all accounts
        "PATH_INFO": unquote(path, "latin-1"),  # WSGI's convention for bytes
        "QUERY_STRING": query,
        "RAW_URI": request.path,
        "REQUEST_METHOD": request.method,
        "REQUEST_URI": request.path,
        "SCRIPT_NAME": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.errors": io.StringIO(),
        "wsgi.input": io.BytesIO(request.body),
        "wsgi.input_terminated": True,
        "wsgi.multiprocess": False,
        "wsgi.multithread": False,
        "wsgi.run_once": False,
        "wsgi.url_scheme": "http",
        "wsgi.version": (1, 0),
    }


def _is_moto_failure(call: Call, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> bool:
    """A 5xx of moto's own, or a 404 that no AWS service wrote: Flask's page, or moto's for a missing action."""
    if status >= 500:
        return True
    if status not in (404, 405) or call.service == "s3":
        return False
    is_page = any(name.lower() == "content-type" and value.startswith("text/html") for name, value in headers)
    return not body or b"Not yet implemented" in body or (is_page and b"<!doctype html" in body[:20].lower())


def with_expiration(answer: Answer, expires: datetime) -> tuple[Answer, str]:
    """An AssumeRole answer whose credentials live until `expires`, and their access key."""
    body = _EXPIRATION.sub(expires.strftime("%Y-%m-%dT%H:%M:%SZ").encode(), answer.body)
    found = _ACCESS_KEY.search(body)
    return replace(answer, body=body), found.group(1).decode() if found else ""
