"""boto3 sessions for Cartography's own code, which makes clients as it likes: each for the calls of one job.

Besides `actors.aws.clients` the only file that knows boto3. A client that botocore makes takes 5 to 50 ms of CPU, more
than all calls that a module makes with it. So here a client is a copy of the one that the process has for the service
and region, with the job's own way to make a call.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol

import aioboto3  # type: ignore[import-untyped]
import boto3
import botocore.credentials
import botocore.exceptions

from actors.aws.errors import RETRIED, Kind, backoff_s, kind_of, said
from actors.transforms import load_module
from cartoray.jobs import Account

ATTEMPTS_MAX = 4  # of a call, as Cartography configures its clients; some regions answer 500 for what they do not have
_LOOK_EVERY_S = 0.5  # while waiting, whether anybody still wants the call
_NO_ANSWER = (botocore.exceptions.HTTPClientError, botocore.exceptions.ConnectionError)
_NOT_THERE = frozenset({"InternalServerErrorException", "SubscriptionRequiredException", "UnknownOperationException"})
_PLACE = "cartoray.place"

_observing = threading.Lock()

Credentials = botocore.credentials.Credentials


class Clients(Protocol):
    """What the process has for all jobs; `actors.aws.clients.AwsCloud` is one."""

    @property
    def shared_session(self) -> Any:
        """The `boto3.Session` of the process, which nobody may change."""

    def client(self, service: str, region: str) -> Any:
        """A client that repeats nothing by itself."""

    def signing(self, credentials: Credentials) -> AbstractContextManager[None]:
        """Within the block, and in its thread, the clients sign with `credentials`."""

    def admit(self, account: Account, region: str, service: str, check: Callable[[], None]) -> None:
        """Returns when the account may be asked."""

    def throttled(self, account: Account, region: str, service: str, began_s: float) -> None:
        """A call that began then was one too many."""


class AwsSessions:
    """The sessions of one job, and its API calls: how many, and what Cartography takes for an empty answer.

    `check` is called before each attempt of a call and while waiting for one, and raises to end the job. `credentials`
    are those of an account's role, which renew themselves. Threads of the job may call at once.
    """

    def __init__(
        self, clients: Clients, credentials: Callable[[Account], Credentials], region: str, check: Callable[[], None]
    ) -> None:
        """`region`: of clients for which Cartography names none."""
        self._clients, self._credentials, self._region, self._check = clients, credentials, region, check
        self.calls = 0
        self._missing: dict[str, None] = {}
        _observe_skipped_regions()

    @property
    def missing(self) -> list[str]:
        """What was refused or did not answer, and is missing therefore; each once, in order."""
        return list(self._missing)

    def session(self, account: Account) -> Any:
        """A `boto3.Session`. Raises CloudDenied, CloudUnavailable."""
        return _Session(self._clients.shared_session, partial(self._client, account, self._credentials(account)))

    def aio_session(self, account: Account) -> Any:
        """An `aioboto3.Session`, which signs with what the credentials are now; its calls are not watched."""
        now = self._credentials(account).get_frozen_credentials()
        return aioboto3.Session(
            aws_access_key_id=now.access_key,
            aws_secret_access_key=now.secret_key,
            aws_session_token=now.token,
            region_name=self._region,
        )

    def _client(self, account: Account, credentials: Credentials, service: str, region: str | None) -> Any:
        region = region or self._region
        shared = self._clients.client(service, region)
        client: Any = object.__new__(type(shared))  # `copy` would ask it for attributes before it has any
        client.__dict__.update(shared.__dict__)
        there = self._clients.shared_session.get_available_regions(service)
        client._make_api_call = partial(  # which all its methods and paginators call
            self._call,
            shared._make_api_call,
            credentials,
            (account, region, service),
            there=not there or region in there,
        )
        return client

    def _call(
        self,
        make: Callable[[str, Any], Any],
        credentials: Credentials,
        where: tuple[Account, str, str],
        operation: str,
        arguments: Any,
        *,
        there: bool,
    ) -> Any:
        """The answer. `there`: whether the region has the service, as far as botocore knows."""
        account, region, service = where
        place = f"{service}:{operation} in {region}, account {account.id}"
        attempt = 0
        while True:
            self._check()
            self._clients.admit(*where, self._check)
            self.calls += 1
            attempt += 1
            began_s = time.monotonic()
            try:
                with self._clients.signing(credentials):
                    return make(operation, arguments)
            except botocore.exceptions.ClientError as error:
                answer: Any = error.response
                kind = kind_of(_code(answer), answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
                if kind is Kind.THROTTLED:
                    self._clients.throttled(*where, began_s)
                if kind not in RETRIED or attempt >= ATTEMPTS_MAX:
                    answer.setdefault("ResponseMetadata", {})[_PLACE] = (self, place)
                    raise
            except _NO_ANSWER as error:
                kind = Kind.FAILED
                if attempt >= ATTEMPTS_MAX:
                    if there:  # Cartography takes it for a service that the region does not have
                        self._missing[f"{place}: {error}"] = None
                    raise
            pause(backoff_s(attempt, random.random()), self._check)

    def skipped(self, place: str, code: str, message: str) -> None:
        """A refusal that Cartography is about to take for an empty answer."""
        if code not in _NOT_THERE:
            self._missing[f"{place}: {said(code, message)}"] = None


def pause(delay_s: float, check: Callable[[], None]) -> None:
    """Waits, and asks `check` meanwhile, which raises to end that."""
    until_s = time.monotonic() + delay_s
    while (left_s := until_s - time.monotonic()) > 0:
        check()
        time.sleep(min(left_s, _LOOK_EVERY_S))


def _code(answer: Any) -> str:
    return str(answer.get("Error", {}).get("Code", ""))


def _observe_skipped_regions() -> None:
    """From now on what Cartography skips because a call was refused is known to the sessions that made the call.

    Its decorator for regional calls asks `cartography.util.is_aws_region_skippable_client_error`, by that name at each
    refusal, whether to answer with nothing. The answer stays the same. Repeating this changes nothing.
    """
    util = load_module("cartography.util")
    with _observing:
        asked = util.is_aws_region_skippable_client_error
        if hasattr(asked, "observed"):
            return

        def observed(error: botocore.exceptions.ClientError) -> bool:
            skipped: bool = asked(error)
            answer: Any = error.response
            if skipped and (called := answer.get("ResponseMetadata", {}).get(_PLACE)):
                sessions, place = called
                sessions.skipped(place, _code(answer), answer["Error"].get("Message", ""))
            return skipped

        observed.observed = True  # type: ignore[attr-defined]
        util.is_aws_region_skippable_client_error = observed


_Base: Any = boto3.Session  # its stub has an overload for each service


class _Session(_Base):  # type: ignore[misc]
    """As the session of the process, but for its clients."""

    def __init__(self, shared: boto3.Session, client: Callable[[str, str | None], Any]) -> None:
        self.__dict__.update(shared.__dict__)
        self._client = client

    def client(self, service_name: str, region_name: str | None = None, **_: Any) -> Any:
        """Configurations are Cartography's for clients of its own; time-outs and connections are the settings' here."""
        return self._client(service_name, region_name)
