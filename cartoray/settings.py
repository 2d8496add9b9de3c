"""Typed settings: `CARTORAY_<GROUP>_<NAME>` in the environment, then a file, then the embedded stack, then defaults.

The file is `cartoray.toml` in the working directory, or the one that `CARTORAY_CONFIG` names, with a table per group.
The embedded stack (`cartoray up`) leaves its addresses in its state folder, so that commands beside it need no
settings at all.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from cartoray.errors import SettingError

PREFIX = "CARTORAY_"
FILE_VARIABLE = "CARTORAY_CONFIG"
FILE_DEFAULT = "cartoray.toml"
_JVM_MEMORY = r"^[1-9][0-9]*[kKmMgG]$"  # as the JVM and Neo4j both read it


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class KafkaSettings(_Group):
    bootstrap_servers: str = Field("127.0.0.1:9092", description="brokers, host:port, comma between", min_length=1)
    topic_prefix: str = Field(
        "", description="before every topic and group name, to share a Kafka cluster", pattern=r"^[A-Za-z0-9._-]*$"
    )
    jobs_partitions: int = Field(
        64, ge=1, le=10_000, description="of intel_jobs when it is created: the most intel actors that can share it"
    )
    data_partitions: int = Field(
        16, ge=1, le=10_000, description="of graph_data when it is created: the most ingestion actors that can share it"
    )
    replication: int = Field(1, ge=1, le=9, description="replicas of a topic when it is created; 3 on a real cluster")
    retention_hours: int = Field(
        168, ge=1, description="of jobs, data and events; a run must be complete before its data is gone"
    )
    message_bytes_max: int = Field(
        900_000, ge=10_000, le=50_000_000, description="of one graph_data message; the broker's own default is 1 MiB"
    )
    signing_key: SecretStr | None = Field(
        None, description="of the queries on graph_data: with it, workers run none that lacks its signature"
    )
    timeout_s: float = Field(10, gt=0, description="for a broker to answer before it counts as unreachable")
    delivery_timeout_s: float = Field(
        120, gt=0, description="until a message that Kafka never acknowledged is an error"
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="of the brokers' listener; passwords and tokens are safe over SASL_SSL alone"
    )
    sasl_mechanism: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = Field(
        "", description="how to log in: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER (by OIDC); none: not at all"
    )
    sasl_username: str = Field("", description="of PLAIN and SCRAM")
    sasl_password: SecretStr = Field(SecretStr(""), description="of PLAIN and SCRAM")
    oauth_token_url: str = Field(
        "", description="token endpoint of OAUTHBEARER, for the grant client_credentials", pattern=r"^(https?://.+)?$"
    )
    oauth_client_id: str = Field("", description="of OAUTHBEARER")
    oauth_client_secret: SecretStr = Field(SecretStr(""), description="of OAUTHBEARER")
    oauth_scope: str = Field("", description="of OAUTHBEARER, if the token endpoint asks for one")
    oauth_ca_location: str = Field(
        "", description="PEM file or folder with the authorities of the token endpoint; none: the system's"
    )
    ssl_ca_location: str = Field(
        "", description="PEM file or folder with the authorities of the brokers' certificates; none: the system's"
    )
    ssl_certificate_location: str = Field("", description="PEM file with the client's own certificate, for mutual TLS")
    ssl_key_location: str = Field("", description="PEM file with the key of that certificate")
    ssl_key_password: SecretStr = Field(SecretStr(""), description="of that key, if it has one")


class Neo4jSettings(_Group):
    uri: str = Field("bolt://127.0.0.1:7687", description="bolt:// or neo4j:// (+s, +ssc for TLS)")
    user: str = "neo4j"
    password: SecretStr = SecretStr("")
    database: str = Field("neo4j", min_length=1)
    ca_location: str = Field(
        "", description="PEM file with the authorities of the server's certificate, for +s URIs; none: the system's"
    )
    timeout_s: float = Field(15, gt=0, description="for a connection before Neo4j counts as unreachable")
    transaction_timeout_s: float = Field(120, gt=0, description="after which the server ends a transaction of ours")

    @field_validator("uri")
    @classmethod
    def _known_scheme(cls, uri: str) -> str:
        if uri.split("://", 1)[0] not in {"bolt", "bolt+s", "bolt+ssc", "neo4j", "neo4j+s", "neo4j+ssc"}:
            raise ValueError("a URI such as bolt://host:7687 or neo4j+s://host:7687")
        if "@" in uri:
            raise ValueError("a URI without user and password, which have settings of their own")
        return uri


class AwsSettings(_Group):
    role_name: str | None = Field(
        None, description="role to assume in each account; none: the worker's own credentials, for its own account"
    )
    external_id: SecretStr | None = Field(None, description="external ID that the role's trust policy asks for")
    partition: str = Field("aws", pattern=r"^aws(-[a-z]+)*$", description="of the roles' ARNs: aws, aws-us-gov, aws-cn")
    default_region: str = Field("us-east-1", description="where STS, Organizations and region discovery are asked")
    attempts_max: int = Field(8, ge=1, description="of one call when AWS throttles or fails, back-off between them")
    rate_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="of the rate at which AWS lets an account be asked, in each region and for each service; what is "
        "left is for the account's own software. After a throttled call it gets less for a while",
    )
    connect_timeout_s: float = Field(10, gt=0)
    read_timeout_s: float = Field(60, gt=0)


_PASSWORD = ("sasl_username", "sasl_password")
_TOKEN = ("oauth_token_url", "oauth_client_id", "oauth_client_secret")
_TOKEN_MORE = ("oauth_scope", "oauth_ca_location")
_CERTIFICATE = ("ssl_certificate_location", "ssl_key_location", "ssl_key_password")
IDENTITY = (*_PASSWORD, *_TOKEN[1:], *_CERTIFICATE)  # who a Kafka client is: what each pool may have of its own
PoolName = Literal["intel", "ingestion"]
POOLS: tuple[PoolName, ...] = get_args(PoolName)


class _PoolSettings(_Group):
    kafka_sasl_username: str = Field(
        "",
        description="of a principal of the pool's own in Kafka, see docs/operations/security.md; with it or another "
        "setting of these, none of CARTORAY_KAFKA_… of the same names counts for the pool",
    )
    kafka_sasl_password: SecretStr = Field(SecretStr(""), description="of the pool's own principal")
    kafka_oauth_client_id: str = Field("", description="of the pool's own principal")
    kafka_oauth_client_secret: SecretStr = Field(SecretStr(""), description="of the pool's own principal")
    kafka_ssl_certificate_location: str = Field("", description="of the pool's own principal")
    kafka_ssl_key_location: str = Field("", description="of the pool's own principal")
    kafka_ssl_key_password: SecretStr = Field(SecretStr(""), description="of the pool's own principal")

    @field_validator("actors_min", check_fields=False)
    @classmethod
    def _not_above_the_most(cls, least: int, info: ValidationInfo) -> int:
        most = info.data.get("actors_max", least)  # declared before; absent where it is wrong itself
        if least > most:
            raise ValueError(f"not more than actors_max, which is {most}")
        return least


class IntelSettings(_PoolSettings):
    actors_max: int = Field(4, ge=1, description="in the pool at most; never more than intel_jobs has partitions")
    actors_min: int = Field(1, ge=0, description="in the pool when nothing is to do; 0 makes the next sync start later")
    jobs_per_member: int = Field(
        32, ge=1, description="that wait or are under way for each actor in the pool, before more actors are started"
    )
    jobs_per_actor: int = Field(16, ge=1, description="at once; each holds a few threads while it waits for the API")
    calls_per_actor: int = Field(
        64, ge=1, description="API calls in flight at once in one actor; those that wait for their turn do not count"
    )
    job_timeout_s: float = Field(
        21_600,
        gt=0,
        description="after which a job fails; a provider that is one job can take hours; "
        "time in which rows wait for ingestion (lag_messages_max) does not count",
    )
    lag_messages_max: int = Field(
        20_000,
        ge=0,
        description="of graph_data that have not landed, from which on intel actors publish no more rows until half of "
        "them are left; kafka.message_bytes_max bounds each, most have far less; 0: no limit",
    )
    deaths_max: int = Field(
        3,
        ge=2,
        description="of an actor's process with the same job under way, after which the job fails and goes to the dead "
        "letters; before the last one it is run again alone",
    )
    drain_s: float = Field(20, gt=0, description="to finish what is under way when asked to stop")


class IngestionSettings(_PoolSettings):
    actors_max: int = Field(4, ge=1, description="in the pool at most; never more than graph_data has partitions")
    actors_min: int = Field(1, ge=0, description="in the pool when nothing is to do; 0 makes the next sync end later")
    messages_per_member: int = Field(
        100, ge=1, description="of graph_data that wait for each actor in the pool, before more actors are started"
    )
    batch_rows: int = Field(
        1_000,
        ge=1,
        description="of one transaction at most; more is not faster, and takes 150 KB of Neo4j's heap a row",
    )
    batch_bytes: int = Field(
        8_000_000,
        ge=1,
        description="of rows, not compressed, in one transaction at most; an actor holds as much as eight have",
    )
    transaction_slow_ms: int = Field(
        10_000, gt=0, description="from which on a transaction was too large: batches get half as many rows for a while"
    )
    batch_age_ms: int = Field(100, ge=0, description="that a message waits for others at most")
    fingerprints: bool = Field(
        True,
        description="nodes carry one of their row, so that rows that did not change are not sent to Neo4j again; "
        "off: all values are compared",
    )
    touch: Literal["always", "lazy"] = Field(
        "always",
        description="whether nodes that did not change get the sync's lastupdated. lazy: only with the next change, "
        "which is faster; cleanups then go by ids, and queries that look at lastupdated mislead. A sync with modules "
        "that are not native always touches, and so does one without fingerprints",
    )
    retries_max: int = Field(
        30, ge=0, description="of a transaction on transient errors, back-off between them, before the actor gives up"
    )
    deaths_max: int = Field(
        3,
        ge=2,
        description="of an actor's process with the same message in hand, after which the message goes to the dead "
        "letters; before the last one it is written again alone",
    )
    drain_s: float = Field(20, gt=0, description="to finish what is under way when asked to stop")


class ScalingSettings(_Group):
    """Of both pools; how many members they have is set with each."""

    up_after_s: float = Field(2, ge=0, description="that a lag must last before members are added")
    down_after_s: float = Field(60, gt=0, description="that members stay after they were needed last")


class StackSettings(_Group):
    """Where the embedded Kafka and Neo4j live, where their jars come from, and how much memory they get.

    Each default fits a laptop with 8 GB: 512 MB + 1 GB of heap and 256 MB of page cache are about 2 GB of memory.
    """

    state_dir: Path = Field(
        Path(".cartoray"), description="folder for data, logs and addresses; `cartoray down --wipe` removes it"
    )
    cache_dir: Path | None = Field(
        None, description="folder for the verified jars (200 MB), shared by all stacks; none: the user's cache folder"
    )
    maven_repository: str | None = Field(
        None, description="base URL of the Maven repository to download from; none: Maven Central", min_length=1
    )
    downloads_parallel: int = Field(
        8, ge=1, le=32, description="jars at once; they are small, so the wait is for answers, not for bandwidth"
    )
    kafka_heap: str = Field(
        "512m", pattern=_JVM_MEMORY, description="the broker keeps messages on disk, not in its heap"
    )
    neo4j_heap: str = Field(
        "1g",
        pattern=_JVM_MEMORY,
        description="of which at most 70% go to transactions; raise it for ingestion.batch_rows",
    )
    neo4j_pagecache: str = Field("256m", pattern=_JVM_MEMORY, description="of the store's files; about a million nodes")
    start_timeout_s: float = Field(
        120, gt=0, description="for a server to be ready; seconds are usual, recovery after a crash can take longer"
    )
    stop_timeout_s: float = Field(
        30, gt=0, description="from the request to stop until a server is killed; Neo4j writes a checkpoint in it"
    )


class SimulatedAwsSettings(_Group):
    """Written by `cartoray up --simulate-aws`; used where the environment names no AWS endpoint of its own."""

    endpoint_url: str | None = None
    role_name: str | None = None


class Settings(BaseSettings):
    """All settings. Immutable; made by `load`, which alone looks at the environment."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        env_prefix=PREFIX,
        env_nested_delimiter="_",
        env_nested_max_split=1,  # a group's name ends where the setting's begins, whatever underscores are in there
    )

    kafka: KafkaSettings = KafkaSettings()
    neo4j: Neo4jSettings = Neo4jSettings()
    aws: AwsSettings = AwsSettings()
    intel: IntelSettings = IntelSettings()
    ingestion: IngestionSettings = IngestionSettings()
    scaling: ScalingSettings = ScalingSettings()
    stack: StackSettings = StackSettings()
    simulated_aws: SimulatedAwsSettings = SimulatedAwsSettings()

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


