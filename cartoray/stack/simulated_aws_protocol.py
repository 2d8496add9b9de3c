"""AWS's wire formats as far as the simulated AWS needs them: what a request asks for, and how an error is written.

Pure: bytes and headers in, values out.

Which of AWS's protocols a request speaks is read from the request itself, because that needs no service model:

    X-Amz-Target header                      json        {"__type": code}
    smithy-protocol: rpc-v2-cbor             cbor        the same as a CBOR map
    Action=… in the body, service ec2        ec2         <Response><Errors><Error>
    Action=… in the body, otherwise          query       <ErrorResponse><Error>
    otherwise, service s3                    s3          <Error>
    otherwise, service route53, cloudfront   rest-xml    as query
    otherwise                                rest-json   as json, with the code in a header too
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

MANAGEMENT_ACCOUNT = "123456789012"  # moto's default: whom it takes for the owner of a key that it did not give out
ROLE_NAME = "CartographyReadOnly"
REQUEST_ID = "00000000-0000-4000-8000-00000000cafe"
READS = ("Describe", "List", "Get", "Head", "BatchGet", "Lookup", "Search")

Protocol = Literal["ec2", "query", "json", "cbor", "rest-json", "rest-xml", "s3"]


class Problem(Enum):
    """Why a call is refused, whatever the protocol's word for it is."""

    DENIED = "denied"
    REGION_NOT_ENABLED = "region_not_enabled"
    THROTTLED = "throttled"
    INTERNAL_ERROR = "internal_error"
    EXPIRED = "expired"
    UNKNOWN_KEY = "unknown_key"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True)
class Call:
    """One API call, as its request states it. `action` is IAM's name, such as `ec2:DescribeVpcs`."""

    access_key: str
    account: str
    region: str
    service: str
    operation: str
    protocol: Protocol
    parameters: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def action(self) -> str:
        """Service and operation, as IAM policies and the call counts write them."""
        return f"{self.service}:{self.operation}"

    @property
    def changes_nothing(self) -> bool:
        """Whether the same call may be answered from memory. Never for STS: its answers depend on the key."""
        return self.service != "sts" and self.operation.startswith(READS)


@dataclass(frozen=True)
class Answer:
    """An HTTP response, whole."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


def parse_call(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Call:
    """What a signed request asks for. For REST protocols the operation is `METHOD /path`: the router knows better.

    An unsigned request counts as the management account's, in us-east-1, as moto takes it.
    """
    access_key, region, service = _credential_scope(headers.get("Authorization", ""))
    account = account_of_key(access_key) or MANAGEMENT_ACCOUNT
    target = headers.get("X-Amz-Target", "")
    parameters: dict[str, str] = {}
    protocol: Protocol
    if headers.get("smithy-protocol") == "rpc-v2-cbor":
        operation, protocol = path.rsplit("/", 1)[-1], "cbor"
    elif target:
        operation, protocol = target.rsplit(".", 1)[-1], "json"
    else:
        parameters = _form(path, headers, body)
        operation = parameters.get("Action", "")
        protocol = "ec2" if service == "ec2" else "query"
        if not operation:
            operation = f"{method} {path.split('?', 1)[0]}"
            rest: dict[str, Protocol] = {"s3": "s3", "route53": "rest-xml", "cloudfront": "rest-xml"}
            protocol = rest.get(service, "rest-json")
    return Call(access_key, account, region, service, operation, protocol, parameters)


def _credential_scope(authorization: str) -> tuple[str, str, str]:
    """Access key, region and signing name of a version 4 signature; empty key if there is none."""
    _, found, scope = authorization.partition("Credential=")
    parts = scope.split(",", 1)[0].split("/")
    if not found or len(parts) < 5:
        return "", "us-east-1", "s3"
    return parts[0], parts[2], parts[3]


def _form(path: str, headers: Mapping[str, str], body: bytes) -> dict[str, str]:
    query = path.partition("?")[2]
    if headers.get("Content-Type", "").startswith("application/x-www-form-urlencoded"):
        query = body.decode("utf-8", "replace")
    return dict(parse_qsl(query, keep_blank_values=True)) if "Action=" in query else {}


def account_of_key(access_key: str) -> str | None:
    """The account that AWS writes into every access key id (characters 5 to 13, base 32); None if it has none."""
    if len(access_key) != 20 or not access_key.startswith(("AKIA", "ASIA")):
        return None
    try:
        number = int.from_bytes(base64.b32decode(access_key[4:12]), "big") - (1 << 39)
    except binascii.Error:
        return None
    is_odd = access_key[12] not in "ABCDEFGHIJKLMNOP"
    return f"{number * 2 + is_odd:012}" if number >= 0 else None


_CODES: dict[Problem, dict[Protocol | None, tuple[int, str]]] = {
    Problem.DENIED: {
        "ec2": (403, "UnauthorizedOperation"),
        "query": (403, "AccessDenied"),
        "rest-xml": (403, "AccessDenied"),
        "s3": (403, "AccessDenied"),
        "rest-json": (403, "AccessDeniedException"),
        None: (400, "AccessDeniedException"),
    },
    # What a region that was not opted in answers: the token is not known there.
    Problem.REGION_NOT_ENABLED: {
        "ec2": (401, "AuthFailure"),
        "query": (403, "InvalidClientTokenId"),
        "rest-xml": (403, "InvalidClientTokenId"),
        "s3": (403, "AccessDenied"),
        "rest-json": (403, "UnrecognizedClientException"),
        None: (400, "UnrecognizedClientException"),
    },
    Problem.THROTTLED: {
        "ec2": (503, "RequestLimitExceeded"),
        "query": (400, "Throttling"),
        "rest-xml": (400, "Throttling"),
        "s3": (503, "SlowDown"),
        "rest-json": (429, "TooManyRequestsException"),
        None: (400, "ThrottlingException"),
    },
    Problem.INTERNAL_ERROR: {
        "ec2": (500, "InternalError"),
        "s3": (500, "InternalError"),
        None: (500, "InternalFailure"),
    },
    Problem.EXPIRED: {
        "ec2": (400, "RequestExpired"),
        "query": (403, "ExpiredToken"),
        "rest-xml": (403, "ExpiredToken"),
        "s3": (400, "ExpiredToken"),
        None: (403, "ExpiredTokenException"),
    },
    # This code and the words "not supported in the called region" make stock Cartography skip what moto lacks.
    # InvalidAction, which AWS would say, it repeats for ten minutes.
    Problem.UNSUPPORTED: {None: (400, "UnknownOperationException")},
}
_CODES[Problem.UNKNOWN_KEY] = _CODES[Problem.REGION_NOT_ENABLED]

_TEXTS: dict[Problem, str] = {
    Problem.DENIED: "You are not authorized to perform this operation. {caller} is not authorized to perform: {action}",
    Problem.REGION_NOT_ENABLED: "AWS was not able to validate the provided access credentials in {region}",
    Problem.THROTTLED: "Request limit exceeded.",
    Problem.INTERNAL_ERROR: "An internal error has occurred",
    Problem.EXPIRED: "The security token included in the request is expired",
    Problem.UNKNOWN_KEY: "The security token included in the request is invalid",
    Problem.UNSUPPORTED: "The operation {action} is not supported in the called region: the simulated AWS lacks it.",
}


def error(call: Call, problem: Problem) -> Answer:
    """The problem in the words, the status and the shape that the call's protocol has for it."""
    codes = _CODES[problem]
    status, code = codes.get(call.protocol, codes.get(None, (400, problem.value)))
    if problem is Problem.DENIED and call.operation == "AssumeRole":
        role = call.parameters.get("RoleArn", "")
        text = f"{_caller(call)} is not authorized to perform: sts:AssumeRole on resource: {role}"
    else:
        text = _TEXTS[problem].format(action=call.action, region=call.region, caller=_caller(call))
    return shaped(call.protocol, status, code, text)


