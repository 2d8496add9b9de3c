"""What is asked for, and what travels on `intel_jobs`: request → run → job (account × module)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

FORMAT_VERSION: Final = 1
SESSION_PREFIX: Final = "session-"  # of the run ids of sessions that stand alone: they have no plan and no jobs

EVERY_ACCOUNT: Final = "all"  # whom a job is for that is done once, for all accounts of a run

ACCOUNT_ID = r"^\d{12}$"
INSTANCE = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
REGION = r"^[a-z]{2,5}(-[a-z]+)+-\d$"  # us-east-1, us-gov-west-1, eusc-de-east-1

AccountId = Annotated[str, Field(pattern=INSTANCE)]
Region = Annotated[str, Field(pattern=REGION)]
JOB_ID = r"^[^/]+/[^/]+/[^/]+$"  # as `job_id` makes them
JobId = Annotated[str, Field(pattern=JOB_ID)]
Name = Annotated[str, Field(pattern=r"^[^/]+$")]  # of a run or a module: a part of a job's id
UpdateTag = Annotated[int, Field(ge=0, lt=2**63)]  # Neo4j's integers
Milliseconds = Annotated[int, Field(ge=0, lt=253_402_300_800_000)]  # since 1970; Python's years end with 9999
Provider = Literal["aws", "cartography"]
Priority = Literal["normal", "high"]  # the jobs of a high one are taken first
Touch = Literal["always", "lazy"]  # whether nodes that did not change get the run's update tag as well


class Frozen(BaseModel):
    """A value that travels: unknown fields are refused, since they mean a newer writer."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Account(Frozen):
    """Whose inventory is synced: an AWS account, or whatever instance of another provider a person calls `id`.

    `name` is what the graph shows; stock Cartography uses the profile's name.
    """

    id: AccountId
    name: str | None = None


class Run(Frozen):
    """One sync of a scope over accounts: what every job and event refers to, and all that its jobs follow from.

    `update_tag` is Cartography's: seconds since 1970 when the run was planned. Of two runs planned within one second
    neither removes what only the other found; the next one does. `regions` empty: those enabled, per account.

    `provider` aws: `modules` are those of an AWS account. cartography: they are Cartography's other top-level modules
    (github, okta, …), and an account is an instance of them.

    `once`: modules with one job for all accounts together. `wrapped`: those of both kinds that run Cartography's own
    code. `late`: those of `modules` that start when what all others of the account deferred has been settled.
    `after`: module → modules whose data its data must not overtake. `needs`: module → modules that must have landed
    before it starts. `cleaned`: native modules that must have been cleaned up as well before what needs them starts.
    `options` are arguments of Cartography's command line, for wrapped modules.
    """

    version: Literal[1] = FORMAT_VERSION
    run_id: Name
    update_tag: UpdateTag
    provider: Provider = "aws"
    accounts: tuple[Account, ...]
    modules: tuple[Name, ...]
    once: tuple[Name, ...] = ()
    wrapped: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
    after: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    needs: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    cleaned: tuple[str, ...] = ()
    regions: tuple[Region, ...] = ()
    role_name: str | None = None
    options: tuple[str, ...] = ()
    touch: Touch = "always"
    priority: Priority = "normal"
    planned_at_ms: Milliseconds

    @property
    def jobs_total(self) -> int:
        return len(self.accounts) * len(self.modules) + len(self.once)

    def held(self, module: str) -> bool:
        """Whether jobs of the module are not published before something has landed."""
        return module in self.needs or module in self.late or module in self.once

    def jobs(self) -> Iterator[Job]:
        """All jobs, in the order in which they are published.

        Accounts alternate before modules, so that no one bucket of AWS's rate limits takes all the first calls.
        """
        for module in self.modules:
            for account in self.accounts:
                yield self.job(account, module)
        for module in self.once:
            yield self.job(Account(id=EVERY_ACCOUNT), module)

    def job(self, account: Account, module: str) -> Job:
        return Job(
            run_id=self.run_id,
            update_tag=self.update_tag,
            provider=self.provider,
            account=account,
            module=module,
            wrapped=module in self.wrapped,
            accounts=self.accounts if account.id == EVERY_ACCOUNT else (),
            regions=self.regions,
            role_name=self.role_name,
            after=self.after.get(module, ()),
            options=self.options if module in self.wrapped else (),
            touch=self.touch,
            priority=self.priority,
        )


class Job(Frozen):
    """One module of one account: the value on `intel_jobs` (JSON), keyed by the account.

    `after`: modules of the same run and account whose data this job's data must not overtake, because both write the
    same properties. They stand earlier in the same partition. `accounts`: of a job for all accounts of the run.
    """

    version: Literal[1] = FORMAT_VERSION
    run_id: Name
    update_tag: UpdateTag
    provider: Provider = "aws"
    account: Account
    module: Name
    wrapped: bool = False
    accounts: tuple[Account, ...] = ()
    regions: tuple[Region, ...] = ()
    role_name: str | None = None
    after: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    touch: Touch = "always"
    priority: Priority = "normal"

    @property
    def job_id(self) -> str:
        """Unique over all runs, and readable: `run/account/module`."""
        return job_id(self.run_id, self.account.id, self.module)


def job_id(run_id: str, account_id: str, module: str) -> str:
    return f"{run_id}/{account_id}/{module}"