class _Environment(EnvSettingsSource):
    """pydantic's reader of environment variables, for any mapping."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        super().__init__(Settings)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): value for name, value in self._environment.items()}


def as_pool(settings: Settings, pool: PoolName) -> Settings:
    """The settings of the pool's members: with its own identity towards Kafka, as a whole, if it has one."""
    own = {field: getattr(getattr(settings, pool), f"kafka_{field}") for field in IDENTITY}
    if not any(map(_text, own.values())):
        return settings
    return settings.model_copy(update={"kafka": settings.kafka.model_copy(update=own)})


def _text(value: str | SecretStr) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


Name = Callable[[str], str]  # how to call a field of KafkaSettings in an error: its variable


def _contradiction(settings: Settings) -> str | None:
    """What is wrong between settings that are right by themselves, with the remedy."""

    def of_kafka(field: str) -> str:
        return variable("kafka", field)

    if problem := kafka_contradiction(settings.kafka, of_kafka):
        return problem
    for pool in POOLS:
        own = as_pool(settings, pool)

        def of_pool(field: str, pool: str = pool) -> str:
            return variable(pool, f"kafka_{field}") if field in IDENTITY else variable("kafka", field)

        if own is not settings and (problem := kafka_contradiction(own.kafka, of_pool)):
            return problem
    return _graph_contradiction(settings.neo4j)