def _caller(call: Call) -> str:
    return f"User: arn:aws:sts::{call.account}:assumed-role/{ROLE_NAME}/session"


def shaped(protocol: Protocol, status: int, code: str, text: str) -> Answer:
    """An error in the protocol's form; `code` need not be one of AWS's."""
    if protocol == "cbor":
        return _answer(
            status, "application/cbor", _cbor_map(__type=code, message=text), ("smithy-protocol", "rpc-v2-cbor")
        )
    if protocol in ("json", "rest-json"):
        body = json.dumps({"__type": code, "message": text}).encode()
        return _answer(status, "application/x-amz-json-1.1", body, ("x-amzn-ErrorType", code))
    inner = f"<Code>{code}</Code><Message>{escape(text)}</Message>"
    if protocol == "ec2":
        xml = f"<Response><Errors><Error>{inner}</Error></Errors><RequestID>{REQUEST_ID}</RequestID></Response>"
    elif protocol == "s3":
        xml = f"<Error>{inner}<RequestId>{REQUEST_ID}</RequestId></Error>"
    else:
        kind = "Sender" if status < 500 else "Receiver"
        xml = f"<Error><Type>{kind}</Type>{inner}</Error><RequestId>{REQUEST_ID}</RequestId>"
        xml = f"<ErrorResponse>{xml}</ErrorResponse>"
    return _answer(status, "text/xml", f'<?xml version="1.0" encoding="UTF-8"?>{xml}'.encode())


def _answer(status: int, content_type: str, body: bytes, *headers: tuple[str, str]) -> Answer:
    return Answer(status, (("Content-Type", content_type), ("x-amzn-RequestId", REQUEST_ID), *headers), body)


def _cbor_map(**members: str) -> bytes:
    """A CBOR map (RFC 8949) of texts, each shorter than 65,536 bytes."""
    encoded = bytes([0xA0 | len(members)])
    for text in (part for member in members.items() for part in member):
        data = text.encode()
        encoded += b"\x79" + len(data).to_bytes(2, "big") + data
    return encoded


def regions_answer(call: Call, enabled: tuple[str, ...], disabled: tuple[str, ...]) -> Answer:
    """DescribeRegions: the configured regions, those not opted in only where AllRegions asks for them."""
    every = call.parameters.get("AllRegions", "false").lower() == "true"
    named = {value for key, value in call.parameters.items() if key.startswith("RegionName.")}
    status = dict.fromkeys(enabled, "opt-in-not-required") | (dict.fromkeys(disabled, "not-opted-in") if every else {})
    items = "".join(
        f"<item><regionName>{name}</regionName><regionEndpoint>ec2.{name}.amazonaws.com</regionEndpoint>"
        f"<optInStatus>{state}</optInStatus></item>"
        for name, state in status.items()
        if not named or name in named
    )
    xml = (
        '<DescribeRegionsResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">'
        f"<requestId>{REQUEST_ID}</requestId><regionInfo>{items}</regionInfo></DescribeRegionsResponse>"
    )
    return _answer(200, "text/xml", xml.encode())
