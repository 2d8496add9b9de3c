"""What a job needs of a cloud. `actors.aws.clients` is AWS; tests have another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from actors.modules import Call, Item
from cartoray.jobs import Account


class RegionNotEnabled(Exception):
    """Not an error: the account has not opted into the region, so there is nothing in it."""


class Absent(Exception):
    """Not an error: AWS says that there is no such thing, by a code that the call names."""


class Sessions(Protocol):
    """Of one job that runs Cartography's own code: it makes clients as it likes."""

    @property
    def calls(self) -> int:
        """API calls so far."""

    @property
    def missing(self) -> list[str]:
        """What the cloud refused, and Cartography took for an empty answer."""

    def session(self, account: Account) -> Any:
        """A `boto3.Session`. Raises CloudDenied, CloudUnavailable."""

    def aio_session(self, account: Account) -> Any:
        """An `aioboto3.Session`. Raises the same."""


class Cloud(Protocol):
    """Calls on behalf of an account; `role_name` None: the role of the settings, or else the worker's own credentials.

    `check` is called before every attempt of a call and while waiting for one; what it raises comes through.
    Both raise CloudDenied (RegionDenied where a region refuses) and CloudUnavailable; no text holds a credential.
    """

    def regions(self, account: Account, role_name: str | None, check: Callable[[], None]) -> tuple[str, ...]:
        """The regions that are enabled for the account, discovered at most once in a while."""

    def pages(
        self,
        account: Account,
        role_name: str | None,
        region: str | None,
        call: Call,
        check: Callable[[], None],
        **parameters: Any,
    ) -> Iterator[list[Item]]:
        """The items of each page; one API call a page. `region` None: the region of the global services.

        Raises RegionNotEnabled and Absent.
        """

    def sessions(self, role_name: str | None, check: Callable[[], None]) -> Sessions:
        """`check` is called before each call of theirs."""

    @property
    def default_region(self) -> str:
        """Where global services are asked."""