def kafka_contradiction(kafka: KafkaSettings, name: Name) -> str | None:
    """What of the login and of TLS does not fit together, with the remedy."""
    return _login_contradiction(kafka, name) or _tls_contradiction(kafka, name)


def _given(kafka: KafkaSettings, fields: Iterable[str]) -> list[str]:
    return [field for field in fields if _text(getattr(kafka, field))]


def _login_contradiction(kafka: KafkaSettings, name: Name) -> str | None:
    protocol, mechanism = kafka.security_protocol, kafka.sasl_mechanism
    if not protocol.startswith("SASL_"):
        if found := _given(kafka, ("sasl_mechanism", *_PASSWORD, *_TOKEN, *_TOKEN_MORE)):
            return (
                f"{name(found[0])} is set, but {name('security_protocol')} is {protocol}, which has no login. "
                f"Set {name('security_protocol')} to SASL_SSL, or leave {name(found[0])} out."
            )
        return None
    if not mechanism:
        return (
            f"{name('security_protocol')} is {protocol}, but {name('sasl_mechanism')} is not set. "
            "Set it to PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER, as your brokers have it."
        )
    by_token = mechanism == "OAUTHBEARER"
    needed, foreign = (_TOKEN, _PASSWORD) if by_token else (_PASSWORD, (*_TOKEN, *_TOKEN_MORE))
    if missing := [field for field in needed if field not in _given(kafka, needed)]:
        return f"{name('sasl_mechanism')} is {mechanism}, which needs {' and '.join(map(name, missing))}: set it."
    if found := _given(kafka, foreign):
        return (
            f"{name(found[0])} is set, but {name('sasl_mechanism')} is {mechanism}, which does not use it. "
            "Leave it out, or set the mechanism that it belongs to."
        )
    return None


