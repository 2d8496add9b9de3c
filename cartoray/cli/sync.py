"""`cartoray sync` and `cartoray plan`: from a request to a run."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cartoray.cli.common import JsonOption, progress_console, result_console, settings, use_simulated_aws
from cartoray.cli.render import as_dict, summary
from cartoray.completion import Outcome
from cartoray.errors import StackError, UsageError
from cartoray.events import RunPlanned, RunPublished, key_of
from cartoray.jobs import Account, Job, Priority, Run
from cartoray.kafka import Admin, Publisher
from cartoray.planning import Request, account, nearest, plan, unmet
from cartoray.planning import instance as instance_of
from cartoray.settings import KafkaSettings, Settings, variable
from cartoray.stack.simulated_aws import UNANSWERED
from cartoray.topics import topics

EXIT_CODES = {Outcome.COMPLETE: 0, Outcome.WITH_FAILURES: 3, Outcome.FAILED: 4, Outcome.CANCELLED: 5}

ProviderOption = Annotated[
    list[str] | None,
    typer.Option("--provider", metavar="NAME,…", help="whose inventory: aws; or others, see `cartoray providers`"),
]
InstanceOption = Annotated[
    str | None,
    typer.Option("--instance", metavar="NAME", help="what to call it, if there are several of a provider (not aws)"),
]
WrappedOption = Annotated[
    bool, typer.Option("--wrapped", help="Cartography's own code also for modules that are native, to compare")
]
AccountOption = Annotated[list[str] | None, typer.Option("--account", metavar="ID", help="12 digits; repeatable")]
FileOption = Annotated[
    Path | None, typer.Option("--accounts-file", metavar="F", help="a line per account: ID, then its name if wanted")
]
OrganizationOption = Annotated[
    bool, typer.Option("--organization", help="all active accounts of the AWS Organization of these credentials")
]
ScopeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--scope",
        metavar="MODULE,…",
        help="modules, e.g. ec2:instance,iam; native, analysis: all such; none: all",
    ),
]
RegionOption = Annotated[
    list[str] | None,
    typer.Option(
        "--region", metavar="…", help="regions to sync; none: those enabled. What is in the graph of others is removed"
    ),
]
RoleOption = Annotated[
    str | None,
    typer.Option("--role-name", metavar="NAME", help="role to assume in each account (CARTORAY_AWS_ROLE_NAME)"),
]


_OURS = {  # options of Cartography whose place another of ours has here
    "--selected-modules": "here it is --provider",
    "--aws-requested-syncs": "here it is --scope",
    "--aws-regions": "here it is --region",
    "--aws-sync-all-profiles": "here it is --accounts-file with --role-name, or --organization",
    "--aws-organization-account-ids": "here every account of the run is asked for its organization",
    "--aws-best-effort-mode": "here a job that fails never ends the others",
    "--update-tag": "here a run's is the time at which it was planned",
    "--neo4j-uri": "the graph is CARTORAY_NEO4J_URI, where the workers write",
}
_PASSES_ON = {"allow_extra_args": True}  # what stands behind `--` is for Cartography


def register(app: typer.Typer) -> None:
    app.command(context_settings=_PASSES_ON)(sync)
    app.command("plan", context_settings=_PASSES_ON)(plan_command)


def sync(
    context: typer.Context,
    provider: ProviderOption = None,
    instance: InstanceOption = None,
    accounts: AccountOption = None,
    accounts_file: FileOption = None,
    organization: OrganizationOption = False,
    scope: ScopeOption = None,
    region: RegionOption = None,
    role_name: RoleOption = None,
    wrapped: WrappedOption = False,
    priority: Annotated[
        Priority, typer.Option(help="high: its jobs go before those of other runs, as those of a person who waits")
    ] = "normal",
    wait: Annotated[bool, typer.Option(help="show progress until the run is complete")] = True,
    serve: Annotated[
        bool, typer.Option("--serve", help="run the workers as well, on this machine, for as long as this run takes")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Sync accounts into the graph: plan a run, publish its jobs, and wait until the graph is complete.

    The jobs go to Kafka; workers take them (`cartoray serve`, here or on a cluster). Interrupting this command does
    not stop the run: `cartoray status` shows how it goes on. As with Cartography, what a module no longer finds in
    the regions that it looked at is deleted from the graph at the end, unless the module failed.

    Modules that are not native run Cartography's own code, in the workers. Its options stand behind `--`, and secrets
    are where they name them, in the environment of the workers: `cartoray sync --provider github --
    --github-config-env-var GITHUB_CONFIG`.

    Exit code: 0 complete, 3 complete with failed jobs, 4 failed, 2 usage.
    """
    config = settings()
    simulated = use_simulated_aws(config)
    if simulated and (listed(provider) or ("aws",)) == ("aws",):
        progress_console.print(
            f"[dim]AWS is the simulated one of `cartoray up`, at {config.simulated_aws.endpoint_url}[/]",
            highlight=False,
        )
    Admin(config.kafka).check()
    run, jobs = _plan(
        config,
        _Asked(
            listed(provider) or ("aws",),
            instance,
            accounts or [],
            accounts_file,
            organization,
            listed(scope),
            listed(region),
            role_name,
            wrapped,
            tuple(context.args),
            priority,
        ),
        simulated=simulated,
        nonce=secrets.token_hex(2),
    )
    publish(config.kafka, run, jobs)
    if not json_:
        progress_console.print(f"run {run.run_id}: {_size(run)}", highlight=False)
    if not wait:
        print(json.dumps({"run_id": run.run_id, "jobs": run.jobs_total}) if json_ else run.run_id)
        return
    with workers(config) if serve else contextlib.nullcontext(lambda: None) as check:
        code = _wait(config, run, check, json_=json_)
    raise typer.Exit(code)


