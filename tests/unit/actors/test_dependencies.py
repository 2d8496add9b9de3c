"""What Cartography's modules do to one graph, read from their source, is what the table of needs allows for.

A new release that reads, cleans up or overwrites more of what others write fails here; so does a need without a cause.
"""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from functools import cache
from graphlib import TopologicalSorter
from importlib import resources
from string import Template
from types import FunctionType
from typing import Any

import pytest
import yaml
from cartography.graph.analysis import AnalysisJob
from cartography.graph.cleanupbuilder import build_cleanup_queries
from cartography.models.aws_tagging import AWS_TAGGABLE_RESOURCES
from cartography.models.core.nodes import CartographyNodeSchema
from cartography.models.core.relationships import CartographyRelSchema, LinkDirection
from support.reading import Reader

from actors.wrapped.dependencies import ACCOUNT_ANALYSIS, NEEDS, RUN_ANALYSIS
from actors.wrapped.modules import aws_modules

Table = Mapping[str, tuple[str, ...]]
Pattern = tuple[str, str, str]  # (from label, relationship, to label), or ("", "", label) for nodes
Cause = tuple[str, str, str]  # (what waits, what it needs, why)

LAST = ("permission_relationships", "resourcegroupstaggingapi")  # stock skips them in the loop, then runs them so
ORDER = (*(name for name in NEEDS if name not in LAST), *LAST)
ACCOUNT = "AWSAccount"  # made before all modules; where they read one, they read its id

COMMENTS: Table = {  # what the comments in `resources.py` add to `module_dependencies`
    "secretsmanager": ("kms",),
    "ssm": ("kms",),
    "ec2:load_balancer": ("ec2:security_group",),
    "ec2:load_balancer_v2": ("ec2:security_group",),
    "ec2:network_interface": ("ec2:security_group",),
    "elasticsearch": ("route53",),
    "permission_relationships": ("cloudformation",),
    "guardduty": ("eks",),
    "ec2:load_balancer_v2:expose": ("ecs",),
}
FOR_ANOTHER: Table = {
    "iaminstanceprofiles": ("iam",),  # ec2:instance reads the relationship between the two
    "ec2:autoscalinggroup": ("ec2:images",),  # which reads the launch configurations of the run before, as in stock
}

# By one of these a relationship finds the one node that it means. A bucket's name is its own in all of AWS.
UNIQUE = {"id", "arn", "digest", "groupid", "instanceid", "roleid", "subnetid", "tgw_id", "userid", "vpcid"}
UNIQUE_NAMES = {("AWSS3Bucket", "name")}

LATER = {  # (module, label): stock reads or links what a later module left in the run before
    ("s3", "AWSSNSTopic"),
    ("ec2:instance", "AWSEKSCluster"),
    ("ec2:images", "AWSLaunchConfiguration"),
    ("ec2:load_balancer", "LoadBalancerV2"),  # only to relabel what old releases left
    ("ec2:load_balancer", "AWSLoadBalancerV2"),
    ("ec2:load_balancer_v2", "AWSLambda"),
    ("route53", "AWSESDomain"),
}
HARMLESS = {  # (module, label, writer): it reads what this writer does not write
    ("ec2:snapshots", "AWSEBSVolume", "ec2:instance"): "volumes that have a region and a snapshot",
    ("elasticsearch", "Ip", "ec2:instance"): "IPv4 addresses",
    ("codebuild", "AWSECRImage", "ecr:image_layers"): "images of a repository, which are ecr's",
    ("permission_relationships", "AWSEC2Instance", "ec2:autoscalinggroup"): "instances that have an ARN",
    ("ec2:load_balancer_v2:expose", "AWSNetworkInterface", "ec2:instance"): "interfaces that have private addresses",
    ("ec2:load_balancer_v2:expose", "AWSEC2Subnet", "ec2:instance"): "subnets that have a vpc_id",
    ("ec2:load_balancer_v2:expose", "AWSEC2Subnet", "ec2:vpc_endpoint"): "subnets that have a vpc_id",
    ("ec2:load_balancer_v2:expose", "AWSEC2Subnet", "ec2:autoscalinggroup"): "subnets that have a vpc_id",
}

