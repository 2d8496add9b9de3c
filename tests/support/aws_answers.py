"""Answers of AWS as bytes, made from the service models of botocore: valid ones, but for a mistake now and then."""

from __future__ import annotations

import base64
import json
import random
from typing import Any
from xml.sax.saxutils import escape

XSI = 'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
TEXTS = [
    "",
    " ",
    "a",
    "ünï-ço∂é ☃",
    " spaces around ",
    "line\nline",
    "<&>'\"",
    "]]>",
    "{ns}x",
    "null",
    "0",
    "%7B%22",
    "a,b",
]
TIMES = [
    *(
        "2024-05-06T07:08:09Z",
        "2024-05-06T07:08:09.123Z",
        "2024-05-06T07:08:09.000001Z",
        "2024-05-06T07:08:09.1234567Z",
    ),
    *(
        "2024-05-06T07:08:09+00:00",
        "2024-05-06T07:08:09+02:00",
        "2024-05-06 07:08:09",
        "2024-05-06",
        "20240506T070809Z",
    ),
    *("Mon, 06 May 2024 07:08:09 GMT", "1714979289", "1714979289.25", "-1", "99999999999999", "2024-02-30T00:00:00Z"),
    *("2024-05-06T24:00:00Z", "2024-05-06T07:08:60Z", "0001-01-01T00:00:00Z", "2024-05-06T07:08:09.Z", "", "soon"),
]


