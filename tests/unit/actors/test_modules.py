"""What every module promises. A new file in `actors/aws/` is held against stock Cartography's own source here.

Stock's modules are read, not run: which schemas they load and clean up, and in which order, stands in their calls.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import combinations, pairwise
from random import Random
from types import FunctionType
from typing import Any

import botocore.session
import pytest
from botocore import xform_name
from cartography.graph.cleanupbuilder import build_cleanup_queries
from cartography.models.aws.account import AWSAccountSchema
from cartography.models.aws.iam.sts_assumerole_allow import STSAssumeRoleAllowMatchLink
from cartography.models.aws.organization import AWSOrganizationRootSchema
from cartography.models.core.nodes import CartographyNodeSchema
from cartography.models.core.relationships import CartographyRelSchema, LinkDirection
from hypothesis import given, settings
from hypothesis import strategies as st
from support.reading import Reader

from actors import transforms
from actors.modules import Call, Item, Place, Row, Table, check_account, module, modules
from actors.transforms import Transform, load_transforms
from cartoray import schemas
from cartoray.errors import CloudDenied, UnknownModule
from cartoray.jobs import Account
from cartoray.planning import ACCOUNT_MODULE
from ingestion.statements import cleanups

NAMES = sorted(modules())
PLACE = Place(Account(id="111111111111", name="team-1"), "eu-west-1")
TAG = 1_700_000_000

Link = type[CartographyRelSchema]  # a matchlink: rows that link nodes which are there
Schema = type[CartographyNodeSchema] | Link
Pattern = tuple[str, str, str]  # (from label, relationship, to label), or ("", "", label) for nodes


class Stock(Reader):
    """What a function of stock's does with schemas, its callees' doings included, in the order of the calls.

    What it loads several times stands where it is loaded last: then all that it leads to is there.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.loads: list[Schema] = []
        self.cleanups: list[Schema] = []
        self._looping: dict[str, list[Schema]] = {}  # variable of a loop over new schemas → those
        self.follow(function)

    def visit_For(self, node: ast.For) -> None:
        made = node.iter.elts if isinstance(node.iter, ast.List) else []
        found = [self.named(each.func) for each in made if isinstance(each, ast.Call)]
        if not found or not all(isinstance(each, type) and issubclass(each, CartographyRelSchema) for each in found):
            self.generic_visit(node)
            return
        self._looping[ast.unparse(node.target)] = found
        for statement in node.body:
            self.visit(statement)

    def visit_Call(self, node: ast.Call) -> None:
        called = self.named(node.func)
        if getattr(called, "__name__", "") in ("from_node_schema", "from_matchlink"):
            schema = node.args[0]
            if isinstance(schema, ast.Call):
                self.cleanups.append(self.named(schema.func))
            else:  # None, which no module declares, if it cannot be told what the name means
                self.cleanups += self._looping.get(ast.unparse(schema), [self.named(schema)])
            return
        self.generic_visit(node)
        if isinstance(called, FunctionType):
            is_new = inspect.unwrap(called) not in self._read
            self.follow(called)
            if is_new:  # to be followed again where it is called again, but not from within itself
                self._read.discard(inspect.unwrap(called))
        elif isinstance(called, type) and issubclass(called, CartographyNodeSchema | CartographyRelSchema):
            self.loads = [*(each for each in self.loads if each is not called), called]


@lru_cache
def stock() -> Mapping[str, Stock]:
    """All of stock's modules, in the order in which stock runs them."""
    from cartography.intel.aws import organizations
    from cartography.intel.aws.resources import RESOURCE_FUNCTIONS

    return {
        name: Stock(function) for name, function in {ACCOUNT_MODULE: organizations.sync, **RESOURCE_FUNCTIONS}.items()
    }


def labels(schema: CartographyNodeSchema) -> set[str]:
    extra = schema.extra_node_labels.labels if schema.extra_node_labels else ()
    return {schema.label, *(label.label for label in extra)}


def between(label: str, relationship: CartographyRelSchema) -> Pattern:
    ends = (label, relationship.target_node_label)
    start, end = ends if relationship.direction is LinkDirection.OUTWARD else ends[::-1]
    return start, relationship.rel_label, end


