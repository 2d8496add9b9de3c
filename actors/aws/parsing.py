"""botocore's answers, parsed faster: one walk per answer, which is made once per shape of the service's model.

botocore looks up for each XML element what its shape is and which method parses it, and strips its namespace with a
regular expression: 1,000 instances take it a dozen times as long as reading the XML. Here a shape becomes a closure
that knows its members by tag. The closures take the place of one method of botocore's parsers, `_parse_shape` of a
structure; everything else about an answer stays botocore's: reading the XML or JSON, what is an error, headers,
payloads, event streams, metadata. So do structures that are rare or peculiar: unions, documents, modelled errors, XML
attributes, two members of one name, and maps in XML.

Results are equal to botocore's, down to the order of keys and the exceptions for what cannot be parsed;
`tests/unit/actors/test_parsing.py` compares them.
"""

from __future__ import annotations

import datetime
import inspect
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import botocore.model
import botocore.session
import botocore.utils
from botocore import parsers

log = logging.getLogger(__name__)

COMPONENT = "response_parser_factory"  # of a botocore session; its clients take it when they are made
_TAGS_MAX = 1_000  # remembered per shape: its members in a few namespaces, and what is not in the model

Handle = Callable[[Any], Any]  # an XML element or a JSON value → the parsed value
_XmlMember = tuple[str, Handle | None, Handle]  # name; of its element, None: the text; of elements that repeat
_JsonMember = tuple[str, str, Handle | None]  # name; key in the JSON; of its value, None: the value itself

# What of botocore this relies on: method → parameters after `self`.
_EXPECTED = {
    "ResponseParserFactory.set_parser_defaults": "kwargs",
    "ResponseParserFactory.create_parser": "protocol_name",
    "ResponseParser.__init__": "timestamp_parser blob_parser",
    "ResponseParser._parse_shape": "shape node",
    "ResponseParser._default_handle": "shape value",
    "BaseXMLResponseParser._node_tag": "node",
    "BaseXMLResponseParser._member_key_name": "shape member_name",
    "BaseXMLResponseParser._handle_structure": "shape node",
    "BaseXMLResponseParser._handle_list": "shape node",
    "BaseJSONParser._handle_structure": "shape value",
    "BaseJSONParser._handle_map": "shape value",
    "BaseRestParser._handle_list": "shape node",
    "BaseRestParser._handle_string": "shape value",
}


def install(session: botocore.session.Session) -> None:
    """Lets the clients that `session` makes from now on parse their answers this way.

    Does nothing but say so, at INFO, if botocore is not as it was when this was written, or if the session has a
    factory of parsers that is not botocore's own. Repeating this changes nothing.
    """
    factory = session.get_component(COMPONENT)
    if isinstance(factory, _Factory):
        return
    reasons = unexpected()
    if type(factory) is not parsers.ResponseParserFactory:
        reasons.append(f"the session's factory is {type(factory).__name__}")
    if reasons:
        log.info("answers_parsed_by_botocore reasons=%s", "; ".join(reasons))
        return
    session.register_component(COMPONENT, _Factory(factory._defaults))


def unexpected() -> list[str]:
    """What of botocore's internals is not as this file expects it."""
    found = []
    for path, expected in _EXPECTED.items():
        name, method = path.split(".")
        function = getattr(getattr(parsers, name, None), method, None)
        if function is None or " ".join([*inspect.signature(function).parameters][1:]) != expected:
            found.append(f"{path}({expected})")
    fields = {
        "_defaults": parsers.ResponseParserFactory(),
        "KNOWN_LOCATIONS": parsers.ResponseParser,
        "_shape_resolver": botocore.model.Shape("some", {"type": "string"}),
        "_shape_map": botocore.model.ShapeResolver({}),
    }
    found += [name for name, owner in fields.items() if not hasattr(owner, name)]
    found += [protocol for protocol in _WAYS if protocol not in parsers.PROTOCOL_PARSERS]
    return found


def parse_timestamp(value: Any) -> datetime.datetime:
    """As `botocore.utils.parse_timestamp`, which takes 50 times as long for the form that AWS uses most."""
    if type(value) is str and _ISO_UTC.fullmatch(value):
        try:
            return datetime.datetime.fromisoformat(value[:-1]).replace(tzinfo=_UTC)
        except ValueError:  # the 30th of February; botocore finds the words for it
            pass
    return botocore.utils.parse_timestamp(value)