def _tls_contradiction(kafka: KafkaSettings, name: Name) -> str | None:
    protocol = kafka.security_protocol
    if not protocol.endswith("SSL") and (found := _given(kafka, ("ssl_ca_location", *_CERTIFICATE))):
        return (
            f"{name(found[0])} is set, but {name('security_protocol')} is {protocol}, which has no TLS. "
            f"Set it to {'SASL_SSL' if kafka.sasl_mechanism else 'SSL'}, or leave {name(found[0])} out."
        )
    if len(pair := _given(kafka, _CERTIFICATE[:2])) == 1 or (not pair and _given(kafka, _CERTIFICATE[2:])):
        certificate, key, password = map(name, _CERTIFICATE)
        return f"{certificate} and {key} belong together, and {password} to them: set both, or none of the three."
    return None


def _graph_contradiction(neo4j: Neo4jSettings) -> str | None:
    if neo4j.ca_location and "+s://" not in neo4j.uri:
        return (
            f"{variable('neo4j', 'ca_location')} is set, but {variable('neo4j', 'uri')} is not bolt+s:// or "
            "neo4j+s://, which alone look at who signed the certificate. Change the URI, or leave the authorities out."
        )
    return None


@dataclass(frozen=True)
class Loaded:
    """`settings`, and for each setting (group, name) that is not a default, where it came from."""

    settings: Settings
    sources: Mapping[tuple[str, str], str]


