"""Which requests are the same: a request's key has in it what decides the answer, and nothing of who asks and when.

Pure. Not in the key: signature, date, security token, user agent. The same for any order of parameters, of the keys of
an object, and of the texts of a list, since callers gather ids in sets. Callers that send such a set in portions, or
the time of the day, ask for what was not recorded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, unquote

from bench.replay.accounts import Account, account_of, names_ids
from cartoray.stack.simulated_aws_protocol import MANAGEMENT_ACCOUNT, Call, account_of_key, parse_call

ENDPOINT = b"replay.invalid"  # stands in keys and recorded answers for host and port of whoever serves
_ALIKE_MAX = 10_000  # requests; a recording has hundreds
_NUMBER = re.compile(rb"(\A|\0)([^=\0]+)\.\d+=")  # the last number in the name of a parameter


@dataclass(frozen=True, slots=True)
class Request:
    """As it arrived: `path` with its query, and of the headers those that matter, by AWS's spelling."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict, hash=False)
    body: bytes = b""

    @property
    def call(self) -> Call:
        return parse_call(self.method, self.path, self.headers, self.body)


class Recognizer:
    """Whose call a request is, and its key. Accounts call alike where no id is named: that is worked out once."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._alike: dict[tuple[object, ...], tuple[Call, bytes]] = {}

    def recognize(self, request: Request) -> tuple[Call, Account, bytes]:
        scope = request.headers.get("Authorization", "").partition("Credential=")[2].split("/", 4)
        place = (
            *scope[2:4],
            request.headers.get("X-Amz-Target"),
            request.headers.get("Host"),
            request.method,
            request.path,
            request.body,
        )
        found = self._alike.get(place)
        if found is not None:
            number = _number_of_key(scope[0])
            return replace(found[0], access_key=scope[0], account=number), account_of(self._base, number), found[1]
        call = request.call
        account = account_of(self._base, call.account)
        key = key_of(request, call, account.to_base)
        if len(self._alike) < _ALIKE_MAX and not names_ids(key):
            self._alike[place] = call, key
        return call, account, key


@cache
def _number_of_key(access_key: str) -> str:
    return account_of_key(access_key) or MANAGEMENT_ACCOUNT


def key_of(request: Request, call: Call, to_base: Callable[[bytes], bytes]) -> bytes:
    """The key of the request; `to_base` turns text of the caller's account into the recorded account's."""
    host = request.headers.get("Host", "")
    path, _, query = request.path.partition("?")
    path = _with_bucket(unquote(path), call, host)
    pairs = list(call.parameters.items()) or parse_qsl(query, keep_blank_values=True)
    body = b"" if call.parameters else request.body
    text = "\0".join(f"{name}={value}" for name, value in pairs)
    head = f"{call.service} {call.region} {request.headers.get('X-Amz-Target', '')} {request.method} {path}"
    if host:
        body, text = body.replace(host.encode(), ENDPOINT), text.replace(host, ENDPOINT.decode())
    head_base, text_base, body_base = to_base(b"\1".join((head.encode(), text.encode(), body))).split(b"\1", 2)
    if body_base[:1] in (b"{", b"["):
        body_base = _canonical(body_base)
    parameters = sorted(_NUMBER.sub(rb"\1\2.#=", text_base).split(b"\0"))
    return b"\n".join((head_base, b"&".join(parameters), body_base))


def _with_bucket(path: str, call: Call, host: str) -> str:
    """The path with the bucket that S3 clients put before a host with a name; before an address they cannot."""
    bucket, found, _ = host.partition(":")[0].rpartition(".localhost")
    return f"/{bucket}{path}".rstrip("/") if call.service == "s3" and found else path


def _canonical(body: bytes) -> bytes:
    try:
        value = json.loads(body)
    except ValueError:
        return body
    return json.dumps(_sorted(value), sort_keys=True, separators=(",", ":")).encode()


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _sorted(one) for name, one in value.items()}
    if isinstance(value, list):
        return sorted(value) if all(isinstance(one, str) for one in value) else [_sorted(one) for one in value]
    return value
