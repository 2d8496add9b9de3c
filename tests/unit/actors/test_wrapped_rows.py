"""What a load of Cartography's sends: what its schema reads, and nothing else of what the API answered."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from cartography.graph.querybuilder import build_ingestion_query
from cartography.models.aws.lambda_function.lambda_function import AWSLambdaSchema

from actors.wrapped.session import GraphSession
from cartoray import schemas
from cartoray.queries import decode_query
from cartoray.settings import Settings
from cartoray.wire import decode_rows

SECRET = "planted-in-the-environment"
ROW = {"FunctionArn": "arn:f", "FunctionName": "f", "Environment": {"Variables": {"TOKEN": SECRET}}}


class Sent:
    """In place of a stream: keeps what it is given."""

    def __init__(self) -> None:
        self.rows_of: list[bytes] = []
        self.queries: list[bytes] = []

    def rows(self, _: str, __: Any, value: bytes) -> int:
        self.rows_of.append(value)
        return 0

    def query(self, value: bytes, **_: bool) -> int:
        self.queries.append(value)
        return 0


@pytest.mark.parametrize(("region", "form"), [("us-east-1", "rows"), (["us-east-1"], "query")])
def test_fields_that_a_schema_does_not_read_are_not_sent_neither_as_rows_nor_in_a_query(
    region: object, form: str
) -> None:
    sent: Any = Sent()
    driver: Any = SimpleNamespace(settings=Settings(), is_new_index=lambda _: False, reads=None)
    session = GraphSession(driver, sent)
    query = build_ingestion_query(AWSLambdaSchema())
    session.run(query, {"DictList": [ROW], "lastupdated": 1, "AWS_ID": "111111111111", "Region": region})
    fields = set(schemas.fields(schemas.path_of(AWSLambdaSchema())))
    if form == "rows":
        (value,) = sent.rows_of
        assert set(decode_rows(value)) == fields
        assert decode_rows(value)["FunctionArn"] == ["arn:f"]
    else:
        (value,) = sent.queries
        (row,) = decode_query(value).parameters["DictList"]
        assert row == {"FunctionArn": "arn:f", "FunctionName": "f"}
    assert not {"Environment"} & fields