def load(environment: Mapping[str, str] | None = None, directory: Path | None = None) -> Loaded:
    """The settings in force for `directory` (default: the working directory).

    Raises SettingError with one line: the setting, what it got and what it takes.
    """
    environment = os.environ if environment is None else environment
    directory = directory or Path()
    values: dict[str, dict[str, Any]] = {}
    sources: dict[tuple[str, str], str] = {}

    def take(layer: Mapping[str, Mapping[str, Any]], source: str) -> None:
        for group, entries in layer.items():
            for name, value in entries.items():
                values.setdefault(group, {})[name] = value
                sources[group, name] = source

    file_layer, file_name = _from_file(environment, directory)
    environment_layer = _from_environment(environment)
    stack_folder = (
        environment_layer.get("stack", {}).get("state_dir")
        or file_layer.get("stack", {}).get("state_dir")
        or StackSettings().state_dir
    )
    stack_file = directory / stack_folder / "settings.json"
    take(_from_stack(stack_file), "embedded stack")
    take(file_layer, file_name)
    take(environment_layer, "environment")
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise SettingError(_explain(error, values, sources)) from None
    if problem := _contradiction(settings):
        raise SettingError(problem)
    return Loaded(settings, sources)


def variable(group: str, name: str) -> str:
    """The environment variable of a setting: `CARTORAY_KAFKA_BOOTSTRAP_SERVERS`."""
    return f"{PREFIX}{group}_{name}".upper()


def _from_environment(environment: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    for key in environment:
        known = any(key.lower().startswith(f"{PREFIX}{group}_".lower()) for group in Settings.model_fields)
        if key.startswith(PREFIX) and key != FILE_VARIABLE and not known:
            raise SettingError(f"{key} is not a setting of cartoray. `cartoray config` lists them.")
    return dict(_Environment(environment)())


def _from_file(environment: Mapping[str, str], directory: Path) -> tuple[dict[str, dict[str, Any]], str]:
    named = environment.get(FILE_VARIABLE)
    path = directory / (named or FILE_DEFAULT)
    if not path.exists():
        if named:
            raise SettingError(f"{FILE_VARIABLE} names {named}, which does not exist.")
        return {}, ""
    try:
        content = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(f"{path} is not valid TOML: {error}.") from None
    except OSError as error:
        raise SettingError(f"{path} cannot be read: {error.strerror}.") from None
    for group, entries in content.items():
        if group not in Settings.model_fields or not isinstance(entries, dict):
            known = ", ".join(f"[{known}]" for known in Settings.model_fields)
            raise SettingError(f"{path}: {group!r} is not a group of settings. Groups: {known}.")
    return content, str(path)


def _from_stack(path: Path) -> dict[str, dict[str, Any]]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):  # not up, or being written at this moment: the defaults hold
        return {}
    return content if isinstance(content, dict) else {}


def _explain(error: ValidationError, values: Mapping[str, Mapping[str, Any]], sources: Mapping[Any, str]) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    group, name = str(first["loc"][0]), str(first["loc"][1]) if len(first["loc"]) > 1 else ""
    source = sources.get((group, name), "default")
    label = variable(group, name) if source == "environment" else f"{group}.{name} ({source})"
    if first["type"] == "extra_forbidden":
        known = ", ".join(Settings.model_fields[group].annotation.model_fields)  # type: ignore[union-attr]
        return f"{label} is not a setting of cartoray. Settings of {group}: {known}."
    takes = first["msg"].removeprefix("Value error, ")
    field = Settings.model_fields[group].annotation.model_fields.get(name)  # type: ignore[union-attr]
    secret = field is not None and "SecretStr" in str(field.annotation)
    value = values.get(group, {}).get(name)
    got = "a secret" if secret else repr(re.sub(r"//[^/@]*@", "//…@", value) if isinstance(value, str) else value)
    return f"{label} is {got}; it takes: {takes[:1].lower()}{takes[1:]}."
