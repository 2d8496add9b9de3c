"""What is parsed by `actors.aws.parsing` is what botocore's own parsers make of the same answer."""

from __future__ import annotations

import datetime
import io
import logging
import os
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any
from xml.etree import ElementTree

import botocore.exceptions
import botocore.parsers
import botocore.session
import botocore.utils
import pytest
from botocore.awsrequest import AWSResponse
from botocore.eventstream import EventStream
from botocore.response import StreamingBody
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.aws_answers import TIMES, Writer

from actors.aws.parsing import COMPONENT, install, parse_timestamp, unexpected

XML = ("ec2", "iam", "rds", "elbv2", "sts", "sns", "elasticache", "cloudformation", "autoscaling", "s3", "route53")
JSON = (
    "kms",
    "sqs",
    "dynamodb",
    "organizations",
    "ecs",
    "cloudtrail",
    "lambda",
    "eks",
    "apigateway",
    "bedrock-runtime",
)
EXAMPLES = int(os.environ.get("PARSING_EXAMPLES", "200"))

SESSION = botocore.session.get_session()
install(SESSION)
OURS = SESSION.get_component(COMPONENT)
THEIRS = botocore.parsers.ResponseParserFactory()


@cache
def model(service: str) -> Any:
    return SESSION.get_service_model(service)


def written(rng: random.Random, service: str, operation: str) -> tuple[dict[str, Any], Any]:
    """An answer of the operation, and its shape."""
    shape = model(service).operation_model(operation).output_shape
    return Writer(rng).response(model(service), operation), shape


def operations() -> Iterator[tuple[str, str]]:
    for service in XML + JSON:
        for name in model(service).operation_names:
            if not model(service).operation_model(name).has_event_stream_output:
                yield service, name


# ---- the comparison ------------------------------------------------------------------------------------------------


def outcome(factory: Any, protocol: str, response: Mapping[str, Any], shape: Any) -> Any:
    """What is parsed, in a form that equals another only if types, order of keys and zones do; or what is raised."""
    try:
        return "parsed", plain(factory.create_parser(protocol).parse(dict(response), shape))
    except Exception as error:  # noqa: BLE001
        return "raised", type(error)


def plain(value: Any) -> Any:
    match value:
        case dict():
            return type(value), [(plain(key), plain(each)) for key, each in value.items()]
        case list():
            return type(value), [plain(each) for each in value]
        case datetime.datetime():
            return type(value), repr(value), type(value.tzinfo), value.tzinfo, value.utcoffset()
        case ElementTree.Element():
            return type(value), ElementTree.tostring(value)
    return type(value), repr(value)


def assert_same(service: str, response: Mapping[str, Any], shape: Any) -> Any:
    protocol = model(service).resolved_protocol
    ours, theirs = (outcome(factory, protocol, response, shape) for factory in (OURS, THEIRS))
    assert ours == theirs, response["body"]
    return ours


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.deferred(lambda: st.sampled_from(list(operations()))), st.integers(0, 2**63))
def test_any_answer_is_parsed_as_by_botocore(operation: tuple[str, str], seed: int) -> None:
    response, shape = written(random.Random(seed), *operation)
    assert_same(operation[0], response, shape)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.deferred(lambda: st.sampled_from(list(operations()))), st.integers(0, 2**63))
def test_a_damaged_answer_is_parsed_or_refused_as_by_botocore(operation: tuple[str, str], seed: int) -> None:
    rng = random.Random(seed)
    response, shape = written(rng, *operation)
    body = bytearray(response["body"])
    for _ in range(rng.choice((0, 1, 1, 3)) if body else 0):
        body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
    response["body"] = bytes(body[: rng.randint(0, len(body))] if rng.random() < 0.5 else body)
    assert_same(operation[0], response, shape)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.one_of(
        st.datetimes().map(lambda each: each.isoformat() + "Z"),
        st.from_regex(r"(19|20)\d\d-[01]\d-[0-3]\dT[0-2]\d:[0-6]\d:[0-6]\d(\.\d{0,7})?(Z|\+00:00|)\n?", fullmatch=True),
        st.sampled_from(TIMES),
        st.integers(-(2**40), 2**40),
        st.floats(),
        st.text(max_size=12),
    )
)
@example("٢٠٢٤-05-06T07:08:09Z")
@example(None)
def test_a_timestamp_is_parsed_as_by_botocore(value: Any) -> None:
    def outcome(parse: Callable[[Any], Any]) -> Any:
        try:
            return plain(parse(value))
        except Exception as error:  # noqa: BLE001
            return type(error)

    assert outcome(parse_timestamp) == outcome(botocore.utils.parse_timestamp)