def written(classes: list[Schema]) -> set[Pattern]:
    """The nodes and relationships that a load of these schemas writes."""
    found: set[Pattern] = set()
    for schema in (each() for each in classes):
        if isinstance(schema, CartographyRelSchema):
            found.add(between(str(schema.source_node_label), schema))
            continue
        for label in labels(schema):
            found.add(("", "", label))
            found |= {between(label, relationship) for relationship in schemas.relationships(schema)}
    return found


def deleted(schema: Schema) -> Iterator[Pattern]:
    """The nodes and relationships that stock's cleanup of the schema deletes."""
    made = schema()
    if isinstance(made, CartographyRelSchema):
        yield between(str(made.source_node_label), made)
        return
    for query in build_cleanup_queries(made):
        variable = re.findall(r"\bDELETE (\w);", query)[-1]
        label = re.findall(r"\(n:(\w+)\)", query)[0]
        if variable == "n":
            yield "", "", label
            continue
        ((back, name, other),) = re.findall(rf"(<?)-\[{variable}:(\w+)\]->?\(:(\w+)", query)
        yield (other, name, label) if back else (label, name, other)


def own_tables(name: str) -> list[Schema]:
    return [table.schema for table in modules()[name].tables]


# What of a stock module another job does: see `actors.wrapped.dependencies`.
ELSEWHERE: dict[str, tuple[Link, ...]] = {"iam": (STSAssumeRoleAllowMatchLink,)}


def own_nodes(name: str) -> list[CartographyNodeSchema]:
    made = [schema() for schema in own_tables(name)]
    return [each for each in made if isinstance(each, CartographyNodeSchema)]


# ---- the registry ------------------------------------------------------------------------------------------------


def test_modules_have_stocks_names_and_stand_behind_those_they_must_not_overtake() -> None:
    assert set(modules()) <= set(stock())
    assert all(name == each.name for name, each in modules().items())
    order = list(modules())
    for name, each in modules().items():
        for earlier in each.after:
            if earlier in modules():
                assert order.index(earlier) < order.index(name), f"{name} stands before {earlier}"


def test_the_account_is_first_and_nobody_overtakes_it() -> None:
    assert next(iter(modules())) == ACCOUNT_MODULE
    assert modules()[ACCOUNT_MODULE].after == ()
    assert [name for name, each in modules().items() if ACCOUNT_MODULE not in each.after] == [ACCOUNT_MODULE]
    assert all(len(set(each.after)) == len(each.after) for each in modules().values())


def test_a_name_that_is_wrong_gets_the_nearest_ones() -> None:
    with pytest.raises(UnknownModule, match=r"'ec2:instances'.*ec2:instance"):
        module("ec2:instances")


