"""The only file that knows boto3: clients, credentials, pages, and the repetition of calls.

A client of botocore costs milliseconds of CPU and megabytes to make, so there is one per service and region, shared by
all accounts; whose credentials sign a request is set per call. Calls are repeated here and not by botocore: its retry
quota belongs to a client, so one throttled account would take it from all others.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, cast

import boto3
import botocore.config
import botocore.credentials
import botocore.exceptions
import botocore.paginate
import botocore.session

from actors.aws import parsing
from actors.aws.errors import RETRIED, Kind, backoff_s, kind_of, said
from actors.aws.rates import Bucket, limit_of
from actors.aws.sessions import AwsSessions, pause
from actors.cloud import Absent, RegionNotEnabled
from actors.modules import Call, Item, check_account
from cartoray.errors import CloudDenied, CloudUnavailable, RegionDenied
from cartoray.jobs import Account
from cartoray.settings import AwsSettings, variable

SESSION_NAME = "cartoray"
REGIONS_KNOWN_FOR_S = 900.0  # an account opts into a region once in a blue moon
_CONNECTIONS_MAX = 64  # of one client; a connection more than that is closed after its use

# A role that cannot be assumed is an error of the job; botocore would log its traceback beside it.
logging.getLogger("botocore.credentials").setLevel(logging.ERROR)

Check = Callable[[], None]

# Of the call that this thread is making: shared clients sign with `_signs`, and shared credentials are renewed under
# `_checks`, since the job that had them made may be over.
_signs: ContextVar[botocore.credentials.Credentials] = ContextVar("credentials")
_checks: ContextVar[Check] = ContextVar("check", default=lambda: None)  # in threads that Cartography makes

_NO_CREDENTIALS = (
    "There are no AWS credentials where this runs. Give it some as for the AWS CLI: a profile, AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, or a role of the machine."
)


@dataclass(frozen=True)
class _Failure:
    kind: Kind
    text: str
    code: str = ""


@dataclass(frozen=True)
class _Regions:
    states: Mapping[str, str]  # region → opt-in status
    asked_s: float


class AwsCloud:
    """AWS, as `actors.cloud.Cloud` wants it. Any number of threads may call at once.

    Making one raises CloudDenied when the AWS configuration of this machine cannot be used.
    """

    def __init__(self, settings: AwsSettings, calls_max: int | None = None) -> None:
        """`calls_max`: under way at once; calls that wait for their turn, or before they are repeated, do not count."""
        self.settings = settings
        self.room = threading.Semaphore(calls_max) if calls_max else nullcontext()
        self._buckets: dict[tuple[str, str, str], Bucket] = {}
        self._taking = threading.Lock()
        self._core = botocore.session.get_session()
        parsing.install(self._core)
        with _setup_is_right():
            self._session: Any = boto3.Session(botocore_session=self._core)  # its stubs know services by name only
        self._making = threading.Lock()  # a session is not safe while it makes a client
        self._clients: dict[tuple[str, str], Any] = {}
        self._roles: dict[tuple[str, str], botocore.credentials.Credentials] = {}
        self._own_account = ""
        self._regions: dict[tuple[str, str | None], _Regions] = {}

    @property
    def default_region(self) -> str:
        return self.settings.default_region

    def regions(self, account: Account, role_name: str | None, check: Check) -> tuple[str, ...]:
        states = self._region_states(account, role_name, check, time.monotonic() - REGIONS_KNOWN_FOR_S)
        return tuple(sorted(region for region, state in states.items() if state != "not-opted-in"))

    def pages(
        self,
        account: Account,
        role_name: str | None,
        region: str | None,
        call: Call,
        check: Check,
        **parameters: Any,
    ) -> Iterator[list[Item]]:
        caller = _Caller(self, account, role_name or self.settings.role_name, region, call, check)
        for page in caller.pages(**parameters):
            yield [page] if call.result_key is None else page.get(call.result_key, [])

    def sessions(self, role_name: str | None, check: Check) -> AwsSessions:
        role = role_name or self.settings.role_name
        return AwsSessions(self, lambda account: self.credentials(account, role, check), self.default_region, check)

    @property
    def shared_session(self) -> Any:
        return self._session

    @contextmanager
    def signing(self, credentials: botocore.credentials.Credentials) -> Iterator[None]:
        token = _signs.set(credentials)
        try:
            yield
        finally:
            _signs.reset(token)

    def client(self, service: str, region: str) -> Any:
        """The client of this process for the service in the region."""
        with self._making:
            if (service, region) not in self._clients:
                config = botocore.config.Config(
                    connect_timeout=self.settings.connect_timeout_s,
                    read_timeout=self.settings.read_timeout_s,
                    max_pool_connections=_CONNECTIONS_MAX,
                    retries={"total_max_attempts": 1, "mode": "standard"},
                    user_agent=self._core.user_agent(),  # else botocore builds it twice for each call
                    user_agent_extra="cartoray",
                )
                with _setup_is_right():
                    made = self._session.client(service, region_name=region, config=config)
                made.meta.events.register("before-sign", _sign)
                self._clients[service, region] = made
            return self._clients[service, region]

    def paging(self, service: str, operation: str) -> dict[str, Any]:
        """How botocore's service model says that the operation (`DescribeVpcs`) is paginated."""
        with self._making:
            found: dict[str, Any] = self._core.get_paginator_model(service).get_paginator(operation)
        return found

    # ---- rates -------------------------------------------------------------------------------------------------

    def admit(self, account: Account, region: str, service: str, check: Check) -> None:
        """Returns when a call may be made. Raises what `check` raises, which is called meanwhile."""
        while True:
            with self._taking:
                wait_s = self._bucket(account, region, service).take(time.monotonic())
            if not wait_s:
                return
            pause(wait_s, check)

    def throttled(self, account: Account, region: str, service: str, began_s: float) -> None:
        """A call that began at `began_s` of the monotonic clock was one too many."""
        with self._taking:
            self._bucket(account, region, service).throttled(began_s, time.monotonic())

    def _bucket(self, account: Account, region: str, service: str) -> Bucket:
        key = (account.id, region, service)
        if key not in self._buckets:
            self._buckets[key] = Bucket(limit_of(service, self.settings.rate_share), time.monotonic())
        return self._buckets[key]

    # ---- credentials -------------------------------------------------------------------------------------------

    def credentials(self, account: Account, role: str | None, check: Check) -> botocore.credentials.Credentials:
        """Those of the role in the account, renewed in time; without a role the own ones, if they are the account's.

        Raises CloudDenied, CloudUnavailable, and what `check` raises.
        """
        if role is None:
            own = self.own_credentials()
            if not self._own_account:
                identity = _Caller(self, None, None, None, Call("sts", "get_caller_identity", None), check)
                self._own_account = next(identity.pages())["Account"]
            check_account(self._own_account, account.id)
            return own
        key = (account.id, role)
        found = self._roles.get(key)
        if found is None:

            def assume() -> dict[str, Any]:
                return self._assume(account, role, _checks.get())

            renewed = botocore.credentials.DeferredRefreshableCredentials(assume, "assume-role")
            found = self._roles.setdefault(key, renewed)
        token = _checks.set(check)
        try:
            found.get_frozen_credentials()  # assumes the role when it is due, here rather than deep inside of botocore
        finally:
            _checks.reset(token)
        return found

    def forget_credentials(self, account: Account, role: str, expired: botocore.credentials.Credentials) -> None:
        """After AWS called these expired. Another call may have had that answer, and have renewed them already."""
        if self._roles.get((account.id, role)) is expired:
            self._roles.pop((account.id, role), None)

    def own_credentials(self) -> botocore.credentials.Credentials:
        """Those of this process, whosever they are. Raises CloudDenied."""
        with _setup_is_right():
            own: botocore.credentials.Credentials | None = self._session.get_credentials()
        if own is None:
            raise CloudDenied(_NO_CREDENTIALS)
        return own

    def _assume(self, account: Account, role: str, check: Check) -> dict[str, Any]:
        arn = f"arn:{self.settings.partition}:iam::{account.id}:role/{role}"
        parameters: dict[str, Any] = {"RoleArn": arn, "RoleSessionName": SESSION_NAME}
        if self.settings.external_id is not None:
            parameters["ExternalId"] = self.settings.external_id.get_secret_value()
        caller = _Caller(self, None, None, None, Call("sts", "assume_role", None), check, subject=arn)
        found = caller.call(self.client("sts", self.default_region).assume_role, **parameters)["Credentials"]
        return {
            "access_key": found["AccessKeyId"],
            "secret_key": found["SecretAccessKey"],
            "token": found["SessionToken"],
            "expiry_time": found["Expiration"].isoformat(),
        }

    # ---- regions -----------------------------------------------------------------------------------------------

    def is_enabled(self, account: Account, role: str | None, region: str, since_s: float, check: Check) -> bool:
        """Whether the account has opted into the region, as AWS says after `since_s` of the monotonic clock."""
        return self._region_states(account, role, check, since_s).get(region, "unknown") != "not-opted-in"

    def _region_states(self, account: Account, role: str | None, check: Check, since_s: float) -> Mapping[str, str]:
        role = role or self.settings.role_name
        known = self._regions.get((account.id, role))
        if known is None or known.asked_s < since_s:
            call = Call("ec2", "describe_regions", "Regions")
            caller = _Caller(self, account, role, None, call, check)
            asked_s = time.monotonic()
            (page,) = caller.pages(AllRegions=True)
            states = {entry["RegionName"]: entry.get("OptInStatus", "") for entry in page["Regions"]}
            known = self._regions[account.id, role] = _Regions(states, asked_s)
        return known.states


