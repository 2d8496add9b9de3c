"""A native module tells of an account what stock's module tells: the same rows, for the same schemas.

Stock's own sync runs against the simulated AWS with its loads caught; the native module's extraction runs beside it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from unittest.mock import MagicMock

import boto3
import pytest
from botocore.client import BaseClient
from botocore.exceptions import ClientError
from cartography.client.core import tx
from cartography.graph.job import GraphJob
from support.extracting import extract, lead_to

from actors.aws.clients import AwsCloud
from actors.extraction import Extracted
from actors.modules import modules
from cartoray import schemas
from cartoray.jobs import Account
from cartoray.planning import ACCOUNT_MODULE
from cartoray.settings import AwsSettings
from cartoray.stack.simulated_aws import SimulatedAws
from cartoray.wire import RowsHeader, decode_rows

pytestmark = pytest.mark.stack

TAG = 1_700_000_000
REGIONS = ("us-east-1", "eu-west-1")

# What the simulated AWS has nothing of: (module, schema).
NOT_SIMULATED = {
    ("eks", "EKSAccessEntrySchema"),
    ("iam", "AWSPrincipalServiceAccessSchema"),
}

# Fields whose lists stock makes from sets, so that their order says nothing.
UNORDERED = {"SOURCE_GROUP_IDS", "AnonymousActions", "principal_arns", "trusted_aws_principals"}

# Fields in which the simulated AWS answers the present time.
MOVING = {"LatestRestorableTime"}

# What stock goes on without when it is denied: (module, action).
DONE_WITHOUT = [
    ("iam", "iam:ListMFADevices"),
    ("iam", "iam:ListSAMLProviders"),
    ("iam", "iam:ListServerCertificates"),
    ("s3", "s3:GetBucketVersioning"),
    ("rds", "rds:DescribeDBClusters"),
    ("rds", "rds:DescribeDBInstances"),
    ("rds", "rds:DescribeDBSnapshotAttributes"),
    ("rds", "rds:DescribeEventSubscriptions"),
    ("lambda_function", "lambda:GetPolicy"),
    ("lambda_function", "lambda:GetFunction"),
    ("lambda_function", "lambda:ListAliases"),
    ("lambda_function", "lambda:ListEventSourceMappings"),
    ("ec2:load_balancer_v2", "elasticloadbalancing:DescribeListeners"),
    ("ec2:load_balancer_v2", "elasticloadbalancing:DescribeTargetHealth"),
]

Load = tuple[str, Sequence[Mapping[str, Any]], Mapping[str, Any]]  # schema's path, rows, constants
Told = dict[str, set[str]]  # schema's path → each different row with its constants, as text


def told(loads: Sequence[Load]) -> Told:
    """What a schema reads of its rows and constants. A row that is told twice counts once."""
    found: Told = {}
    for path, rows, constants in loads:
        shared = {name: constants[name] for name in schemas.constants(path)}
        for row in rows:
            values = {name: _plain(name, row.get(name)) for name in schemas.fields(path)}
            found.setdefault(path, set()).add(json.dumps([values, shared], sort_keys=True, default=_text))
    return found


def _plain(name: str, value: Any) -> Any:
    if name in MOVING:
        return value is None
    return sorted(value) if name in UNORDERED and value else value


def _text(value: Any) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else repr(value)


def compare(loads: Sequence[Load], published: Sequence[Load]) -> None:
    stock, own = told(loads), told(published)
    for path in sorted(stock.keys() | own.keys()):
        missing, added = stock.get(path, set()) - own.get(path, set()), own.get(path, set()) - stock.get(path, set())
        assert not missing and not added, f"{path}\nonly stock:\n{_few(missing)}\nonly cartoray:\n{_few(added)}"


def users(loads: Sequence[Load]) -> list[Mapping[str, Any]]:
    return [row for path, rows, _ in loads if path.endswith(":AWSUserSchema") for row in rows]


def _few(rows: set[str]) -> str:
    return "\n".join(sorted(rows)[:3]) or "nothing"


# ---- both --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Both:
    """Stock's session and cartoray's clients, of one account."""

    aws: SimulatedAws
    account: Account
    session: boto3.Session
    cloud: AwsCloud
    threads: ThreadPoolExecutor

    def sync_stock(self, name: str, regions: Sequence[str], loads: Sequence[Load]) -> None:
        from cartography.intel.aws import organizations
        from cartography.intel.aws.resources import RESOURCE_FUNCTIONS

        graph = MagicMock()  # in which every query finds nothing, but for the users, whose keys stock asks for
        graph.execute_read.side_effect = lambda _, query, **__: users(loads) if "(user:AWSUser)" in query else []
        parameters = {"UPDATE_TAG": TAG, "AWS_ID": self.account.id}
        if name == ACCOUNT_MODULE:
            organizations.sync(graph, {self.account.name: self.account.id}, TAG, parameters)
        else:
            RESOURCE_FUNCTIONS[name](graph, self.session, list(regions), self.account.id, TAG, parameters)

    def extract(self, name: str, regions: Sequence[str]) -> tuple[list[Load], Extracted]:
        """What the module publishes, and how that ended."""
        published: list[Load] = []

        def publish(header: RowsHeader, value: bytes) -> None:
            columns = decode_rows(value)
            rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
            published.append((header.schema, rows, header.constants))

        found = extract(
            name,
            publish,
            account=self.account,
            role_name=self.aws.role_name,
            cloud=self.cloud,
            threads=self.threads,
            update_tag=TAG,
            regions=regions,
        )
        return published, found


@pytest.fixture(scope="module")
def both(simulated_aws: SimulatedAws, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """Clients are slow to make."""
    with pytest.MonkeyPatch.context() as environment, ThreadPoolExecutor(32) as threads:
        lead_to(simulated_aws, environment, tmp_path_factory.mktemp("aws") / "absent")
        account = Account(id=simulated_aws.accounts[-1], name="team-2")  # the one with a server certificate
        role = simulated_aws.role_arn(account.id)
        given = boto3.Session().client("sts").assume_role(RoleArn=role, RoleSessionName="stock")["Credentials"]
        session = boto3.Session(
            given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"], region_name=REGIONS[0]
        )
        yield Both(simulated_aws, account, session, AwsCloud(AwsSettings()), threads)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Load]:
    """What stock's modules load from now on, instead of its landing in a graph; cleanups delete nothing."""
    import cartography.intel.aws.resources  # noqa: F401 - all modules, for the names below

    caught: list[Load] = []

    def catch(_: Any, schema: Any, rows: Sequence[Mapping[str, Any]], *__: Any, **constants: Any) -> None:
        caught.append((schemas.path_of(schema), [dict(row) for row in rows], constants))

    for module in [found for name, found in sys.modules.items() if name.startswith("cartography.intel.aws")]:
        for name, value in list(vars(module).items()):
            if value is tx.load or value is tx.load_matchlinks:
                monkeypatch.setattr(module, name, catch)
    monkeypatch.setattr(GraphJob, "run", lambda *_: None)
    return caught


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_module_tells_what_stocks_does(name: str, both: Both, loads: list[Load]) -> None:
    both.sync_stock(name, REGIONS, loads)
    published, found = both.extract(name, REGIONS)
    assert found.reason == ""
    compare(loads, published)

    paths = {table.path for table in modules()[name].tables}
    empty = {path for path in paths if (name, path.partition(":")[2]) in NOT_SIMULATED}
    assert set(told(loads)) == paths - empty, "of a schema that stock loads nothing for, this test says nothing"