def test_listing_modules_loads_neither_boto3_nor_cartographys_intel_nor_ray() -> None:
    code = (
        "import sys; from actors.modules import modules; assert len(modules()) > 5\n"
        "heavy = ('boto3', 'botocore', 'cartography.intel', 'ray', 'confluent_kafka', 'ingestion')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- tables and transforms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_table_resolves_and_its_constants_can_be_made(name: str) -> None:
    for table in modules()[name].tables:
        resolve = schemas.matchlink_schema if schemas.is_matchlink(table.path) else schemas.node_schema
        assert type(resolve(table.path)) is table.schema
        row = {field: f"a {field}" for field in table.by.values()}
        ((constants, _),) = table.loads([row], PLACE, TAG)
        assert tuple(sorted(constants)) == schemas.constants(table.path)
        known = {"AWS_ID": "111111111111", "Region": "eu-west-1", "lastupdated": TAG}
        known |= {"_sub_resource_label": "AWSAccount", "_sub_resource_id": "111111111111"}
        known |= {**table.extra, **{constant: row[field] for constant, field in table.by.items()}}
        assert constants.items() <= known.items()
        given = {*table.extra, *table.by}
        assert given <= set(constants), f"{table.schema.__name__} takes no {given - set(constants)}"


def test_a_constant_that_no_load_has_is_an_error_and_not_a_null() -> None:
    with pytest.raises(KeyError, match="ORG_ID"):
        Table(AWSOrganizationRootSchema).constants(PLACE, TAG)
    assert Table(AWSAccountSchema, extra={"inscope": True}).constants(PLACE, TAG) == {
        "inscope": True,
        "lastupdated": TAG,
    }


@pytest.mark.parametrize("name", NAMES)
def test_tables_and_derived_links_are_stocks_in_stocks_order(name: str) -> None:
    derived = modules()[name].derive
    others = (*derived, *ELSEWHERE.get(name, ()))
    assert own_tables(name) == [schema for schema in stock()[name].loads if schema not in others]
    assert list(derived) == [schema for schema in stock()[name].loads if schema in derived]


def test_all_transforms_are_in_this_release_and_one_that_is_not_ends_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load_transforms()
    monkeypatch.setattr(transforms, "_all", [])
    Transform("aws.ec2.vpc:transform_nothing")
    with pytest.raises(AttributeError, match="transform_nothing"):
        load_transforms()


# ---- calls and permissions ---------------------------------------------------------------------------------------


SESSION = botocore.session.get_session()


def api_name(call: Call) -> str:
    """`DescribeVpcs` for `describe_vpcs`."""
    names = SESSION.get_service_model(call.service).operation_names
    return next(name for name in names if xform_name(name) == call.operation)


# Calls whose permission has another name: the Service Authorization Reference of S3.
PERMISSIONS = {
    "s3:ListBuckets": "s3:ListAllMyBuckets",
    "s3:HeadBucket": "s3:ListBucket",
    "s3:GetBucketEncryption": "s3:GetEncryptionConfiguration",
    "s3:GetPublicAccessBlock": "s3:GetBucketPublicAccessBlock",
    "s3:GetBucketNotificationConfiguration": "s3:GetBucketNotification",
}


def calls_of(name: str) -> list[Call]:
    """Those that its file declares: what a module may ask AWS for."""
    fetch = modules()[name].fetch
    if isinstance(fetch, Call):
        return [fetch]
    return [each for each in vars(sys.modules[fetch.__module__]).values() if isinstance(each, Call)]


CALLS = [(name, call) for name in NAMES for call in calls_of(name)]


@pytest.mark.parametrize("name", NAMES)
def test_a_module_names_the_permissions_that_its_calls_need(name: str) -> None:
    each = modules()[name]
    asked = {f"{SESSION.get_service_model(call.service).signing_name}:{api_name(call)}" for call in calls_of(name)}
    needed = {PERMISSIONS.get(each, each) for each in asked}
    if each.regional:
        needed.add("ec2:DescribeRegions")
    assert needed <= set(each.permissions)


@pytest.mark.parametrize(("name", "call"), CALLS, ids=[f"{name}-{call.operation}" for name, call in CALLS])
def test_what_aws_gives_in_pages_is_asked_for_page_by_page(name: str, call: Call) -> None:
    answer = SESSION.get_service_model(call.service).operation_model(api_name(call)).output_shape.members
    if call.result_key is not None:
        assert call.result_key in answer
    try:
        paging = SESSION.get_paginator_model(call.service).get_paginator(api_name(call))
    except ValueError:  # botocore knows of no pages
        paging = None
    assert (call.page_size is not None) == (paging is not None)
    if paging is not None:  # what has several kinds of items in a page is given page by page
        several = isinstance(paging["result_key"], list) and call.result_key is None
        assert several or call.result_key in (paging["result_key"], paging["result_key"][0])


# ---- order -------------------------------------------------------------------------------------------------------


def test_of_two_modules_that_write_the_same_property_the_later_names_the_earlier() -> None:
    properties: dict[str, dict[str, set[str]]] = {}  # module → label of the node → properties
    for name in modules():
        for schema in own_nodes(name):
            for label in labels(schema):  # a node is found by one label and may have been made under another
                properties.setdefault(name, {}).setdefault(label, set()).update(asdict(schema.properties))
    merged = {name: {each.label for each in own_nodes(name)} for name in modules()}
    lacking = []
    for earlier, later in combinations([name for name in stock() if name in modules()], 2):
        common = sorted(
            f"{label}.{each}"
            for label in merged[earlier] | merged[later]
            for each in properties[earlier].get(label, set()) & properties[later].get(label, set())
        )
        if common and earlier not in modules()[later].after:
            lacking.append(f"{later} lacks {earlier} in `after`: both write {', '.join(common)}")
    assert not lacking, "\n".join(lacking)


# ---- cleanup -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_module_cleans_up_what_stocks_does_in_the_same_order(name: str) -> None:
    each = modules()[name]  # a relationship that is derived is cleaned up when that is done
    others = (*each.derive, *ELSEWHERE.get(name, ()))
    assert [cleanup.schema for cleanup in each.cleanup] == [
        schema for schema in stock()[name].cleanups if schema not in others
    ]


def test_a_cleanup_names_who_refreshes_what_it_deletes_and_its_module_does_not_write() -> None:
    lacking = []
    for name, each in modules().items():
        own = written(own_tables(name))
        for cleanup in each.cleanup:
            refreshed = set().union(*(written(stock()[other].loads) for other in cleanup.refreshed_by))
            for pattern in set(deleted(cleanup.schema)) - own - refreshed:
                start, relationship, end = pattern
                what = f"(:{start})-[:{relationship}]->(:{end})" if relationship else f"(:{end})"
                who = [other for other, found in stock().items() if pattern in written(found.loads)]
                lacking.append(
                    f"{name}: Cleanup({cleanup.schema.__name__}) deletes {what}, which {name} does not write; "
                    f"`refreshed_by` lacks one of {who}"
                )
    assert not lacking, "\n".join(lacking)


def test_a_cleanup_relies_on_others_only_where_its_own_module_does_not_write() -> None:
    """A name too many in `refreshed_by` keeps stale data in the graph as long as that module fails."""
    needless = []
    for name, each in modules().items():
        own = written(own_tables(name))
        for cleanup in each.cleanup:
            foreign = set(deleted(cleanup.schema)) - own
            needless += [
                f"{name}: Cleanup({cleanup.schema.__name__}) does not need {other}"
                for other in cleanup.refreshed_by
                if not foreign & written(stock()[other].loads)
            ]
    assert not needless, "\n".join(needless)


@pytest.mark.parametrize("name", NAMES)
def test_a_cleanup_deletes_nothing_of_other_accounts(name: str) -> None:
    """Another account's job may have failed, or not be of this run at all: a failed job never deletes."""
    beyond = [
        f"{name}: Cleanup({cleanup.schema.__name__}) is not bound to the account: {' '.join(query.split())}"
        for cleanup in modules()[name].cleanup
        for query in cleanups(schemas.path_of(cleanup.schema()), cleanup.of).queries
        if "$AWS_ID" not in query and "$_sub_resource_id" not in query
    ]
    assert not beyond, "\n".join(beyond)


# ---- shape -------------------------------------------------------------------------------------------------------

BEGAN = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
GROUPS = [{"GroupId": f"sg-{number}", "GroupName": f"group-{number}"} for number in range(4)]


def _tags(chance: Random, **more: str) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in ({"team": chance.choice("abc")} | more).items()]


