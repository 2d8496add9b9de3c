"""What is asked for, and what travels on `intel_jobs`: request → run → job (account × module)."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

FORMAT_VERSION: Final = 1
SESSION_PREFIX: Final = "session-"  # of the run ids of sessions that stand alone: they have no plan and no jobs

ACCOUNT_ID = r"^\d{12}$"
REGION = r"^[a-z]{2,5}(-[a-z]+)+-\d$"  # us-east-1, us-gov-west-1, eusc-de-east-1

AccountId = Annotated[str, Field(pattern=ACCOUNT_ID)]
Region = Annotated[str, Field(pattern=REGION)]
JobId = Annotated[str, Field(pattern=r"^[^/]+/[^/]+/[^/]+$")]  # as `job_id` makes them
Provider = Literal["aws"]


class Frozen(BaseModel):
    """A value that travels: unknown fields are refused, since they mean a newer writer."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Account(Frozen):
    """An AWS account to sync. `name` is what the graph shows; stock Cartography uses the profile's name."""

    id: AccountId
    name: str | None = None


class Run(Frozen):
    """One sync of a scope over accounts: what every job and event refers to.

    `update_tag` is Cartography's: seconds since 1970 when the run was planned. Of two runs planned within one second
    neither removes what only the other found; the next one does. `regions` empty: those enabled, per account.
    """

    version: Literal[1] = FORMAT_VERSION
    run_id: str
    update_tag: int
    provider: Provider = "aws"
    accounts: tuple[Account, ...]
    modules: tuple[str, ...]
    regions: tuple[Region, ...] = ()
    role_name: str | None = None
    planned_at_ms: int

    @property
    def jobs_total(self) -> int:
        return len(self.accounts) * len(self.modules)


class Job(Frozen):
    """One module of one account: the value on `intel_jobs` (JSON), keyed by the account.

    `after`: modules of the same run and account whose data this job's data must not overtake, because both write the
    same properties. They stand earlier in the same partition.
    """

    version: Literal[1] = FORMAT_VERSION
    run_id: str
    update_tag: int
    provider: Provider = "aws"
    account: Account
    module: str
    regions: tuple[Region, ...] = ()
    role_name: str | None = None
    after: tuple[str, ...] = ()

    @property
    def job_id(self) -> str:
        """Unique over all runs, and readable: `run/account/module`."""
        return job_id(self.run_id, self.account.id, self.module)


def job_id(run_id: str, account_id: str, module: str) -> str:
    return f"{run_id}/{account_id}/{module}"