# ---- awkward forms -------------------------------------------------------------------------------------------------


def answer(service: str, operation: str, body: bytes, headers: Mapping[str, str] | None = None) -> Any:
    """As ours parses it, which is as botocore does."""
    shape = model(service).operation_model(operation).output_shape
    response = {"status_code": 200, "headers": headers or {}, "body": body, "context": {"operation_name": operation}}
    kind, what = assert_same(service, response, shape)
    if kind == "raised":
        return what
    parsed = OURS.create_parser(model(service).resolved_protocol).parse(response, shape)
    return {name: each for name, each in parsed.items() if name != "ResponseMetadata"} if parsed else parsed


def ec2(inner: bytes) -> bytes:
    return b'<R xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>r</requestId>' + inner + b"</R>"


def s3(inner: bytes) -> bytes:
    return b'<R xmlns="http://s3.amazonaws.com/doc/2006-03-01/">' + inner + b"</R>"


def iam(result: str, inner: bytes) -> bytes:
    return f'<R xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><{result}>{inner.decode()}</{result}></R>'.encode()


AWKWARD: list[tuple[str, str, bytes, Any]] = [
    ("ec2", "DescribeVpcs", ec2(b""), {}),
    ("ec2", "DescribeVpcs", ec2(b"<vpcSet/>"), {"Vpcs": []}),
    ("ec2", "DescribeVpcs", ec2(b"<vpcSet><item/></vpcSet>"), {"Vpcs": [{}]}),
    (
        "ec2",
        "DescribeVpcs",
        ec2(b"<vpcSet><x:i xmlns:x='u'><x:vpcId>v</x:vpcId></x:i></vpcSet>"),
        {"Vpcs": [{"VpcId": "v"}]},
    ),
    (
        "ec2",
        "DescribeVpcs",
        ec2(b"<vpcSet><item><isDefault>1</isDefault></item></vpcSet>"),
        {"Vpcs": [{"IsDefault": False}]},
    ),
    ("ec2", "DescribeVpcs", ec2(b"<vpcSet><item><vpcId/><vpcId>v</vpcId></item></vpcSet>"), ...),
    ("ec2", "DescribeVpcs", ec2(b"<vpcSet><item/></vpcSet><vpcSet><item/></vpcSet>"), ...),
    ("ec2", "DescribeVpcs", b"<R><vpcSet>", botocore.parsers.ResponseParserError),
    ("ec2", "DescribeVpcs", b"", botocore.parsers.ResponseParserError),
    ("ec2", "DescribeVolumes", ec2(b"<volumeSet><item><size>x</size></item></volumeSet>"), ValueError),
    ("ec2", "DeleteVpc", ec2(b"<return>true</return>"), {}),
    ("iam", "GetUser", b"<R/>", KeyError),
    ("iam", "GetUser", iam("GetUserResult", b""), {}),
    (
        "iam",
        "GetUser",
        iam("GetUserResult", b"<User><Path> </Path><UserName>a<![CDATA[<b>]]>&#233;</UserName></User>"),
        ...,
    ),
    (
        *("iam", "GetAccountSummary"),
        iam("GetAccountSummaryResult", b"<SummaryMap><entry><key>Users</key><value>3</value></entry></SummaryMap>"),
        {"SummaryMap": {"Users": 3}},
    ),
    (
        *("iam", "GetAccountSummary"),
        iam("GetAccountSummaryResult", b"<SummaryMap><entry><k/></entry></SummaryMap>"),
        ...,
    ),
    ("s3", "ListBuckets", b"", {}),
    ("s3", "ListObjectsV2", s3(b"<Contents><Key>k</Key></Contents>"), {"Contents": [{"Key": "k"}]}),
    ("s3", "ListObjectsV2", s3(b"<Contents/><Name>n</Name><Contents/>"), {"Name": "n", "Contents": [{}, {}]}),
    (
        *("s3", "GetBucketAcl"),
        s3(
            b"<AccessControlList><Grant>"
            b"<Grantee xmlns:xsi='http://www.w3.org/2001/XMLSchema-instance' xsi:type='Group'>"
            b"<URI>u</URI></Grantee><Permission>READ</Permission></Grant></AccessControlList>"
        ),
        {"Grants": [{"Grantee": {"Type": "Group", "URI": "u"}, "Permission": "READ"}]},
    ),
    ("s3", "GetBucketPolicy", b'{"Version": "2012-10-17"}', {"Policy": '{"Version": "2012-10-17"}'}),
    ("s3", "GetBucketLocation", b"<LocationConstraint>eu-west-1</LocationConstraint>", {}),
    ("kms", "ListKeys", b"", {}),
    ("kms", "ListKeys", b"null", ...),
    ("kms", "ListKeys", b"[]", ...),
    ("kms", "ListKeys", b"<html>", {}),
    ("kms", "ListKeys", b"\xff", UnicodeDecodeError),
    ("kms", "ListKeys", b'{"Keys": [{"KeyId": "k", "Unknown": 1}, null, {}], "NextMarker": null}', ...),
    ("kms", "DescribeKey", b'{"KeyMetadata": {"KeyId": "k", "CreationDate": "soon"}}', ValueError),
    ("kms", "Encrypt", b'{"CiphertextBlob": "AAEC"}', {"CiphertextBlob": b"\0\1\2"}),
    ("dynamodb", "GetItem", b'{"Item": {"a": {"M": {"b": {"L": [{"N": "1"}]}}}}}', ...),
    ("dynamodb", "GetItem", b'{"Item": {"a": {"New": 1}}}', ...),
    ("lambda", "GetFunction", b'{"Configuration": {"MemorySize": "128", "Timeout": 3.0}}', ...),
    ("lambda", "ListFunctions", b'{"Functions": "ab"}', AttributeError),
    ("bedrock-runtime", "Converse", b'{"output": {"x": 1}}', {"output": {"SDK_UNKNOWN_MEMBER": {"name": "x"}}}),
    ("bedrock-runtime", "Converse", b'{"output": {}}', botocore.parsers.ResponseParserError),
]