def _interface(chance: Random, number: int) -> Item:
    """As in an instance, which tells less of it than DescribeNetworkInterfaces."""
    return {
        "NetworkInterfaceId": f"eni-{number}",
        "Status": chance.choice(("in-use", "available")),
        "MacAddress": f"02:00:00:00:00:{number:02x}",
        "Description": chance.choice(("", "primary", "ELB app/front/50dc6c495c0c9188", "ELB classic")),
        "PrivateDnsName": f"ip-10-0-0-{number}.ec2.internal",
        "PrivateIpAddress": f"10.0.0.{number}",
        "SubnetId": f"subnet-{number % 3}",
        "Groups": chance.sample(GROUPS, k=chance.choice((0, 1, 2))),
        "Ipv6Addresses": [{"Ipv6Address": f"2600::{number}:{index}"} for index in range(chance.choice((0, 1, 2)))],
        "Attachment": {"DeviceIndex": number % 2, "AttachTime": BEGAN},
    }


def _instance(chance: Random, number: int) -> Item:
    ended = number % 7 == 3  # AWS tells little of an instance that is terminated
    found: Item = {
        "InstanceId": f"i-{number}",
        "ImageId": f"ami-{number % 2}",
        "InstanceType": "t3.micro",
        "LaunchTime": BEGAN + timedelta(hours=number),
        "Monitoring": {"State": "disabled"},
        "Placement": {"AvailabilityZone": "eu-west-1a", "Tenancy": "default"},
        "State": {"Code": 48, "Name": "terminated"} if ended else {"Code": 16, "Name": "running"},
        "EbsOptimized": bool(number % 2),
        "BlockDeviceMappings": [],
        "NetworkInterfaces": [],
        "SecurityGroups": [],
        "Tags": _tags(chance, **({"eks:cluster-name": "blue"} if number % 5 == 0 else {})),
    }
    if ended:
        return found
    return found | {
        "SubnetId": f"subnet-{number % 3}",
        "KeyName": "operations",
        "PrivateIpAddress": f"10.0.1.{number}",
        "IamInstanceProfile": {"Arn": "arn:aws:iam::111111111111:instance-profile/node", "Id": "AIPA"},
        "MetadataOptions": {"HttpTokens": chance.choice(("required", "optional")), "HttpEndpoint": "enabled"},
        "SecurityGroups": chance.sample(GROUPS, k=2),
        "NetworkInterfaces": [_interface(chance, number * 2 + index) for index in range(chance.choice((1, 2)))],
        "BlockDeviceMappings": [
            {"DeviceName": "/dev/xvda", "Ebs": {"VolumeId": f"vol-{number}", "DeleteOnTermination": True}},
        ],
    }


