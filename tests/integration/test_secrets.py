"""No secret is where it does not belong: marked ones are planted everywhere, a sync goes right and wrong, and then

everything that it left behind is searched.

What is not searched is the environment of processes: secrets of settings are given there, and only the same user and
root can read it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import neo4j
import psutil
import pyarrow as pa
import pytest
from ray.util.state import list_actors, list_jobs, list_nodes, list_runtime_envs, list_tasks, list_workers
from support.commands import Workers, cartoray, environment, serving

from cartoray.kafka import Publisher, read_all
from cartoray.messages import Message
from cartoray.settings import Settings
from cartoray.stack import ports
from cartoray.stack.simulated_aws import SimulatedAws
from cartoray.topics import topics

pytestmark = [pytest.mark.stack, pytest.mark.ray, pytest.mark.long]

MARK = "pl4nted"  # in every secret; their beginnings say in a failure which one it was
SIGNING_KEY = f"signing-{MARK}-key"
EXTERNAL_ID = f"external-{MARK}-id"
AWS_SECRET, AWS_TOKEN = f"aws-{MARK}-secret", f"aws-{MARK}-token"
WRONG_PASSWORD = f"neo4j-{MARK}-mistyped"
PROVIDER_TOKEN = f"github-{MARK}-token"
OF_ACCOUNTS = {name: f"{name}-{MARK}-value" for name in ("lambda", "userdata", "database", "secret", "parameter")}

# Credentials of the assumed roles are made by the simulated AWS, in AWS's form: key ID and session token.
ASSUMED = rb"\bASIA[A-Z0-9]{16}\b|FQoGZXIvYXdzE\w+"

NOBODY = "999999999999"  # no role can be assumed there
SCOPE = "ec2:instance,lambda_function,rds,iam,secretsmanager,ssm"


@dataclass
class Places:
    """Where something was left behind: what the place is called → its bytes, readable ones."""

    found: dict[str, bytes] = field(default_factory=dict)

    def add(self, name: str, content: object) -> None:
        data = content if isinstance(content, bytes) else str(content).encode()
        self.found[name] = self.found.get(name, b"") + b"\n" + data

    def holding(self, pattern: bytes) -> dict[str, bytes]:
        """Place → what surrounds the first match."""
        hits = {name: re.search(pattern, data) for name, data in self.found.items()}
        return {name: self.found[name][max(0, hit.start() - 60) : hit.end() + 20] for name, hit in hits.items() if hit}


def plant(aws: SimulatedAws, account: str) -> None:
    """Secrets of an account, where an API that cartoray calls could show them."""
    region = aws.regions[0]
    base = {"endpoint_url": aws.endpoint_url, "region_name": region}
    sts = boto3.client("sts", aws_access_key_id="testing", aws_secret_access_key="testing", **base)
    given = sts.assume_role(RoleArn=aws.role_arn(account), RoleSessionName="plants")["Credentials"]
    keys = {"aws_access_key_id": given["AccessKeyId"], "aws_secret_access_key": given["SecretAccessKey"]}
    session: Any = boto3.Session(**keys, aws_session_token=given["SessionToken"])
    session.client("lambda", **base).update_function_configuration(
        FunctionName="exporter", Environment={"Variables": {"TOKEN": OF_ACCOUNTS["lambda"]}}
    )
    ec2 = session.client("ec2", **base)
    for reservation in ec2.describe_instances()["Reservations"]:
        for instance in reservation["Instances"]:
            value = base64.b64encode(OF_ACCOUNTS["userdata"].encode())
            ec2.modify_instance_attribute(InstanceId=instance["InstanceId"], UserData={"Value": value})
    session.client("rds", **base).modify_db_instance(
        DBInstanceIdentifier="store-0", MasterUserPassword=OF_ACCOUNTS["database"]
    )
    session.client("secretsmanager", **base).create_secret(Name="planted", SecretString=OF_ACCOUNTS["secret"])
    session.client("ssm", **base).put_parameter(
        Name="/planted", Value=OF_ACCOUNTS["parameter"], Type="SecureString", Overwrite=True
    )
    listed = session.client("lambda", **base).list_functions()["Functions"]
    assert MARK in json.dumps(listed, default=str), "the simulated AWS shows none of what was planted"


def readable(message: Message) -> bytes:
    """Key, headers and value; the value also as it is when decompressed."""
    parts = [message.key, message.value, *(name.encode() + b"=" + value for name, value in message.headers.items())]
    if message.headers.get("kind") == b"rows" and message.value[:4] == b"\xff\xff\xff\xff":
        parts.append(str(pa.ipc.open_stream(message.value).read_all().to_pylist()).encode())
    if message.headers.get("kind") == b"query" and message.value[:1] == b"x":
        parts.append(zlib.decompress(message.value))
    return b"\n".join(parts)


def look_at_processes(places: Places, workers: Workers) -> None:
    """What every user of the machine may see of a process: its command line."""
    for process in workers.look():
        with contextlib.suppress(psutil.NoSuchProcess):
            places.add("command lines", process.cmdline())


def look_at_ray(places: Places, workers: Workers, address: str) -> None:
    for listing in (list_actors, list_jobs, list_nodes, list_tasks, list_workers, list_runtime_envs):
        for entry in listing(address, detail=True, limit=1_000):
            places.add(f"Ray's state: {listing.__name__}", vars(entry) if hasattr(entry, "__dict__") else entry)
    arguments = workers.named("/raylet")[0].cmdline()
    (folder,) = {each.partition("=")[2] for each in arguments if each.startswith("--session_dir=")}
    for path in Path(folder).rglob("*"):
        if path.is_file():
            places.add(f"Ray's session folder: {path.relative_to(folder)}", path.read_bytes())
    assert any(name.endswith(".err") for name in places.found)


def look_at_kafka(places: Places, settings: Settings) -> None:
    names = topics(settings.kafka)
    for topic in (names.jobs, names.data, names.events, names.dead_letters, names.ledger):
        for message in read_all(settings.kafka, topic.name):
            places.add(f"topic {topic.name}", readable(message))


def look_at_graph(places: Places, driver: neo4j.Driver) -> None:
    records, _, _ = driver.execute_query(
        "MATCH (n) OPTIONAL MATCH (n)-[r]->() RETURN labels(n), properties(n), collect(properties(r))"
    )
    for record in records:
        places.add("graph", record.data())


def spoil(settings: Settings) -> None:
    """A query that is not signed, a job and rows that nobody can read: to the dead letters."""
    names = topics(settings.kafka)
    publisher = Publisher(settings.kafka, "test")
    header = [
        ("kind", b"query"),
        ("version", b"1"),
        ("run", b"r"),
        ("tag", b"1"),
        ("attempt", b"a"),
        ("sequence", b"0"),
    ]
    value = zlib.compress(json.dumps({"query": "MATCH (n) DETACH DELETE n", "parameters": {}}).encode())
    publisher.publish(names.data.name, b"k", value, [*header, ("job", b"r/k/unsigned")]).result()
    publisher.publish(names.data.name, b"k", b"no stream", [("kind", b"rows"), ("version", b"1")]).result()
    publisher.publish(names.jobs.name, b"k", b'{"no": "job"}').result()
    publisher.close()


@pytest.fixture(scope="module")
def places(
    stack_settings: Settings, simulated_aws: SimulatedAws, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Places]:
    from support.databases import empty, open_graph

    found, folder = Places(), tmp_path_factory.mktemp("secrets")
    account = simulated_aws.accounts[-1]
    plant(simulated_aws, account)
    kafka = stack_settings.kafka.model_copy(update={"topic_prefix": "secrets."})
    settings = stack_settings.model_copy(update={"kafka": kafka})
    # a token that no HTTP header can hold: the library that refuses it says which one it was
    github = {"token": f"{PROVIDER_TOKEN}\n", "url": f"http://127.0.0.1:{ports.any_free()}/graphql", "name": "acme"}
    variables = environment(
        settings,
        simulated_aws,
        CARTORAY_KAFKA_SIGNING_KEY=SIGNING_KEY,
        CARTORAY_AWS_EXTERNAL_ID=EXTERNAL_ID,
        CARTORAY_AWS_ATTEMPTS_MAX="1",
        AWS_SECRET_ACCESS_KEY=AWS_SECRET,
        AWS_SESSION_TOKEN=AWS_TOKEN,
        PLANTED_GITHUB=base64.b64encode(json.dumps({"organization": [github]}).encode()).decode(),
    )

    def command(*arguments: str, code: int, **changed: str) -> None:
        done = cartoray(*arguments, environment=variables | changed, folder=folder).expect(code)
        found.add(f"cartoray {' '.join(arguments)}", f"{done.output}\n{done.errors}")

    with open_graph(stack_settings.neo4j) as driver:
        empty(driver)
        with serving(variables, folder, "--dashboard", "--intel-actors", "1", "--ingestion-actors", "1") as workers:
            spoil(settings)
            of_aws = ("sync", "--account", account, "--account", NOBODY, "--scope", SCOPE, "--region", "us-east-1")
            denied = {"account": account, "action": "rds:DescribeDBClusters"}
            simulated_aws.faults(deny=[denied])
            try:
                command(*of_aws, code=3)
            finally:
                simulated_aws.faults(deny=[])
            look_at_processes(found, workers)
            provider = ("sync", "--provider", "github", "--", "--github-config-env-var", "PLANTED_GITHUB")
            command(*provider, code=4)
            address = re.search(r"dashboard (http://\S+?);", workers.log.read_text())
            assert address
            look_at_ray(found, workers, address[1])
            workers.stop()
        with ThreadPoolExecutor(3) as threads:
            read = [
                threads.submit(command, *words, code=0) for words in (["runs", "--json"], ["config"], ["dlq", "list"])
            ]
            wrong = {"CARTORAY_NEO4J_PASSWORD": WRONG_PASSWORD}
            refused = [threads.submit(command, word, code=4, **wrong) for word in ("graph", "serve")]
            for each in (*read, *refused):
                each.result()
        look_at_kafka(found, settings)
        look_at_graph(found, driver)
    for path in folder.rglob("*"):
        if path.is_file():
            found.add(f"working folder: {path.name}", path.read_bytes())
    yield found


def test_what_could_leak_has_been_there(places: Places) -> None:
    """Else the tests below would say nothing."""
    expected = {
        r"topic secrets\.graph_data": rb"exporter",  # the function with the planted environment
        r"graph": rb"exporter|store-0",
        r"topic secrets\.dead_letters": rb"without the right signature",
        r"topic secrets\.run_events": rb"DescribeDBClusters",
        r"Ray's session folder: logs/worker-.*\.err": rb"job_ended",
        r"cartoray sync --account .*": NOBODY.encode(),
        r"cartoray sync --provider .*": rb"header|Header",  # that the token was refused for what it is
        r"cartoray serve": rb"CARTORAY_NEO4J_PASSWORD",
        r"command lines": rb"IntelActor",
        r"Ray's state: list_actors": rb"IntelActor",
    }
    for name, pattern in expected.items():
        assert any(re.fullmatch(name, place) for place in places.holding(pattern)), (name, sorted(places.found))


def test_no_planted_secret_is_anywhere(places: Places) -> None:
    encoded = [base64.b64encode(OF_ACCOUNTS["userdata"].encode())]
    assert not places.holding(b"|".join([MARK.encode(), *map(re.escape, encoded)]))


def test_the_password_that_was_right_is_nowhere(places: Places, stack_settings: Settings) -> None:
    assert not places.holding(re.escape(stack_settings.neo4j.password.get_secret_value().encode()))


def test_credentials_of_assumed_roles_are_nowhere(places: Places) -> None:
    assert not places.holding(ASSUMED)


def test_a_provider_configuration_is_nowhere_in_base64_either(places: Places) -> None:
    assert not places.holding(base64.b64encode(b'{"organization": [{"token"')[:24])