@pytest.mark.parametrize(("service", "operation", "body", "expected"), AWKWARD, ids=lambda each: str(each)[:40])
def test_awkward_answers(service: str, operation: str, body: bytes, expected: Any) -> None:
    """`...`: as botocore, whatever that is."""
    parsed = answer(service, operation, body)
    assert expected is ... or parsed == expected


@pytest.mark.parametrize("status", [301, 400, 404, 500, 503])
@pytest.mark.parametrize(
    ("service", "operation"), [("ec2", "DescribeVpcs"), ("iam", "GetRole"), ("s3", "ListObjectsV2")]
)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>Service Unavailable</body></html>",
        b"<R><Errors><Error><Code>C</Code><Message>m</Message></Error></Errors><RequestID>r</RequestID></R>",
        b"<ErrorResponse><Error><Type>Sender</Type><Code>NoSuchEntity</Code></Error><RequestId>r</RequestId></ErrorResponse>",
        b"<Error><Code>NoSuchBucket</Code><BucketName>b</BucketName><RequestId>r</RequestId><HostId>h</HostId></Error>",
    ],
)
def test_errors_are_botocores(service: str, operation: str, status: int, body: bytes) -> None:
    operation_model = model(service).operation_model(operation)
    response = {"status_code": status, "headers": {"x-amz-request-id": "r", "x-amz-id-2": "h"}, "body": body}
    for shape in (operation_model.output_shape, *operation_model.error_shapes):
        assert_same(service, response, shape)


# ---- in a client ---------------------------------------------------------------------------------------------------


class Raw(io.BytesIO):
    """What urllib3 gives."""

    def stream(self, *_: Any, **__: Any) -> Iterator[bytes]:
        yield self.read()


def client(service: str, *answers: tuple[int, bytes]) -> Any:
    """A client of a session with our parsers, for which nothing goes over a wire."""
    left = iter(answers)
    made: Any = SESSION.create_client(
        service, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
    )

    def send(request: Any, **_: Any) -> AWSResponse:
        status, body = next(left)
        return AWSResponse(request.url, status, {"x-amz-request-id": "r", "content-length": str(len(body))}, Raw(body))

    made.meta.events.register("before-send", send)
    return made


def test_paginators_and_handlers_work_on_what_is_parsed() -> None:
    role = (
        "<member><RoleName>{}</RoleName><AssumeRolePolicyDocument>%7B%22a%22%3A1%7D</AssumeRolePolicyDocument></member>"
    )
    more = "<IsTruncated>true</IsTruncated><Marker>m</Marker>"
    first, last = (
        iam("ListRolesResult", f"<Roles>{role.format(name)}</Roles>{rest}".encode())
        for name, rest in (("a", more), ("b", ""))
    )
    pages = [*client("iam", (200, first), (200, last)).get_paginator("list_roles").paginate()]
    assert [(r["RoleName"], r["AssumeRolePolicyDocument"]) for page in pages for r in page["Roles"]] == [
        ("a", {"a": 1}),
        ("b", {"a": 1}),
    ]
    objects = s3(b"<EncodingType>url</EncodingType><Contents><Key>a%20b</Key></Contents>")
    assert client("s3", (200, objects)).list_objects_v2(Bucket="b")["Contents"] == [{"Key": "a b"}]
    location = b"<LocationConstraint xmlns='http://s3.amazonaws.com/doc/2006-03-01/'>EU</LocationConstraint>"
    assert client("s3", (200, location)).get_bucket_location(Bucket="b")["LocationConstraint"] == "EU"