class Writer:
    """Makes the bytes of an answer; `left` bounds how many values it has."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.left = rng, rng.choice((3, 30, 300))

    def now_and_then(self, times_in_a_thousand: int = 10) -> bool:
        return self.rng.randrange(1_000) < times_in_a_thousand

    def response(self, of: Any, operation: str) -> dict[str, Any]:
        """What botocore's parsers take, of an operation of the service model `of`."""
        shape = of.operation_model(operation).output_shape
        status = self.rng.choice((400, 404, 500, 503)) if self.now_and_then() else 200
        headers = {"x-amzn-RequestId".lower(): "r-1"} if self.rng.random() < 0.5 else {"x-amz-request-id": "r-2"}
        body = b"<R><requestId>r-5</requestId></R>" if of.resolved_protocol in ("ec2", "query") else b""
        if shape is not None:
            headers.update(self.headers(shape))
            payload = shape.serialization.get("payload")
            whole = shape.members[payload] if payload else shape
            if whole.type_name in ("string", "blob"):
                body = self.text(whole).encode()
            elif of.resolved_protocol in ("json", "rest-json"):
                body = json.dumps(self.value(whole), ensure_ascii=self.rng.random() < 0.5).encode()
            else:
                body = self.document(of.resolved_protocol, operation, shape, whole).encode()
        context = {"operation_name": operation}
        return {"status_code": status, "headers": headers, "body": body, "context": context}

    def headers(self, shape: Any) -> dict[str, str]:
        found = {}
        for name, member in shape.members.items():
            location = member.serialization.get("location")
            tag = member.serialization.get("name", name)
            if location == "header" and self.rng.random() < 0.5:
                scalar = member.member if member.type_name == "list" else member
                text = self.text(scalar)
                is_json = member.serialization.get("jsonvalue")
                found[tag] = base64.b64encode(b'{"a": 1}').decode() if is_json else text
            elif location == "headers":
                found[f"{tag}Some"] = "x"
        return found

    def text(self, shape: Any) -> str:
        match shape.type_name:
            case "boolean":
                return self.rng.choice(("true", "false", "True", "1", ""))
            case "integer" | "long":
                return "" if self.now_and_then() else str(self.rng.choice((0, -1, " 7 ", 2**40, "1_000")))
            case "float" | "double":
                return "x" if self.now_and_then() else self.rng.choice(("0", "1.5", "-1e3", "NaN", "Infinity"))
            case "timestamp":
                return self.rng.choice(TIMES if self.now_and_then(50) else TIMES[:9])
            case "blob":
                return "x" if self.now_and_then() else base64.b64encode(self.rng.randbytes(5)).decode()
        return self.rng.choice(TEXTS)

    # XML

    def document(self, protocol: str, operation: str, shape: Any, whole: Any) -> str:
        inner, attributes = self.content(whole)
        wrapper = shape.serialization.get("resultWrapper")
        if wrapper:
            inner, attributes = f"<{wrapper}{attributes}>{inner}</{wrapper}>", ""
        if protocol == "query":
            inner += "<ResponseMetadata><RequestId>r-3</RequestId></ResponseMetadata>"
        elif protocol == "ec2":
            inner = f"<requestId>r-4</requestId>{inner}"
        namespace = self.rng.choice(("", ' xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"', ' xmlns="urn:x"'))
        start = self.rng.choice(("", '<?xml version="1.0" encoding="UTF-8"?>\n'))
        return f"{start}<{operation}Response{namespace} {XSI}{attributes}>{inner}</{operation}Response>"

    def element(self, tag: str, shape: Any) -> str:
        inner, attributes = self.content(shape)
        if not inner and self.rng.random() < 0.5:
            return f"<{tag}{attributes}/>"
        return f"<{tag}{attributes}>{inner}</{tag}>"

    def content(self, shape: Any) -> tuple[str, str]:
        self.left -= 1
        match shape.type_name:
            case "structure":
                return self.members(shape)
            case "list":
                tag = shape.member.serialization.get("name", "member")
                return "\n".join(self.element(tag, shape.member) for _ in self.some()), ""
            case "map":
                return "".join(f"<entry>{self.pair(shape)}</entry>" for _ in self.some()), ""
        text = self.text(shape)
        if self.now_and_then(100) and "]]>" not in text:
            return f"<![CDATA[{text}]]>", ""
        if self.now_and_then(50):
            return f"{escape(text)}<!-- a comment -->{self.rng.choice(('', 'tail'))}", ""
        return escape(text, {"\n": self.rng.choice(("\n", "&#10;"))}), ""

    def members(self, shape: Any) -> tuple[str, str]:
        parts: list[str] = []
        attributes = ""
        often = self.rng.choice((0.1, 0.5, 1))
        for name, member in shape.members.items():
            traits = member.serialization
            if (
                self.left < 0
                or self.rng.random() > often
                or traits.get("location") in ("header", "headers", "statusCode")
            ):
                continue
            tag = traits.get("name", name)
            if traits.get("xmlAttribute"):
                attributes += f' {tag}="CanonicalUser"'
            elif member.type_name == "list" and traits.get("flattened"):
                tag = member.member.serialization.get("name", tag)
                parts += [self.element(tag, member.member) for _ in self.some()]
            elif member.type_name == "map" and traits.get("flattened"):
                parts += [f"<{tag}>{self.pair(member)}</{tag}>" for _ in self.some()]
            else:
                parts.append(self.element(tag, member))
        if self.now_and_then(100):
            parts += ["<not.in.the-model><a>1</a></not.in.the-model>"] * self.rng.randint(1, 2)
        if parts and self.now_and_then():
            parts.append(self.rng.choice(parts))  # twice what should be there once
        if self.rng.random() < 0.5:
            self.rng.shuffle(parts)
        return self.rng.choice(("", "\n  ")).join(parts), attributes

    def pair(self, shape: Any) -> str:
        key = self.element(shape.key.serialization.get("name", "key"), shape.key)
        value = self.element(shape.value.serialization.get("name", "value"), shape.value)
        return self.rng.choice((key + value, key + value, value + key))

    def some(self) -> range:
        return range(0 if self.left < 0 else self.rng.choice((0, 1, 1, 2, 5)))

    # JSON

    def value(self, shape: Any) -> Any:  # noqa: PLR0911
        self.left -= 1
        if self.now_and_then():
            return self.rng.choice((None, None, None, [], {}, "x", 1, [None]))
        match shape.type_name:
            case "structure":
                return self.structure(shape)
            case "list":
                return [self.value(shape.member) for _ in self.some()]
            case "map":
                return {self.text(shape.key): self.value(shape.value) for _ in self.some()}
            case "boolean":
                return self.rng.choice((True, False, False, "true"))
            case "integer" | "long":
                return self.rng.choice((0, -1, 2**40, 1.0))
            case "float" | "double":
                return self.rng.choice((0, 1.5, float("nan")))
            case "timestamp":
                return self.rng.choice((1714979289, 1714979289.123, 0, *TIMES))
        return self.text(shape)

    def structure(self, shape: Any) -> Any:
        if shape.is_document_type:
            return self.rng.choice(({"any": [1, None, {"thing": "x"}]}, [1], "x", 1.5))
        often = self.rng.choice((0.1, 0.5, 1))
        members = list(shape.members.items())
        if shape.is_tagged_union:
            members, often = self.rng.sample(members, 1 if self.rng.random() < 0.9 else min(2, len(members))), 1
        found: dict[str, Any] = {}
        for name, member in members:
            if self.left > 0 and self.rng.random() <= often:
                found[member.serialization.get("name", name)] = self.value(member)
        if self.now_and_then(50):
            found.update(
                self.rng.choice(({"notInTheModel": {"a": 1}}, {"__type": "com.amazonaws#Thing"}, {"gone": None}))
            )
        return found