_ISO_UTC = re.compile(r"(?:19|20)[0-9]{2}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?Z")
_UTC = botocore.utils.parse_timestamp("2000-01-01T00:00:00Z").tzinfo  # the object that botocore's results share


class _Factory(parsers.ResponseParserFactory):
    """Makes one parser per protocol: what a parser learns about shapes is for all clients of the session."""

    def __init__(self, defaults: Mapping[str, Any]) -> None:
        super().__init__()
        self.set_parser_defaults(**defaults)

    def set_parser_defaults(self, **kwargs: Any) -> None:
        super().set_parser_defaults(**kwargs)
        self._parsers: dict[str, parsers.ResponseParser] = {}

    def create_parser(self, protocol_name: str) -> parsers.ResponseParser:
        parser = self._parsers.get(protocol_name)
        if parser is None:
            theirs: Any = parsers.PROTOCOL_PARSERS[protocol_name]
            ways = (_WAYS[protocol_name],) if protocol_name in _WAYS else ()
            defaults: Any = {"timestamp_parser": parse_timestamp, **self._defaults}  # type: ignore[attr-defined]
            parser = self._parsers[protocol_name] = type(theirs.__name__, (*ways, theirs), {})(**defaults)
        return parser


_Base: Any = parsers.ResponseParser  # its stub leaves out what is overridden


class _Compiling(_Base):  # type: ignore[misc]
    """Parses structures by closures. Threads may parse at once: a closure that two of them make is made twice."""

    def __init__(self, timestamp_parser: Handle | None = None, blob_parser: Handle | None = None) -> None:
        super().__init__(timestamp_parser, blob_parser)
        # Clients of one session have a service's shapes in common, so by those and by name; keeping them keeps the id.
        self._structures: dict[int, tuple[Any, dict[str, Handle]]] = {}

    def _parse_shape(self, shape: Any, node: Any) -> Any:
        if shape.type_name == "structure" and type(node) is not list:  # a list: where XML repeats an element
            return self._structure(shape)(node)
        return super()._parse_shape(shape, node)

    def _theirs(self, shape: Any) -> Handle:
        """botocore's way. What is within may be parsed this way again."""
        handle: Handle = getattr(self, f"_handle_{shape.type_name}", None) or self._default_handle
        return partial(handle, shape)

    def _structure(self, shape: Any) -> Handle:
        shapes = getattr(shape._shape_resolver, "_shape_map", None)
        if shapes is None:
            return self._theirs(shape)
        _, known = self._structures.get(id(shapes)) or self._structures.setdefault(id(shapes), (shapes, {}))
        handle = known.get(shape.name)
        if handle is None:
            peculiar = any(shape.metadata.get(trait) for trait in ("exception", "union", "document"))
            handle = known[shape.name] = self._theirs(shape) if peculiar else self._compile(shape)
        return handle

    def _compile(self, shape: Any) -> Handle:
        raise NotImplementedError