def _reservations(chance: Random, count: int) -> list[Item]:
    numbers = iter(range(10 * count))
    return [
        {
            "ReservationId": f"r-{number}",
            "OwnerId": "111111111111",
            "Instances": [_instance(chance, next(numbers)) for _ in range(chance.choice((1, 2, 3)))],
        }
        for number in range(count)
    ]


def _network_interfaces(chance: Random, count: int) -> list[Item]:
    return [
        _interface(chance, number)
        | {
            "InterfaceType": "interface",
            "RequesterManaged": False,
            "SourceDestCheck": True,
            "Attachment": {"AttachTime": BEGAN, "DeviceIndex": 0, "InstanceId": f"i-{number}"} if number % 2 else {},
            "PrivateIpAddresses": [
                {"Primary": index == 0, "PrivateIpAddress": f"10.0.{index}.{number}"}
                | ({"Association": {"IpOwnerId": "amazon", "PublicIp": f"3.0.0.{number}"}} if index == 0 else {})
                for index in range(2)
            ],
        }
        for number in range(count)
    ]


def _security_groups(chance: Random, count: int) -> list[Item]:
    def rule(port: int) -> Item:
        return {
            "IpProtocol": "tcp",
            "FromPort": port,
            "ToPort": port,
            "IpRanges": [{"CidrIp": cidr} for cidr in chance.sample(("0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16"), k=2)],
            "Ipv6Ranges": [{"CidrIpv6": "::/0"}],
            "PrefixListIds": [],
            "UserIdGroupPairs": [{"GroupId": f"sg-{chance.randrange(count)}", "UserId": "111111111111"}],
        }

    return [
        {
            "GroupId": f"sg-{number}",
            "GroupName": f"group-{number}",
            "Description": "of a test",
            "VpcId": f"vpc-{number % 2}",
            "IpPermissions": [rule(port) for port in chance.sample((22, 80, 443), k=number % 3)],
            "IpPermissionsEgress": [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}],
        }
        for number in range(count)
    ]


def _subnets(chance: Random, count: int) -> list[Item]:
    return [
        {
            "SubnetId": f"subnet-{number}",
            "SubnetArn": f"arn:aws:ec2:eu-west-1:111111111111:subnet/subnet-{number}",
            "VpcId": f"vpc-{number % 2}",
            "CidrBlock": f"10.0.{number}.0/24",
            "AvailableIpAddressCount": chance.randrange(250),
            "DefaultForAz": False,
            "MapPublicIpOnLaunch": bool(number % 2),
            "Ipv6CidrBlockAssociationSet": [],
            "Tags": _tags(chance),
        }
        for number in range(count)
    ]


def _volumes(chance: Random, count: int) -> list[Item]:
    return [
        {
            "VolumeId": f"vol-{number}",
            "AvailabilityZone": "eu-west-1a",
            "CreateTime": BEGAN + timedelta(minutes=number),
            "Encrypted": True,
            "KmsKeyId": "arn:aws:kms:eu-west-1:111111111111:key/1",
            "Size": chance.choice((8, 100)),
            "State": "in-use",
            "VolumeType": "io2",
            "Attachments": [  # of a multi-attach volume there are several
                {"InstanceId": f"i-{number + index}", "State": chance.choice(("attached", "detaching"))}
                for index in range(number % 3)
            ],
        }
        for number in range(count)
    ]