@pytest.mark.parametrize(("name", "action"), DONE_WITHOUT)
def test_what_stock_goes_on_without_is_missing_here_too_and_the_job_is_not_complete(
    name: str, action: str, both: Both, loads: list[Load]
) -> None:
    region = REGIONS[1] if modules()[name].regional else REGIONS[0]
    both.aws.faults(deny=[{"account": both.account.id, "region": region, "action": action}])
    try:
        both.sync_stock(name, [region], loads)
        published, found = both.extract(name, [region])
    finally:
        both.aws.faults(deny=[])
    compare(loads, published)
    assert found.outcome == "partial"
    assert action.partition(":")[2].lower() in found.reason.lower()
    assert action.partition(":")[2] in found.reason


# ---- what moto does not know -------------------------------------------------------------------------------------

PRINCIPALS = [f"arn:aws:iam::111111111111:role/{name}" for name in ("admin", "gone", "denied")]
REFUSED = "The cluster's authentication mode must be set to one of [API, API_AND_CONFIG_MAP] to perform this operation."


@pytest.mark.parametrize(
    ("told_by_aws", "outcome"),
    [
        (("API", PRINCIPALS[:2]), "finished"),
        (("API", PRINCIPALS), "partial"),  # details of one are denied
        (("API_AND_CONFIG_MAP", "AccessDeniedException"), "partial"),
        ((None, PRINCIPALS[:1]), "finished"),
        ((None, "InvalidRequestException"), "finished"),
    ],
)
def test_access_entries_of_eks(
    told_by_aws: tuple[str | None, Sequence[str] | str],
    outcome: str,
    both: Both,
    loads: list[Load],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`told_by_aws`: how the clusters say that they authenticate, and principals, or the error instead."""
    mode, listed = told_by_aws
    ask = BaseClient._make_api_call

    def refuse(code: str, operation: str) -> ClientError:
        return ClientError({"Error": {"Code": code, "Message": REFUSED}}, operation)

    def answer(client: BaseClient, operation: str, asked: Mapping[str, Any]) -> Any:
        if operation == "ListAccessEntries":
            if isinstance(listed, str):
                raise refuse(listed, operation)
            return {"accessEntries": listed}
        if operation == "DescribeAccessEntry":
            principal = asked["principalArn"]
            if principal.endswith(("gone", "denied")):
                gone = principal.endswith("gone")
                raise refuse("ResourceNotFoundException" if gone else "AccessDeniedException", operation)
            entry = {"clusterName": asked["clusterName"], "principalArn": principal, "kubernetesGroups": ["viewers"]}
            return {"accessEntry": entry | {"accessEntryArn": f"{principal}/entry", "type": "STANDARD"}}
        found = ask(client, operation, asked)
        if operation == "DescribeCluster":
            found["cluster"]["accessConfig"] = {"authenticationMode": mode} if mode else {}
        return found

    monkeypatch.setattr(BaseClient, "_make_api_call", answer)
    both.sync_stock("eks", REGIONS, loads)
    published, found = both.extract("eks", REGIONS)
    compare(loads, published)
    assert found.outcome == outcome
    entries = [row for path, rows, _ in loads if path.endswith("EKSAccessEntrySchema") for row in rows]
    assert len(entries) == (0 if isinstance(listed, str) else len(REGIONS) * len(set(listed) - {PRINCIPALS[1]}))