@dataclass(frozen=True)
class _Caller:
    """Makes the calls of one operation on behalf of an account; `account` None: of this process itself."""

    cloud: AwsCloud
    account: Account | None
    role: str | None
    region: str | None
    operation: Call
    check: Check
    subject: str = ""  # what it is about, if the account does not say it

    def pages(self, **parameters: Any) -> Iterator[dict[str, Any]]:
        operation = self.operation
        client = self.cloud.client(operation.service, self.region or self.cloud.default_region)
        method: Callable[..., dict[str, Any]] = getattr(client, operation.operation)

        def call(**all_parameters: Any) -> Any:
            return self.call(method, **all_parameters)

        if operation.page_size is None:
            yield call(**parameters)
            return
        name = client.meta.method_to_api_mapping[operation.operation]
        paging = self.cloud.paging(operation.service, name)
        model = client.meta.service_model.operation_model(name)
        paginator: Any = botocore.paginate.Paginator(cast(Any, call), paging, model)  # its stub takes a method's name
        size = {"PageSize": operation.page_size} if operation.page_size else {}
        yield from paginator.paginate(**parameters, PaginationConfig=size)

    def call(self, method: Callable[..., dict[str, Any]], **parameters: Any) -> dict[str, Any]:
        """The answer. Repeats what is worth it, with back-off, as often as the settings say."""
        attempts_max = self.cloud.settings.attempts_max
        limited = self.region or self.cloud.default_region, self.operation.service
        attempt = 0
        renewed = False
        while True:
            self.check()
            credentials = self._credentials()
            if self.account is not None:
                self.cloud.admit(self.account, *limited, self.check)
            began_s = time.monotonic()
            with self.cloud.room:
                failure = self._attempt(method, parameters, credentials)
            if not isinstance(failure, _Failure):
                return failure
            if failure.kind is Kind.THROTTLED and self.account is not None:
                self.cloud.throttled(self.account, *limited, began_s)
            if failure.code in self.operation.absent:
                raise Absent
            attempt += 1
            if failure.kind is Kind.EXPIRED and self.account is not None and self.role is not None and not renewed:
                self.cloud.forget_credentials(self.account, self.role, credentials)
                renewed = True
                continue
            if failure.kind not in RETRIED or attempt >= attempts_max:
                raise self._error(failure, attempt, began_s)
            pause(backoff_s(attempt, random.random()), self.check)

    def _credentials(self) -> botocore.credentials.Credentials:
        if self.account is None:
            return self.cloud.own_credentials()
        return self.cloud.credentials(self.account, self.role, self.check)

    def _attempt(
        self,
        method: Callable[..., dict[str, Any]],
        parameters: Mapping[str, Any],
        credentials: botocore.credentials.Credentials,
    ) -> dict[str, Any] | _Failure:
        checks = _checks.set(self.check)
        try:
            with self.cloud.signing(credentials):
                return method(**parameters)
        except botocore.exceptions.ClientError as error:
            answer: Any = error.response
            code = answer.get("Error", {}).get("Code", "unknown")
            status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            return _Failure(kind_of(code, status), said(code, answer.get("Error", {}).get("Message", "")), code)
        except (botocore.exceptions.NoCredentialsError, botocore.exceptions.CredentialRetrievalError) as error:
            return _Failure(Kind.DENIED, str(error))
        except (botocore.exceptions.HTTPClientError, botocore.exceptions.ConnectionError, OSError) as error:
            return _Failure(Kind.FAILED, str(error))
        except botocore.exceptions.BotoCoreError as error:  # an answer that botocore cannot parse, say
            return _Failure(Kind.FAILED, f"{type(error).__name__}: {error}")
        finally:
            _checks.reset(checks)

    def _error(self, failure: _Failure, attempts: int, began_s: float) -> Exception:
        where = self._where()
        match failure.kind:
            case Kind.THROTTLED | Kind.FAILED:
                setting = variable("aws", "attempts_max")
                return CloudUnavailable(f"{where}: {failure.text}, {attempts} times in a row ({setting}).")
            case Kind.UNKNOWN_HERE if self.region is not None and self.account is not None:
                if not self.cloud.is_enabled(self.account, self.role, self.region, began_s, self.check):
                    return RegionNotEnabled(self.region)
        if self.operation.operation == "assume_role":
            external_id = self.cloud.settings.external_id
            text = failure.text.replace(external_id.get_secret_value(), "…") if external_id else failure.text
            return CloudDenied(
                f"The role {self.subject} cannot be assumed. {text}. Create it there and let these credentials "
                f"assume it, or name another with --role-name ({variable('aws', 'role_name')})."
            )
        if self.region is not None:
            return RegionDenied(
                f"{where}: {failure.text}. The job fails, and its nodes stay. Allow the call; or leave the region out "
                "with --region, which removes what is in the graph of it."
            )
        return CloudDenied(f"{where}: {failure.text}")

    def _where(self) -> str:
        name = "".join(part.capitalize() for part in self.operation.operation.split("_"))
        region = f" in {self.region}" if self.region else ""
        account = f", account {self.account.id}" if self.account else ""
        return f"{self.operation.service}:{name}{region}{account}"


@contextmanager
def _setup_is_right() -> Iterator[None]:
    """What botocore finds wrong in the environment or the AWS configuration is a person's to mend."""
    try:
        yield
    except botocore.exceptions.BotoCoreError as error:
        raise CloudDenied(f"The AWS credentials or configuration of where this runs are not usable: {error}") from None


def _sign(request: Any, **_: object) -> None:
    """Called by botocore before it signs an attempt."""
    request.context.setdefault("signing", {})["request_credentials"] = _signs.get()


def _nobody_minds() -> None:
    pass


def organization_accounts(settings: AwsSettings) -> tuple[Account, ...]:
    """The active accounts of the organization that this process's credentials belong to, by ID, with their names.

    Source: organizations:ListAccounts. Raises CloudDenied and CloudUnavailable.
    """
    call = Call("organizations", "list_accounts", "Accounts", page_size=20)
    pages = _Caller(AwsCloud(settings), None, None, None, call, _nobody_minds).pages()
    found = [
        entry for page in pages for entry in page["Accounts"] if entry.get("State", entry.get("Status")) == "ACTIVE"
    ]
    return tuple(sorted((Account(id=entry["Id"], name=entry.get("Name")) for entry in found), key=lambda a: a.id))