DEPS = {
    "AWS_EC2_IAM_INSTANCE_PROFILE_DEPS": "analysis:instance_profile",
    "AWS_LAMBDA_ECR_DEPS": "analysis:lambda_ecr",
    "AWS_LB_NACL_DIRECT_DEPS": "analysis:lb_nacl",
    "AWS_EC2_ASSET_EXPOSURE_DEPS": "analysis:exposure",
    "AWS_EC2_ASSET_EXPOSURE_AUTO_SCALING_GROUP_DEPS": "analysis:exposure_asg",
    "AWS_ECS_ASSET_EXPOSURE_DEPS": "analysis:ecs_exposure",
    "AWS_LB_CONTAINER_EXPOSURE_DEPS": "analysis:lb_containers",
}


class Stock(Reader):
    """What a module of stock's says to the graph in its functions, their callees included."""

    packages = ("cartography.intel.", "cartography.client.")

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.loads: set[type[CartographyNodeSchema]] = set()
        self.cleanups: set[type[CartographyNodeSchema]] = set()
        self.links: set[type[CartographyRelSchema]] = set()
        self.queries: set[str] = set()
        self._cleaning = False
        self.follow(function)

    def _meet(self, found: Any) -> None:
        if isinstance(found, FunctionType):
            self.follow(found)
        elif isinstance(found, type) and issubclass(found, CartographyNodeSchema):
            (self.cleanups if self._cleaning else self.loads).add(found)
        elif isinstance(found, type) and issubclass(found, CartographyRelSchema):
            self.links.add(found)
        elif isinstance(found, AnalysisJob):
            self.queries |= {text for each in found.statements if (text := each.match or each.query)}
        elif isinstance(found, str | Template):
            text = found if isinstance(found, str) else found.template
            if re.search(r"\b(MATCH|MERGE)\b", text):
                self.queries.add(text)

    def visit_Name(self, node: ast.Name) -> None:
        self._meet(self.named(node))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._meet(self.named(node))
        self.visit(node.value)

    def visit_Constant(self, node: ast.Constant) -> None:
        self._meet(node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value:
            self.visit(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        cleaning = self._cleaning
        self._cleaning = cleaning or ast.unparse(node.func) == "GraphJob.from_node_schema"
        self.generic_visit(node)
        self._cleaning = cleaning


@cache
def stock() -> Mapping[str, Stock]:
    from cartography.intel.aws.resources import RESOURCE_FUNCTIONS

    return {name: Stock(function) for name, function in RESOURCE_FUNCTIONS.items()}


@cache
def labels(schema: type[CartographyNodeSchema]) -> frozenset[str]:
    extra = schema().extra_node_labels
    return frozenset((schema().label, *(label.label for label in (extra.labels if extra else ()))))


def queried(query: str) -> set[str]:
    """The labels of nodes in Cypher: what follows a colon, but for relationships and maps."""
    bare = re.sub(r"\[[^\]]*\]|\{\s*\w+\s*:[^{}]*\}", "", query)
    return set(re.findall(r":(\w+)", bare))


def relationships(name: str) -> Iterator[tuple[type[CartographyNodeSchema], CartographyRelSchema]]:
    """Those of node schemas that the module loads, but for the one to what a node belongs to."""
    for schema in stock()[name].loads:
        others = schema().other_relationships
        yield from ((schema, each) for each in (others.rels if others else ()))


def is_exact(relationship: CartographyRelSchema) -> bool:
    label, matcher = relationship.target_node_label, vars(relationship.target_node_matcher)
    loose = any(value.ignore_case or value.fuzzy_and_ignore_case for value in matcher.values())
    return not loose and any(key in UNIQUE or (label, key) in UNIQUE_NAMES for key in matcher)


@cache
def read(name: str) -> frozenset[str]:
    """The labels that the module's queries and matchlinks name, or where its relationships may find several nodes."""
    found = set().union(*(queried(query) for query in stock()[name].queries))
    found |= {each.target_node_label for _, each in relationships(name) if not is_exact(each)}
    for link in (each() for each in stock()[name].links):
        found |= {str(link.source_node_label), link.target_node_label}
    if name == "resourcegroupstaggingapi":  # `$resource_label`
        found |= {resource.label for resource in AWS_TAGGABLE_RESOURCES}
    if name == "permission_relationships":  # `$node_label`
        text = resources.files("cartography").joinpath("data/permission_relationships.yaml").read_text()
        for rule in yaml.safe_load(text):
            found.add(rule["target_label"])
            if "target_precondition" in rule:
                found.add(rule["target_precondition"]["related_label"])
    return frozenset(found - {ACCOUNT} - set().union(*map(labels, stock()[name].loads)))


@cache
def written(name: str) -> frozenset[Pattern]:
    found: set[Pattern] = set()
    for label in set().union(*map(labels, stock()[name].loads)):
        found.add(("", "", label))
    for schema, each in relationships(name):
        for label in labels(schema):
            ends = (label, each.target_node_label)
            start, end = ends if each.direction is LinkDirection.OUTWARD else ends[::-1]
            found.add((start, each.rel_label, end))
    return frozenset(found)


@cache
def deleted(name: str) -> frozenset[Pattern]:
    """What the cleanups of the module delete, but for relationships to what its nodes belong to."""
    found: set[Pattern] = set()
    for schema in stock()[name].cleanups:
        for query in build_cleanup_queries(schema()):
            variable = re.findall(r"\bDELETE (\w);", query)[-1]
            label = re.findall(r"\(n:(\w+)\)", query)[0]
            if variable == "n":
                found.add(("", "", label))
            elif variable == "r":
                ((back, relationship, other),) = re.findall(r"(<?)-\[r:(\w+)\]->?\(:(\w+)", query)
                found.add((other, relationship, label) if back else (label, relationship, other))
    return frozenset(found)


@cache
def properties(name: str) -> Mapping[str, frozenset[str]]:
    """Label → properties that the module writes to nodes with that label, but for the id under whatever name."""
    found: dict[str, set[str]] = {}
    for schema in stock()[name].loads:
        refs = {each.name: getattr(schema().properties, each.name).name for each in fields(schema().properties)}
        names = {each for each, ref in refs.items() if ref not in (refs["id"], "lastupdated")}
        for label in labels(schema):
            found.setdefault(label, set()).update(names)
    return {label: frozenset(names) for label, names in found.items()}


def reads() -> Iterator[Cause]:
    for name in ORDER:
        for label in sorted(read(name)):
            for writer in earlier(name):
                if ("", "", label) in written(writer) and (name, label, writer) not in HARMLESS:
                    yield name, writer, f"reads or links {label}"


def cleans() -> Iterator[Cause]:
    for name in ORDER:
        for other in earlier(name):
            for pattern in (deleted(name) & written(other)) | (deleted(other) & written(name)):
                yield name, other, f"one cleans up what the other writes: {' '.join(pattern)}"


def overwrites() -> Iterator[Cause]:
    merged = {name: {schema().label for schema in stock()[name].loads} for name in ORDER}
    for name in ORDER:
        for other in earlier(name):
            for label in (
                merged[name] | merged[other]
            ):  # a node is found by one label and may have been made under another
                if common := properties(name).get(label, frozenset()) & properties(other).get(label, frozenset()):
                    yield name, other, f"both write {', '.join(sorted(common))} of {label}"


def declared() -> Iterator[Cause]:
    for table in (module_dependencies(), COMMENTS, FOR_ANOTHER):
        yield from ((name, other, "declared") for name, others in table.items() for other in others)


def earlier(name: str) -> tuple[str, ...]:
    return ORDER[: ORDER.index(name)]


def module_dependencies() -> Table:
    """A local variable of stock's `_sync_one_account`."""
    for node in ast.walk(function_of_stock("_sync_one_account")):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "module_dependencies":
            return {name: tuple(others) for name, others in ast.literal_eval(node.value).items()}
    raise AssertionError("Cartography declares its dependencies elsewhere now.")


def function_of_stock(name: str) -> ast.Module:
    from cartography.intel import aws

    return ast.parse(inspect.getsource(inspect.unwrap(getattr(aws, name))))


def lacking(causes: Iterable[Cause]) -> list[str]:
    found = list(causes)
    assert len(found) > 10, "Stock's source is written differently now: nothing of it was understood."
    return sorted({f"{name} lacks {other}: {why}" for name, other, why in found if other not in NEEDS[name]})


# ---- the table itself --------------------------------------------------------------------------------------------


def test_the_table_has_exactly_stocks_modules_in_stocks_order() -> None:
    assert list(NEEDS) == list(stock())


@pytest.mark.parametrize("name", NEEDS)
def test_every_need_is_known_listed_once_and_stock_runs_it_earlier(name: str) -> None:
    assert set(NEEDS[name]) <= set(earlier(name))
    assert len(set(NEEDS[name])) == len(NEEDS[name])


def test_nothing_waits_for_itself() -> None:
    TopologicalSorter({**NEEDS, **ACCOUNT_ANALYSIS, **RUN_ANALYSIS}).prepare()


def test_nothing_waits_for_what_waits_for_everything() -> None:
    known = aws_modules()
    for name, needs in NEEDS.items():
        assert known[name].late or not any(known[other].late for other in needs), name


def test_the_table_loads_nothing_of_cartography() -> None:
    code = "import sys, actors.wrapped.dependencies; print([name for name in sys.modules if 'cartography' in name])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- against stock's source --------------------------------------------------------------------------------------


def test_what_cartographys_authors_declare_is_needed() -> None:
    assert not lacking(declared())


def test_what_a_module_reads_or_links_has_landed() -> None:
    assert not lacking(reads())


def test_what_only_later_modules_write_is_read_where_it_is_known_to_be() -> None:
    everybody = {(label, name) for name in ORDER for _, relationship, label in written(name) if not relationship}
    found = {
        (name, label)
        for name in ORDER
        for label in read(name)
        if (writers := {writer for each, writer in everybody if each == label} - {name})
        and not writers & set(earlier(name))
    }
    assert found == LATER


def test_of_two_modules_one_of_which_deletes_what_the_other_writes_the_later_needs_the_earlier() -> None:
    assert not lacking(cleans())


def test_of_two_modules_that_write_the_same_property_the_later_needs_the_earlier() -> None:
    assert not lacking(overwrites())


def test_no_need_is_without_cause() -> None:
    causes = {(name, other) for each in (declared(), reads(), cleans(), overwrites()) for name, other, _ in each}
    assert {(name, other) for name, others in NEEDS.items() for other in others} <= causes


def test_no_exception_is_without_cause() -> None:
    for name, label, writer in HARMLESS:
        assert label in read(name)
        assert ("", "", label) in written(writer)
        assert writer not in NEEDS[name]


# ---- analysis ----------------------------------------------------------------------------------------------------


def test_analysis_needs_what_stock_wants_to_have_been_asked_for() -> None:
    from cartography.intel import aws

    assert {name for name in vars(aws) if name.endswith("_DEPS")} == set(DEPS)
    modules_of = {
        name: {other for other in needs if not other.startswith("analysis:")}
        for name, needs in {**ACCOUNT_ANALYSIS, **RUN_ANALYSIS}.items()
    }
    assert {analysis: getattr(aws, name) for name, analysis in DEPS.items()}.items() <= modules_of.items()
    literals = [
        ast.literal_eval(node)
        for node in ast.walk(function_of_stock("_perform_aws_analysis"))
        if isinstance(node, ast.Set)
    ]
    assert len(literals) == 3
    assert all(needs in modules_of.values() for needs in literals)


def test_analysis_needs_only_modules_and_analysis_that_are_known() -> None:
    known = {*NEEDS, *ACCOUNT_ANALYSIS, *RUN_ANALYSIS}
    assert {need for needs in (*ACCOUNT_ANALYSIS.values(), *RUN_ANALYSIS.values()) for need in needs} <= known


def test_what_is_exposed_follows_from_load_balancers_and_instances_that_are() -> None:
    for name in ("analysis:exposure_asg", "analysis:ecs_exposure", "analysis:lb_containers"):
        assert "analysis:exposure" in RUN_ANALYSIS[name]
