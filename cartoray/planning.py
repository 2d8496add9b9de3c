"""A request and the modules' declarations → a run and its jobs. No clock, no chance: both are arguments."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from graphlib import TopologicalSorter
from typing import Protocol

from cartoray.errors import UnknownModule, UsageError
from cartoray.jobs import ACCOUNT_ID, EVERY_ACCOUNT, INSTANCE, REGION, Account, Job, Priority, Provider, Run, Touch

NATIVE = "native"  # all modules that are extracted here
ANALYSIS = "analysis"  # all jobs over the graph whose modules are in the scope
ACCOUNT_MODULE = "account"  # makes the account's own node, which every other row hangs on: always planned, first


class Declaration(Protocol):
    """What planning has to know of a module; those of `actors.catalogue` are."""

    @property
    def name(self) -> str: ...

    @property
    def wrapped(self) -> bool:
        """Whether it runs Cartography's own code, which reads from the graph what others wrote."""

    @property
    def once(self) -> bool:
        """One job for all accounts of the run, when all that they deferred has been settled."""

    @property
    def late(self) -> bool:
        """Starts when what the account's other modules deferred has been settled."""

    @property
    def cleans(self) -> bool:
        """Has a cleanup of its own after it has landed, for which those wait that need it."""

    @property
    def after(self) -> Sequence[str]:
        """Modules that write the same properties: their data comes before this one's, where both are in the run."""

    @property
    def brings(self) -> Sequence[str]:
        """Modules that do the rest of it: they are in a run that asks for it by name."""

    @property
    def needs(self) -> Sequence[str]:
        """Modules whose data it reads, or would else undo."""


@dataclass(frozen=True)
class Request:
    """What a person asks for. `modules` empty: all; `regions` empty: those that are enabled, per account."""

    accounts: tuple[Account, ...]
    modules: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    role_name: str | None = None
    provider: Provider = "aws"
    options: tuple[str, ...] = ()
    touch: Touch = "always"
    priority: Priority = "normal"


def plan(request: Request, known: Mapping[str, Declaration], now_ms: int, nonce: str) -> tuple[Run, tuple[Job, ...]]:
    """The run, and those of its jobs that need nothing: they are to be published in this order. See `Run.jobs`.

    `now_ms` is milliseconds since 1970, `nonce` a few characters that tell runs of the same second apart. Within an
    account a module stands behind those it must not overtake.

    Between native modules the order of their data is enough, and extraction goes on meanwhile; where one of two is
    wrapped, the first has landed before the second starts. Where one is, all nodes are touched: its cleanups may look
    at when a node was updated.

    Raises UsageError (no account, a wrong id, one twice, a wrong region) and UnknownModule with the nearest names.
    """
    accounts = _accounts(request.accounts)
    for region in request.regions:
        if not re.match(REGION, region):
            raise UsageError(f"{region!r} is not a region; regions look like us-east-1.")
    chosen = chosen_modules(request.modules, known)
    needs = {
        name: tuple(
            other
            for other in dict.fromkeys((*known[name].after, *known[name].needs))
            if other in chosen and (known[name].wrapped or known[other].wrapped)
        )
        for name in chosen
    }
    needed = {other for others in needs.values() for other in others}
    stamp = datetime.fromtimestamp(now_ms // 1000, UTC).strftime("%Y%m%dT%H%M%SZ")  # sorts by time, read by people
    run = Run(
        run_id=f"{stamp}-{nonce}",
        update_tag=now_ms // 1000,
        provider=request.provider,
        accounts=accounts,
        modules=tuple(name for name in chosen if not known[name].once),
        once=tuple(name for name in chosen if known[name].once),
        wrapped=tuple(name for name in chosen if known[name].wrapped),
        late=tuple(name for name in chosen if known[name].late and not known[name].once),
        after={name: after for name in chosen if (after := _after(name, known, chosen))},
        needs={name: others for name, others in needs.items() if others},
        cleaned=tuple(name for name in chosen if known[name].cleans and name in needed),
        regions=tuple(dict.fromkeys(request.regions)),
        role_name=request.role_name,
        options=request.options,
        touch="always" if any(known[name].wrapped for name in chosen) else request.touch,
        priority=request.priority,
        planned_at_ms=now_ms,
    )
    return run, tuple(job for job in run.jobs() if not run.held(job.module))


def _after(name: str, known: Mapping[str, Declaration], chosen: Collection[str]) -> tuple[str, ...]:
    if known[name].wrapped:
        return ()
    return tuple(other for other in known[name].after if other in chosen and not known[other].wrapped)


def unmet(run: Run, known: Mapping[str, Declaration]) -> dict[str, tuple[str, ...]]:
    """Wrapped module → modules that it reads from and that are not in the run."""
    chosen = {*run.modules, *run.once}
    found = {name: tuple(other for other in known[name].needs if other not in chosen) for name in run.wrapped}
    return {name: others for name, others in found.items() if others}


def _accounts(accounts: Sequence[Account]) -> tuple[Account, ...]:
    if not accounts:
        raise UsageError("No account to sync: give --account, --accounts-file or --organization.")
    unique: dict[str, Account] = {}
    for account in accounts:
        if account.id == EVERY_ACCOUNT:
            raise UsageError(f"{EVERY_ACCOUNT!r} stands for all of a run; give the instance another name.")
        if account.id in unique:
            raise UsageError(f"Account {account.id} is given twice.")
        unique[account.id] = account
    return tuple(unique.values())


def account(account_id: str, name: str | None = None) -> Account:
    """Raises UsageError for anything but twelve digits."""
    if not re.match(ACCOUNT_ID, account_id):
        raise UsageError(f"{account_id!r} is not an AWS account ID; they have 12 digits.")
    return Account(id=account_id, name=name or None)


def instance(name: str) -> Account:
    """An instance of a provider other than AWS, by the name that a person gives it. Raises UsageError."""
    if not re.match(INSTANCE, name):
        raise UsageError(f"{name!r} cannot name an instance: letters, digits and . _ - can, at most 100.")
    return Account(id=name)


def chosen_modules(asked: Collection[str], known: Mapping[str, Declaration]) -> tuple[str, ...]:
    """The modules, each behind those it waits for. `native` stands for all of these, `analysis` for what it can read.

    Raises UnknownModule, and ValueError when modules wait for each other in a circle.
    """
    sorter = TopologicalSorter({name: (*known[name].after, *known[name].needs) for name in known})
    ordered = [name for name in sorter.static_order() if name in known]
    chosen = set(asked) - {NATIVE, ANALYSIS} if asked else set(known)
    for name in chosen - known.keys():
        raise UnknownModule(unknown_module(name, [*known, NATIVE, ANALYSIS]))
    chosen |= {other for name in chosen for other in known[name].brings if other in known}
    if ACCOUNT_MODULE in known:
        chosen.add(ACCOUNT_MODULE)
    if NATIVE in asked:
        chosen |= {name for name in known if not known[name].wrapped}
    if ANALYSIS in asked:
        for name in ordered:
            if name.startswith(f"{ANALYSIS}:") and chosen.issuperset(known[name].needs):
                chosen.add(name)
    return tuple(sorted(chosen, key=lambda name: (name != ACCOUNT_MODULE, ordered.index(name))))


def unknown_module(name: str, known: Collection[str]) -> str:
    return nearest("module", name, known)


def nearest(what: str, name: str, known: Collection[str]) -> str:
    """What to say of a name that is not known."""
    found = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"Did you mean {' or '.join(found)}?" if found else f"There are: {', '.join(sorted(known))}."
    return f"There is no {what} {name!r}. {hint}"
