"""A request and the modules' declarations → a run and its jobs. No clock, no chance: both are arguments."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from cartoray.errors import UnknownModule, UsageError
from cartoray.jobs import ACCOUNT_ID, REGION, Account, Job, Run

ACCOUNT_MODULE = "account"  # makes the account's own node, which every other row hangs on: always planned, first


class Declaration(Protocol):
    """What planning has to know of a module; `actors.modules.NativeModule` is one."""

    @property
    def name(self) -> str: ...

    @property
    def after(self) -> Sequence[str]:
        """Modules whose data must be published before this one's, where both are in the run."""


@dataclass(frozen=True)
class Request:
    """What a person asks for. `modules` empty: all; `regions` empty: those that are enabled, per account."""

    accounts: tuple[Account, ...]
    modules: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    role_name: str | None = None


def plan(request: Request, known: Mapping[str, Declaration], now_ms: int, nonce: str) -> tuple[Run, tuple[Job, ...]]:
    """The run and its jobs, in the order in which they are to be published.

    `now_ms` is milliseconds since 1970, `nonce` a few characters that tell runs of the same second apart. Accounts
    alternate before modules, so that no one bucket of AWS's rate limits takes all the first calls. Within an account
    a module stands behind those it must not overtake.

    Raises UsageError (no account, a wrong id, one twice, a wrong region) and UnknownModule with the nearest names.
    """
    accounts = _accounts(request.accounts)
    for region in request.regions:
        if not re.match(REGION, region):
            raise UsageError(f"{region!r} is not a region; regions look like us-east-1.")
    modules = _modules(request.modules, known)
    stamp = datetime.fromtimestamp(now_ms // 1000, UTC).strftime("%Y%m%dT%H%M%SZ")  # sorts by time, read by people
    run = Run(
        run_id=f"{stamp}-{nonce}",
        update_tag=now_ms // 1000,
        accounts=accounts,
        modules=modules,
        regions=tuple(dict.fromkeys(request.regions)),
        role_name=request.role_name,
        planned_at_ms=now_ms,
    )
    return run, jobs_of(run, known)


def jobs_of(run: Run, known: Mapping[str, Declaration]) -> tuple[Job, ...]:
    """The jobs of a run: its accounts × its modules."""
    chosen = set(run.modules)
    return tuple(
        Job(
            run_id=run.run_id,
            update_tag=run.update_tag,
            provider=run.provider,
            account=account,
            module=module,
            regions=run.regions,
            role_name=run.role_name,
            after=tuple(other for other in known[module].after if other in chosen),
        )
        for module in run.modules
        for account in run.accounts
    )


def _accounts(accounts: Sequence[Account]) -> tuple[Account, ...]:
    if not accounts:
        raise UsageError("No account to sync: give --account, --accounts-file or --organization.")
    unique: dict[str, Account] = {}
    for account in accounts:
        if account.id in unique:
            raise UsageError(f"Account {account.id} is given twice.")
        unique[account.id] = account
    return tuple(unique.values())


def account(account_id: str, name: str | None = None) -> Account:
    """Raises UsageError for anything but twelve digits."""
    if not re.match(ACCOUNT_ID, account_id):
        raise UsageError(f"{account_id!r} is not an AWS account ID; they have 12 digits.")
    return Account(id=account_id, name=name or None)


def _modules(asked: Collection[str], known: Mapping[str, Declaration]) -> tuple[str, ...]:
    for name in asked:
        if name not in known:
            raise UnknownModule(unknown_module(name, known))
    chosen = set(asked) | {ACCOUNT_MODULE} if asked else set(known)
    ordered: list[str] = []

    def place(name: str) -> None:
        if name in chosen and name not in ordered:
            for earlier in known[name].after:
                place(earlier)
            ordered.append(name)

    for name in (ACCOUNT_MODULE, *known):
        place(name)
    return tuple(ordered)


def unknown_module(name: str, known: Collection[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"Did you mean {' or '.join(nearest)}?" if nearest else f"There are: {', '.join(sorted(known))}."
    return f"There is no module {name!r}. {hint}"
