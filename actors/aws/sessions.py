"""boto3 sessions for Cartography's own code, which makes clients as it likes: each watched for one job.

Besides `actors.aws.clients` the only file that knows boto3.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import aioboto3  # type: ignore[import-untyped]
import boto3
import botocore.credentials
import botocore.exceptions
import botocore.session

from actors.aws.errors import said
from actors.transforms import load_module
from cartoray.jobs import Account

_NO_ANSWER = (botocore.exceptions.HTTPClientError, botocore.exceptions.ConnectionError)
_NOT_THERE = frozenset({"InternalServerErrorException", "SubscriptionRequiredException", "UnknownOperationException"})
_PLACE = "cartoray.place"

_making = threading.Lock()
_loader: Any = None  # of service models: a second each per service is read once in a process


Credentials = botocore.credentials.Credentials


class AwsSessions:
    """The sessions of one job, and its API calls: how many, and what Cartography takes for an empty answer.

    `check` is called before each call, and raises to end the job. `credentials` are those of an account's role, which
    renew themselves. Threads of the job may call at once.
    """

    def __init__(self, credentials: Callable[[Account], Credentials], region: str, check: Callable[[], None]) -> None:
        """`region`: of clients for which Cartography names none."""
        self._credentials, self._region, self._check = credentials, region, check
        self.calls = 0
        self._missing: dict[str, None] = {}
        _observe_skipped_regions()

    @property
    def missing(self) -> list[str]:
        """What was refused or did not answer, and is missing therefore; each once, in order."""
        return list(self._missing)

    def session(self, account: Account) -> Any:
        """A `boto3.Session`. It takes 5 ms of CPU, and so does a client of it. Raises CloudDenied, CloudUnavailable."""
        global _loader  # noqa: PLW0603
        core: Any = botocore.session.get_session()
        with _making:
            if _loader is None:
                _loader = core.get_component("data_loader")
            core.register_component("data_loader", _loader)
        core._credentials = self._credentials(account)  # no setter takes credentials that renew themselves
        session = _Session(botocore_session=core, region_name=self._region)
        session.made = partial(self._attach, account)
        return session

    def aio_session(self, account: Account) -> Any:
        """An `aioboto3.Session`, which signs with what the credentials are now; its calls are not watched."""
        now = self._credentials(account).get_frozen_credentials()
        return aioboto3.Session(
            aws_access_key_id=now.access_key,
            aws_secret_access_key=now.secret_key,
            aws_session_token=now.token,
            region_name=self._region,
        )

    def _attach(self, account: Account, client: Any, service: str, *, there: bool) -> None:
        """`there`: whether the client's region has the service, as far as botocore knows."""
        region = client.meta.region_name

        def before(**_: object) -> None:
            self._check()
            self.calls += 1

        def after(parsed: dict[str, Any], model: Any, **_: object) -> None:
            if "Error" in parsed:  # the exception that is raised for it carries this answer
                place = f"{service}:{model.name} in {region}, account {account.id}"
                parsed.setdefault("ResponseMetadata", {})[_PLACE] = (self, place)

        def failed(exception: Exception, event_name: str, **_: object) -> None:
            # Cartography takes it for a service that the region does not have
            if isinstance(exception, _NO_ANSWER) and there:
                operation = event_name.rpartition(".")[2]
                self._missing[f"{service}:{operation} in {region}, account {account.id}: {exception}"] = None

        for name, hook in (("before-call", before), ("after-call", after), ("after-call-error", failed)):
            client.meta.events.register(name, hook)

    def skipped(self, place: str, code: str, message: str) -> None:
        """A refusal that Cartography is about to take for an empty answer."""
        if code not in _NOT_THERE:
            self._missing[f"{place}: {said(code, message)}"] = None


def _observe_skipped_regions() -> None:
    """From now on what Cartography skips because a call was refused is known to the sessions that made the call.

    Its decorator for regional calls asks `cartography.util.is_aws_region_skippable_client_error`, by that name at each
    refusal, whether to answer with nothing. The answer stays the same. Repeating this changes nothing.
    """
    util = load_module("cartography.util")
    with _making:
        asked = util.is_aws_region_skippable_client_error
        if hasattr(asked, "observed"):
            return

        def observed(error: botocore.exceptions.ClientError) -> bool:
            skipped: bool = asked(error)
            answer: Any = error.response
            if skipped and (called := answer.get("ResponseMetadata", {}).get(_PLACE)):
                sessions, place = called
                sessions.skipped(place, answer["Error"].get("Code", ""), answer["Error"].get("Message", ""))
            return skipped

        observed.observed = True  # type: ignore[attr-defined]
        util.is_aws_region_skippable_client_error = observed


_Base: Any = boto3.Session  # its stub has an overload for each service


class _Session(_Base):  # type: ignore[misc]
    made: Callable[..., None]

    def client(self, service_name: str, *arguments: Any, **named: Any) -> Any:
        """With a configuration of its own: botocore changes that which it is given, and Cartography has one for all."""
        if named.get("config") is not None:
            named["config"] = copy.deepcopy(named["config"])
        client = super().client(service_name, *arguments, **named)
        there = self.get_available_regions(service_name)
        self.made(client, service_name, there=not there or client.meta.region_name in there)
        return client