class _Xml(_Compiling):
    """Elements of ElementTree → values."""

    def _compile(self, shape: Any) -> Handle:
        made: tuple[Sequence[_XmlMember], dict[str, int]] | None = (
            None  # at the first element: shapes contain themselves
        )
        theirs = self._theirs(shape)

        def structure(node: Any) -> Any:
            nonlocal made
            if made is None:
                made = self._members(shape)
            members, places = made
            if not members:
                return theirs(node)
            place_of = places.get
            found: dict[Any, Any] = {place_of(element.tag): element for element in node}
            if None in found or len(found) != len(node):  # tags that are new here, or that repeat
                found = self._found(node, places)
            found.pop(-1, None)
            parsed = {}
            for place in sorted(found):
                name, handle, repeated = members[place]
                element = found[place]
                if type(element) is list:
                    parsed[name] = repeated(element)
                elif handle is None:
                    parsed[name] = element.text or ""
                else:
                    parsed[name] = handle(element)
            return parsed

        return structure

    def _found(self, node: Any, places: dict[str, int]) -> dict[int, Any]:
        """The elements by place, in a list those of a place that has several. Remembers the places of their tags."""
        found: dict[int, Any] = {}
        for element in node:
            place = places.get(element.tag)
            if place is None:
                place = places.get(self._node_tag(element), -1)
                if len(places) < _TAGS_MAX:
                    places[element.tag] = place
            if place not in found:
                found[place] = element
            elif type(found[place]) is list:
                found[place].append(element)
            else:
                found[place] = [found[place], element]
        return found

    def _members(self, shape: Any) -> tuple[Sequence[_XmlMember], dict[str, int]]:
        """The members in the order of the model, and their places by tag. No members: for botocore to parse.

        Tags with their namespaces are added when they are met; the place of what is not in the model is -1.
        """
        members: list[_XmlMember] = []
        places: dict[str, int] = {}
        for name, member in shape.members.items():
            traits = member.serialization
            if traits.get("location") in self.KNOWN_LOCATIONS or traits.get("eventheader"):
                continue  # not in the body
            tag = self._member_key_name(member, name)
            if tag in places or traits.get("xmlAttribute"):
                return (), {}
            places[tag] = len(members)
            members.append((name, *self._handles(member)))
        return members, places

    def _handles(self, shape: Any) -> tuple[Handle | None, Handle]:
        """Of an element, None: its text; and of elements of the same tag."""
        traits = shape.serialization
        if shape.type_name == "list" and "location" not in traits:
            elements = self._elements(shape.member)
            return (lambda node: elements((node,))) if traits.get("flattened") else elements, elements
        return self._handle(shape), self._theirs(shape)

    def _elements(self, member: Any) -> Handle:
        one = self._handles(member)[0]
        if one is None:
            return lambda nodes: [node.text or "" for node in nodes]
        return lambda nodes: [one(node) for node in nodes]

    def _handle(self, shape: Any) -> Handle | None:
        match shape.type_name:
            case "structure":
                return self._structure(shape)
            case "string" | "character" if "jsonvalue" not in shape.serialization:
                return None
            case "boolean":
                return lambda node: node.text == "true"
            case "integer" | "long":
                return lambda node: int(node.text or "")
        return self._theirs(shape)


class _Json(_Compiling):
    """What `json.loads` answers → values. A value that stays as it is costs nothing."""

    def _compile(self, shape: Any) -> Handle:
        members: Sequence[_JsonMember] | None = None  # known at the first value: shapes contain themselves
        theirs = self._theirs(shape)

        def structure(value: Any) -> Any:
            nonlocal members
            if value is None:
                return None
            if members is None:
                members = self._members(shape)
            if not members:
                return theirs(value)
            parsed = {}
            get = value.get
            for name, key, handle in members:
                raw = get(key)
                if raw is not None:
                    parsed[name] = raw if handle is None else handle(raw)
            return parsed

        return structure

    def _members(self, shape: Any) -> Sequence[_JsonMember]:
        return [
            (name, member.serialization.get("name", name), self._handle(member))
            for name, member in shape.members.items()
        ]

    def _handle(self, shape: Any) -> Handle | None:
        kind, traits = shape.type_name, shape.serialization
        if "location" in traits or "jsonvalue" in traits:
            return self._theirs(shape)
        match kind:
            case "structure":
                return self._structure(shape)
            case "list":
                return self._list(self._handle(shape.member))
            case "map":
                return self._map(self._handle(shape.key), self._handle(shape.value))
            case "string":
                return None
        return self._theirs(shape) if hasattr(self, f"_handle_{kind}") else None

    def _list(self, one: Handle | None) -> Handle:
        if one is None:
            return list
        return lambda values: [one(value) for value in values]

    def _map(self, key: Handle | None, value: Handle | None) -> Handle:
        if key is None and value is None:
            return lambda values: dict(values.items())
        of_key, of_value = key or _same, value or _same
        return lambda values: {of_key(name): of_value(each) for name, each in values.items()}


def _same(value: Any) -> Any:
    return value


_WAYS: Mapping[str, type[_Compiling]] = {
    "ec2": _Xml,
    "query": _Xml,
    "rest-xml": _Xml,
    "json": _Json,
    "rest-json": _Json,
}
