from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections import defaultdict

import cartography.models
import pytest
from cartography.graph.cleanupbuilder import build_cleanup_queries
from cartography.models.aws.ec2.vpc import AWSVpcSchema
from cartography.models.aws.ec2.vpc_cidr import AWSIPv4CidrBlockSchema
from cartography.models.core.nodes import CartographyNodeSchema
from cartography.models.core.relationships import CartographyRelSchema

from actors.modules import modules
from cartoray import schemas
from cartoray.errors import UnreadableMessage
from cartoray.queries import Query
from ingestion.derivations import derivation
from ingestion.statements import (
    SHARED_LABELS,
    cleanups,
    guarded,
    index,
    keeping_newer,
    never_back,
    recognition,
    rewritten,
    statements,
)

INSTANCE = "cartography.models.aws.ec2.instances:EC2InstanceSchema"
SECURITY_GROUP = "cartography.models.aws.ec2.security_groups:EC2SecurityGroupSchema"
ASSUMES = "cartography.models.aws.ec2.instances:EC2InstanceToRoleAssumesMatchLink"


def paths_of(base: type) -> list[str]:
    """Of all schemas of the release that are a `base`."""
    found = set()
    for module in pkgutil.walk_packages(cartography.models.__path__, "cartography.models."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if (
                inspect.isclass(value)
                and base in value.__mro__  # issubclass asks all its subclasses: quadratic
                and value.__module__ == module.name
                and not inspect.isabstract(value)
            ):
                found.add(f"{module.name}:{name}")
    return sorted(found)


@pytest.fixture(scope="module")
def every_schema() -> list[str]:
    """Paths of all node schemas of the release."""
    return paths_of(CartographyNodeSchema)


@pytest.fixture(scope="module")
def every_matchlink() -> list[str]:
    """Paths of all relationship schemas of the release that stand alone."""
    paths = paths_of(CartographyRelSchema)
    return [path for path in paths if schemas.matchlink_schema(path).source_node_label is not None]


def test_shared_labels_are_those_that_one_schema_owns_and_another_adds(every_schema: list[str]) -> None:
    own, extra = set(), set()
    for path in every_schema:
        schema = schemas.node_schema(path)
        own.add(schema.label)
        extra |= {label.label for label in (schema.extra_node_labels.labels if schema.extra_node_labels else ())}
    assert own & extra == SHARED_LABELS


def test_every_schema_has_statements_that_read_only_rows_and_loads(every_schema: list[str]) -> None:
    for path in every_schema:
        found = statements(path)
        assert found.nodes is not None
        compare = found.compare.query if found.compare else ""
        for query in (found.nodes, compare, *(relationship.query for relationship in found.relationships)):
            outside = re.sub(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'', "", query)
            assert set(re.findall(r"\$\w+", outside)) <= {"$rows", "$loads", "$none"}, path
            assert not re.search(r"\bitem\.", outside), path
            assert {int(place) for place in re.findall(r"item\[(\d+)\]", outside)} <= set(range(len(found.fields) + 4))
        # labels that depend on properties are looked at whenever a node is written, so it is never only compared
        assert (found.compare is None) == ("FOREACH" in found.nodes), path
        if found.compare is not None:
            assert found.nodes.count("\ni.") + found.nodes.count(" i._") <= len(found.compare.names) + 1, path
            assert compare.count("coalesce(node.") == len(found.compare.names), path
        assert len(found.relationships) == len(schemas.relationships(schemas.node_schema(path)))


def test_every_schema_is_recognised_or_compared_and_asks_for_nothing_else(every_schema: list[str]) -> None:
    lazy = 0
    for path in every_schema:
        found = recognition(path, frozenset())
        if found is not None:
            for query in (found.query, found.lazy or ""):
                outside = re.sub(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'', "", query)
                assert set(re.findall(r"\$\w+", outside)) <= {"$keys", "$loads", "$none"}, path
            lazy += found.lazy is not None
    assert lazy > 100


def test_every_matchlink_is_a_relationship_of_its_rows_and_loads(every_matchlink: list[str]) -> None:
    assert len(every_matchlink) > 100
    for path in every_matchlink:
        found = statements(path)
        assert found.nodes is None and found.id_at is None
        (link,) = found.relationships
        outside = re.sub(r'"(?:[^"\\]|\\.)*"', "", link.query)
        assert set(re.findall(r"\$\w+", outside)) == {"$loads"}, path
        assert not re.search(r"\bitem\.", outside), path
        read = {int(place) for place in re.findall(r"item\[(\d+)\]", outside)}
        assert read == {*range(1, len(found.fields) + 1), len(found.fields) + 1}, path
        assert {found.fields[at] for at in link.needed_at} <= set(found.fields)
        assert set(link.needed_constants) <= set(found.constants)
        assert set(re.findall(r"\bload\.(\w+)", outside)) == {*found.constants, "rows"}, path


def test_a_relationship_schema_that_is_no_matchlink_has_no_statements() -> None:
    with pytest.raises(UnreadableMessage, match="stands for no rows"):
        statements("cartography.models.aws.ec2.vpc:VPCToAWSAccountRel")


def test_ids_of_own_labels_are_unique_but_for_shared_ones(every_schema: list[str]) -> None:
    unique: dict[str, set[bool]] = defaultdict(set)
    for path in every_schema:
        found = statements(path)
        label = schemas.node_schema(path).label
        assert all(each.label == label and each.properties == ("id",) for each in found.indexes if each.unique)
        unique[label].add(any(each.unique for each in found.indexes))
    assert {label for label, flags in unique.items() if flags == {False}} == SHARED_LABELS
    assert all(len(flags) == 1 for flags in unique.values())


def test_the_cleanup_of_every_aws_schema_deletes_only_what_is_older(every_schema: list[str]) -> None:
    unable = []
    for path in every_schema:
        if not path.startswith("cartography.models.aws."):
            continue
        try:
            queries = cleanups(path).queries
        except UnreadableMessage as error:
            unable.append((path, str(error)))
            continue
        for query in queries:
            assert "<>" not in query
            assert query.count("lastupdated < $UPDATE_TAG") == 2
            assert "$AWS_ID" in query
    known = ("which no step carries", "has no cleanup", "delete what is other accounts'")
    assert all(any(words in reason for words in known) for _, reason in unable), unable


def test_values_are_replaced_by_whole_names_and_never_inside_of_literals() -> None:
    places = {"Id": "item[0]", "IdFormat": "item[1]", "resource.id": "item[2]"}
    text = "i.a = item.IdFormat, i.b = item.Id, i.c = item.resource.id"
    assert rewritten(text, places) == "i.a = item[1], i.b = item[0], i.c = item[2]"
    text = 'i.d = \'item.Id $x\', i.e = "it\\"s $x", i.f = $Region'
    assert rewritten(text, places) == 'i.d = \'item.Id $x\', i.e = "it\\"s $x", i.f = load.Region'
    with pytest.raises(ValueError, match=r"item\.Other"):
        rewritten("i.x = item.Other", places)


def test_lastupdated_never_goes_back() -> None:
    assert never_back("SET i.lastupdated = load.lastupdated,\ni.arn = x") == (
        "SET i.lastupdated = CASE WHEN i.lastupdated > load.lastupdated THEN i.lastupdated "
        "ELSE load.lastupdated END,\ni.arn = x"
    )
    for path in (INSTANCE, SECURITY_GROUP):
        for query in (statements(path).nodes, *(each.query for each in statements(path).relationships)):
            assert query.count("lastupdated = ") == query.count("lastupdated = CASE WHEN") == 1
    assert "lastupdated = CASE WHEN" in derivation(ASSUMES).link


def test_a_cleanup_that_a_job_sends_deletes_only_what_is_older_and_of_its_account() -> None:
    parameters = {"UPDATE_TAG": 7, "AWS_ID": "111111111111", "LIMIT_SIZE": 100}
    scoped, unbound = (
        [query for query in build_cleanup_queries(schema()) if ("$AWS_ID" in query) is of_account]
        for schema, of_account in ((AWSVpcSchema, True), (AWSIPv4CidrBlockSchema, False))
    )
    assert scoped
    assert unbound
    for query in scoped:
        sent = keeping_newer(Query(query, parameters, repeat=True), alone=False).text
        assert "lastupdated < $UPDATE_TAG" in sent
        assert sent.count("$AWS_ID") == query.count("$AWS_ID")
    for query in unbound:
        assert "AWSAccount{id: $AWS_ID}" in keeping_newer(Query(query, parameters, repeat=True), alone=False).text
        other = {name: value for name, value in parameters.items() if name != "AWS_ID"}  # of another provider
        assert "$AWS_ID" not in keeping_newer(Query(query, other, repeat=True), alone=False).text
        assert "$AWS_ID" not in keeping_newer(Query(query, parameters, repeat=True), alone=True).text
    own = Query("MATCH (n:X) WHERE n.lastupdated <> $UPDATE_TAG AND n.y DETACH DELETE n", parameters)
    assert keeping_newer(own, alone=False).text == own.text.replace("<>", "<")
    for text in ("MATCH (n:X) DETACH DELETE n", "MATCH (n:X) WHERE n.lastupdated <> $UPDATE_TAG SET n.old = true"):
        other_query = Query(text, parameters)
        assert keeping_newer(other_query, alone=False) is other_query


def test_a_relationship_says_what_it_needs() -> None:
    fields = schemas.fields(SECURITY_GROUP)
    account, vpc, source = statements(SECURITY_GROUP).relationships
    assert (account.per_load, account.needed_constants, account.needed_at) == (True, ("AWS_ID",), ())
    assert (vpc.per_load, [fields[at] for at in vpc.needed_at], vpc.list_at) == (False, ["VpcId"], None)
    assert source.list_at == fields.index("SOURCE_GROUP_IDS")
    assert source.name == "AWSEC2SecurityGroup-ALLOWS_TRAFFIC_FROM->AWSEC2SecurityGroup"


def test_what_is_not_stocks_is_refused() -> None:
    with pytest.raises(UnreadableMessage):
        statements("cartography.models.aws.ec2.instances:Nothing")
    with pytest.raises(UnreadableMessage):
        derivation("cartography.models.aws.ec2.instances:SomethingElse")
    with pytest.raises(ValueError, match="unknown form"):
        guarded("MATCH (n) WHERE n.lastupdated <> $UPDATE_TAG DELETE n")
    with pytest.raises(ValueError, match="unknown form"):
        index("CREATE TEXT INDEX FOR (n:A) ON (n.b)")


def test_what_is_left_untouched_is_cleaned_up_by_its_ids() -> None:
    lazy = 0
    for module in modules().values():
        for table in module.tables:
            found = recognition(table.path, frozenset())
            if found and found.lazy:
                assert all("$IDS" in query for query in cleanups(table.path).by_id)
                assert len(cleanups(table.path).by_id) == 2
                lazy += 1
    assert lazy > 15
    account = recognition("cartography.models.aws.account:AWSAccountSchema", frozenset())
    assert account is not None
    assert account.lazy is None


def test_what_is_cleaned_up_for_each_part_of_an_account_is_so_for_all_of_them_and_no_others() -> None:
    statement = "cartography.models.aws.iam.policy_statement:AWSPolicyStatementSchema"
    link = "cartography.models.aws.s3.notification:S3BucketToSNSTopicRel"
    nodes, relationships = cleanups(statement, "AWSPolicy").queries
    (links,) = cleanups(link, "AWSS3Bucket").queries
    for query, part in ((nodes, "AWSPolicy"), (relationships, "AWSPolicy"), (links, "AWSS3Bucket")):
        assert "MATCH (sub:AWSAccount{id: $AWS_ID})" in query
        assert f"WHERE part:{part}" in query
        assert "$POLICY_ID" not in query and "$_sub_resource_id" not in query
    assert "MATCH (part)-[r:NOTIFIES]-()" in links and "r._sub_resource_id = part.id" in links
    with pytest.raises(UnreadableMessage, match="AWSS3Bucket"):
        cleanups(statement, "AWSS3Bucket")
    for cypher in ("AWSS3Bucket WITH part MATCH (n) DETACH DELETE n WITH part", "AWSS3Bucket`", "AWSRole"):
        for path in (statement, link):
            with pytest.raises(UnreadableMessage, match="not one for each"):
                cleanups(path, cypher)