def plan_command(
    context: typer.Context,
    provider: ProviderOption = None,
    instance: InstanceOption = None,
    accounts: AccountOption = None,
    accounts_file: FileOption = None,
    organization: OrganizationOption = False,
    scope: ScopeOption = None,
    region: RegionOption = None,
    role_name: RoleOption = None,
    wrapped: WrappedOption = False,
    json_: JsonOption = False,
) -> None:
    """The jobs that `sync` with the same options would publish. Publishes nothing and needs no Kafka."""
    config = settings()
    simulated = use_simulated_aws(config)
    run, _ = _plan(
        config,
        _Asked(
            listed(provider) or ("aws",),
            instance,
            accounts or [],
            accounts_file,
            organization,
            listed(scope),
            listed(region),
            role_name,
            wrapped,
            tuple(context.args),
        ),
        simulated=simulated,
        nonce="plan",
    )
    jobs = tuple(run.jobs())
    if json_:
        needs = {job.module: list(run.needs.get(job.module, ())) for job in jobs}
        print(json.dumps({"jobs": [job.model_dump(mode="json") | {"needs": needs[job.module]} for job in jobs]}))
        return
    table = Table("account", "name", "module", "kind", "regions", "role", "not before")
    for job in jobs:
        table.add_row(
            job.account.id,
            job.account.name or "",
            job.module,
            "wrapped" if job.wrapped else "native",
            ", ".join(job.regions) or ("those enabled" if run.provider == "aws" else "–"),
            job.role_name or "–",
            ", ".join((*job.after, *run.needs.get(job.module, ()))),
        )
    result_console.print(table)
    result_console.print(_size(run))


def _size(run: Run) -> str:
    once = f", and {len(run.once)} for all together" if run.once else ""
    return f"{run.jobs_total} jobs ({len(run.accounts)} accounts × {len(run.modules)} modules{once})"


def publish(kafka: KafkaSettings, run: Run, jobs: tuple[Job, ...]) -> None:
    """Puts the run and its jobs on Kafka; returns when all are acknowledged. Raises KafkaUnavailable, SettingError.

    The plan goes first and a mark that nothing is missing last: a run without it was cut off, and never cleans up.
    """
    names = topics(kafka)
    Admin(kafka).ensure(names)
    publisher = Publisher(kafka, "cartoray-sync")
    try:
        planned, published = RunPlanned(run=run), RunPublished(run_id=run.run_id)
        publisher.publish(names.events.name, key_of(planned).encode(), planned.model_dump_json().encode()).result()
        for job in jobs:
            publisher.publish(names.jobs.name, job.account.id.encode(), job.model_dump_json().encode())
        publisher.flush()
        publisher.publish(names.events.name, key_of(published).encode(), published.model_dump_json().encode()).result()
    finally:
        publisher.close()


@dataclass(frozen=True)
class _Asked:
    """What the options of `sync` and `plan` say."""

    providers: tuple[str, ...]
    instance: str | None
    accounts: list[str]
    accounts_file: Path | None
    organization: bool
    scope: tuple[str, ...]
    regions: tuple[str, ...]
    role_name: str | None
    wrapped: bool
    options: tuple[str, ...]
    priority: Priority = "normal"