def _vpcs(chance: Random, count: int) -> list[Item]:
    state = {"State": "associated"}
    return [
        {
            "VpcId": f"vpc-{number}",
            "CidrBlock": f"10.{number}.0.0/16",
            "DhcpOptionsId": "dopt-1",
            "InstanceTenancy": "default",
            "IsDefault": number == 0,
            "State": chance.choice(("available", "pending")),
            "CidrBlockAssociationSet": [
                {
                    "AssociationId": f"vpc-cidr-{number}-{index}",
                    "CidrBlock": f"{index}.0.0.0/16",
                    "CidrBlockState": state,
                }
                for index in range(1 + number % 2)
            ],
            "Ipv6CidrBlockAssociationSet": [
                {"AssociationId": "vpc-cidr-6", "Ipv6CidrBlock": f"2600:{number}::/56", "Ipv6CidrBlockState": state}
            ],
        }
        for number in range(count)
    ]


ITEMS: dict[str, Callable[[Random, int], list[Item]]] = {
    "account": lambda *_: [{"Account": "111111111111", "Arn": "arn:aws:sts::111111111111:assumed-role/x/y"}],
    "ec2:instance": _reservations,
    "ec2:network_interface": _network_interfaces,
    "ec2:security_group": _security_groups,
    "ec2:subnet": _subnets,
    "ec2:volumes": _volumes,
    "ec2:vpc": _vpcs,
}


def rows(name: str, items: list[Item]) -> dict[Schema, set[str]]:
    """Each different row, as text."""
    return {schema: {_text(row) for row in found} for schema, found in modules()[name].shape(items, PLACE).items()}


def _text(row: Row) -> str:
    return json.dumps(dict(row), sort_keys=True, default=repr)


@pytest.mark.parametrize("name", [name for name in NAMES if isinstance(modules()[name].fetch, Call)])
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1_000), cuts=st.lists(st.integers(0, 12), max_size=4))
def test_pages_give_the_rows_of_the_whole_region(name: str, seed: int, cuts: list[int]) -> None:
    assert name in ITEMS, f"give this test items of {name}, as botocore returns them"
    items = ITEMS[name](Random(seed), 12)
    whole = rows(name, items)
    assert list(whole) == own_tables(name), "a schema without a table is never sent"
    assert all(whole.values()), "items that give every table a row"
    paged: dict[Schema, set[str]] = {schema: set() for schema in whole}
    for start, end in pairwise(sorted({0, *(cut for cut in cuts if cut < len(items)), len(items)})):
        for schema, found in rows(name, items[start:end]).items():
            paged[schema] |= found
    assert paged == whole


def test_a_group_that_names_many_others_gives_the_same_row_in_every_process() -> None:
    pairs = [{"GroupId": f"sg-{number:017x}"} for number in (9, 3, 7, 1)]
    items = [{"GroupId": "sg-0", "IpPermissions": [{"UserIdGroupPairs": pairs}]}]
    (group,) = next(iter(modules()["ec2:security_group"].shape(items, PLACE).values()))
    assert group["SOURCE_GROUP_IDS"] == sorted(pair["GroupId"] for pair in pairs)


def test_credentials_of_another_account_are_refused_by_both_names() -> None:
    check_account("111111111111", "111111111111")
    identity = {"Account": "222222222222", "Arn": "arn:aws:sts::222222222222:assumed-role/x/y"}
    with pytest.raises(CloudDenied, match=r"222222222222, not 111111111111.*--role-name"):
        modules()[ACCOUNT_MODULE].shape([identity], PLACE)


def test_the_root_principal_is_of_the_accounts_own_partition() -> None:
    identity = {"Account": "111111111111", "Arn": "arn:aws-us-gov:sts::111111111111:assumed-role/x/y"}
    _, (principal,) = modules()[ACCOUNT_MODULE].shape([identity], PLACE).values()
    assert principal == {"arn": "arn:aws-us-gov:iam::111111111111:root"}