def test_bodies_and_event_streams_are_passed_on() -> None:
    body = client("s3", (200, b"bytes")).get_object(Bucket="b", Key="k")["Body"]
    assert isinstance(body, StreamingBody)
    assert body.read() == b"bytes"
    select = client("s3", (200, b"")).select_object_content(
        Bucket="b",
        Key="k",
        Expression="x",
        ExpressionType="SQL",
        InputSerialization={"CSV": {}},
        OutputSerialization={"CSV": {}},
    )
    assert isinstance(select["Payload"], EventStream)
    assert list(select["Payload"]) == []


def test_an_error_is_raised_as_the_modelled_exception() -> None:
    body = b"<ErrorResponse><Error><Code>NoSuchEntity</Code><Message>m</Message></Error></ErrorResponse>"
    asked = client("iam", (404, body))
    with pytest.raises(asked.exceptions.NoSuchEntityException) as raised:
        asked.get_role(RoleName="x")
    assert raised.value.response["Error"]["Code"] == "NoSuchEntity"
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404


def test_threads_may_parse_at_once() -> None:
    session = botocore.session.get_session()
    install(session)
    fresh = session.get_component(COMPONENT)
    response, shape = written(random.Random(7), "ec2", "DescribeInstances")
    expected = outcome(THEIRS, "ec2", response, shape)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(outcome(fresh, "ec2", response, shape))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * len(threads)


# ---- installing it -------------------------------------------------------------------------------------------------


def test_the_internals_of_botocore_are_those_that_this_relies_on() -> None:
    """Fails after an upgrade of botocore: compare its parsers with what `actors.aws.parsing` assumes."""
    assert unexpected() == []
    scalars = {"blob", "boolean", "character", "double", "float", "integer", "long", "string", "timestamp"}
    shapes = {"structure", "list", "map"}
    handled = {
        "ec2": scalars | shapes,
        "query": scalars | shapes,
        "rest-xml": scalars | shapes,
        "json": {"blob", "timestamp"} | shapes,
        "rest-json": (scalars - {"character"}) | shapes,
    }
    others = {"unknown_tagged_union_member", "event_stream", "json_body"}
    for protocol, expected in handled.items():
        parser: Any = botocore.parsers.PROTOCOL_PARSERS[protocol]
        assert {name[8:] for name in dir(parser) if name.startswith("_handle_")} - others == expected


def test_another_botocore_keeps_its_own_parsers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def changed(self: Any, shape: Any, node: Any, more: Any) -> None:
        raise NotImplementedError

    monkeypatch.setattr(botocore.parsers.ResponseParser, "_parse_shape", changed)
    session = botocore.session.get_session()
    with caplog.at_level(logging.INFO):
        install(session)
    assert type(session.get_component(COMPONENT)) is botocore.parsers.ResponseParserFactory
    assert [record.message for record in caplog.records if record.name == "actors.aws.parsing"] == [
        "answers_parsed_by_botocore reasons=ResponseParser._parse_shape(shape node)"
    ]


def test_a_factory_of_somebody_else_stays() -> None:
    class Own(botocore.parsers.ResponseParserFactory):
        pass

    session = botocore.session.get_session()
    session.register_component(COMPONENT, Own())
    install(session)
    assert type(session.get_component(COMPONENT)) is Own


def test_installing_twice_changes_nothing_and_defaults_are_kept() -> None:
    session = botocore.session.get_session()
    session.get_component(COMPONENT).set_parser_defaults(timestamp_parser=lambda text: f"at {text}")
    install(session)
    factory = session.get_component(COMPONENT)
    install(session)
    assert session.get_component(COMPONENT) is factory
    shape = model("kms").operation_model("DescribeKey").output_shape
    response = {"status_code": 200, "headers": {}, "body": b'{"KeyMetadata": {"CreationDate": 1}}'}
    assert factory.create_parser("json").parse(response, shape)["KeyMetadata"] == {"CreationDate": "at 1"}
    factory.set_parser_defaults(timestamp_parser=lambda text: f"on {text}")
    assert factory.create_parser("json").parse(response, shape)["KeyMetadata"] == {"CreationDate": "on 1"}