def _plan(config: Settings, asked: _Asked, *, simulated: bool, nonce: str) -> tuple[Run, tuple[Job, ...]]:
    from actors.catalogue import catalogue

    others = catalogue("cartography")
    for name in asked.providers:
        if name != "aws" and name not in others:
            raise UsageError(nearest("provider", name, ("aws", *others)))
    for option, instead in _OURS.items():
        if any(each == option or each.startswith(f"{option}=") for each in asked.options):
            raise UsageError(f"{option} is for Cartography's own command; {instead}.")
    if asked.options:
        from actors.wrapped.configuration import configuration

        configuration(asked.options)  # refuses now what the workers would refuse later
    if asked.providers != ("aws",):
        return plan(_others(asked), others, time.time_ns() // 1_000_000, nonce)
    known = catalogue("aws", wrapped=asked.wrapped)
    if simulated and not asked.scope:
        known = {name: module for name, module in known.items() if name not in UNANSWERED}
    run, jobs = plan(_aws(config, asked, simulated=simulated), known, time.time_ns() // 1_000_000, nonce)
    for module, absent in unmet(run, known).items():
        progress_console.print(
            f"[yellow]{module} reads what {', '.join(absent)} would sync, which the scope does not have:[/] it uses "
            "what is in the graph of that.",
            highlight=False,
        )
    if run.touch != config.ingestion.touch:
        progress_console.print(
            f"[dim]{variable('ingestion', 'touch')} is {config.ingestion.touch}, but this scope has modules that are "
            "not native, whose cleanups look at lastupdated: all nodes are touched[/]",
            highlight=False,
        )
    return run, jobs


def _others(asked: _Asked) -> Request:
    if "aws" in asked.providers:
        raise UsageError("aws is synced by a run of its own; the others may share one: --provider github,okta.")
    for_aws = {
        "--account": asked.accounts,
        "--accounts-file": asked.accounts_file,
        "--organization": asked.organization,
        "--scope": asked.scope,
        "--region": asked.regions,
        "--role-name": asked.role_name,
        "--wrapped": asked.wrapped,
    }
    if given := [name for name, value in for_aws.items() if value]:
        raise UsageError(f"{', '.join(given)}: for --provider aws alone.")
    named = instance_of(asked.instance or "-".join(asked.providers))
    return Request((named,), asked.providers, provider="cartography", options=asked.options, priority=asked.priority)


def _aws(config: Settings, asked: _Asked, *, simulated: bool) -> Request:
    if asked.instance is not None:
        raise UsageError("--instance is for providers other than aws, whose accounts have names of their own.")
    if sum((bool(asked.accounts), asked.accounts_file is not None, asked.organization)) != 1:
        raise UsageError("Give one of --account ID (repeatable), --accounts-file F and --organization.")
    role = asked.role_name or config.aws.role_name or (config.simulated_aws.role_name if simulated else None)
    if asked.accounts_file is not None:
        chosen = read_accounts(asked.accounts_file)
    elif asked.organization:
        from actors.aws.clients import organization_accounts

        chosen = organization_accounts(config.aws)
    else:
        chosen = tuple(account(each) for each in asked.accounts)
    if len(chosen) > 1 and role is None:
        raise UsageError(
            f"{len(chosen)} accounts, but no role to assume in them: give --role-name NAME or set "
            "CARTORAY_AWS_ROLE_NAME. Without a role, the workers' own credentials are used, which are for one account."
        )
    return Request(
        chosen,
        asked.scope,
        asked.regions,
        role,
        options=asked.options,
        touch=config.ingestion.touch,
        priority=asked.priority,
    )


def listed(values: list[str] | None) -> tuple[str, ...]:
    """The words of an option that may be repeated, and takes several with commas between them."""
    return tuple(part.strip() for value in values or () for part in value.split(",") if part.strip())


def read_accounts(path: Path) -> tuple[Account, ...]:
    """Accounts of a file: a line each, the ID and, after a space or comma, a name; `#` begins a comment.

    Raises UsageError naming the line.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--accounts-file {path}: {error}") from None
    found = []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        account_id, _, name = text.replace(",", " ", 1).partition(" ")
        try:
            found.append(account(account_id, name.strip()))
        except UsageError as error:
            raise UsageError(f"{path}, line {number}: {error}") from None
    return tuple(found)


def _wait(config: Settings, run: Run, check: Callable[[], None], *, json_: bool) -> int:
    from actors.modules import modules
    from cartoray.cli.watch import watch
    from cartoray.cluster.follow_ups import follow_ups

    wanted = follow_ups(modules())
    try:
        state = watch(config.kafka, run.run_id, wanted, quiet=json_, check=check)
    except KeyboardInterrupt:
        progress_console.print(
            "\nInterrupted. Nothing is lost: the jobs are in Kafka, and the run goes on wherever `cartoray serve` "
            f"runs. See it with: cartoray status {run.run_id}\nStop it with: cartoray cancel {run.run_id}",
            highlight=False,
        )
        return 130
    if json_:
        print(json.dumps(as_dict(state, wanted)))
    else:
        summary(result_console, state, wanted)
    return EXIT_CODES[state.ended(wanted) or state.outcome]


@contextlib.contextmanager
def workers(config: Settings) -> Iterator[Callable[[], None]]:
    """A driver of our own as a child process; the check raises StackError with its last words when it ends early."""
    log_path = config.stack.state_dir / "logs" / "serve.log"
    log_path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with log_path.open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "cartoray.cli.main", "serve"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | {"COLUMNS": "240"},
            start_new_session=True,  # Ctrl-C is for this command; the driver is asked to drain
        )

    def check() -> None:
        if child.poll() is not None:
            lines = [line for line in log_path.read_text(errors="replace").splitlines() if line.strip()]
            raise StackError(f"The workers ended: {lines[-1] if lines else 'no message'} (log: {log_path})")

    try:
        yield check
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(max(config.intel.drain_s, config.ingestion.drain_s) + 20)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
