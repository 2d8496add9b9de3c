"""`cartoray up`, `ps`, `logs`, `down`: the embedded Kafka, Neo4j and simulated AWS."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from cartoray.cli.common import JsonOption, progress_console, result_console, settings
from cartoray.errors import StackError, UsageError

if TYPE_CHECKING:
    from cartoray.stack import artifacts
    from cartoray.stack.servers import EmbeddedStack, Event

EXIT_INTERRUPTED = 130
NEXT_COMMAND = "cartoray sync --provider aws --organization --serve"
SIMULATED_AWS = "simulated-aws"
_PLAIN_EVERY_S = 2.0  # between lines of progress where there is no terminal
_FOLLOW_S = 0.25


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command()(up)
    app.command()(ps)
    app.command()(logs)
    app.command()(down)


def up(
    simulate_aws: Annotated[
        int | None, typer.Option("--simulate-aws", min=1, metavar="N", help="Add a simulated AWS with N accounts.")
    ] = None,
    latency_ms: Annotated[
        float, typer.Option("--latency-ms", min=0, metavar="MS", help="Time that each simulated API call takes.")
    ] = 50,
    size: Annotated[
        int | None,
        typer.Option("--size", min=1, metavar="N", help="Instances per simulated account and region; the rest scales."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Other seeds make other simulated accounts.")] = 1,
    only: Annotated[
        str | None, typer.Option("--only", metavar="NAMES", help="Of kafka and neo4j these alone: kafka,neo4j.")
    ] = None,
) -> None:
    """Start Kafka and Neo4j on this machine, and a simulated AWS if asked for; what runs already is left alone.

    The first time, their jars (200 MB) are downloaded and verified. Commands in the same folder find the servers
    without any setting. Data outlives `cartoray down`; `cartoray down --wipe` removes it.
    """
    from cartoray.stack.servers import ServerFailed
    from cartoray.stack.simulated_aws_server import SimulatedAwsServer

    stores = _stores(only, simulated=simulate_aws is not None)
    simulated = SimulatedAwsServer(simulate_aws, latency_ms, seed, size) if simulate_aws is not None else None
    with _download_progress(progress_console) as on_progress:
        stack = _stack(stores=stores, simulated_aws=simulated, on_event=_tell, on_progress=on_progress)
        try:
            stack.up()
        except ServerFailed as error:
            for line in error.last_lines:
                progress_console.print(f"  {line}", style="dim", markup=False, highlight=False, soft_wrap=True)
            raise
        except KeyboardInterrupt:
            progress_console.print("Interrupted. What had been started was stopped again.")
            raise typer.Exit(EXIT_INTERRUPTED) from None
    _print_endpoints(stack)


def ps(as_json: JsonOption = False) -> None:
    """Show the servers of the embedded stack: whether they run, where, and what they take."""
    servers = _stack().status()
    if as_json:
        rows = [vars(server) | {"log_file": str(server.log_file), "ports": dict(server.ports)} for server in servers]
        typer.echo(json.dumps(rows, indent=2))
        return
    if not servers:
        typer.echo("Nothing was started here. `cartoray up` starts Kafka and Neo4j.")
        return
    table = _table("server", "state", "endpoint", "pid", "memory", "up for")
    for server in servers:
        running = server.pid is not None
        memory = f"{server.rss_bytes / 2**20:.0f} MB" if running else ""
        uptime = _duration(server.uptime_s) if running else ""
        pid = str(server.pid or "")
        table.add_row(server.name, server.state, server.endpoint, pid, memory, uptime)
    result_console.print(table)


def logs(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"kafka, neo4j or {SIMULATED_AWS}.")],
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more until Ctrl-C.")] = False,
) -> None:
    """Print the end of a server's log."""
    from cartoray.stack.process import last_lines

    log = _stack().folder.log_file(_server(name))
    if not log.exists():
        raise UsageError(f"{name} has no log here: it was never started. `cartoray up` starts it.")
    for line in last_lines(log, lines):
        typer.echo(line)
    if follow:
        _follow(log)


def down(
    wipe: Annotated[bool, typer.Option("--wipe", help="Remove data, logs and password as well.")] = False,
) -> None:
    """Stop the servers of the embedded stack. Data and logs stay, unless --wipe is given."""
    stack = _stack(on_event=_tell)
    stopped = stack.down(wipe=wipe)
    path = stack.folder.path
    if not stopped:
        typer.echo("Nothing runs here.")
    if wipe and path.exists():
        left = ", ".join(sorted(entry.name for entry in path.iterdir()))
        typer.echo(f"{_short(path)} has nothing of the stack any more. Not the stack's, and left: {left}")
    elif wipe:
        typer.echo(f"{_short(path)} is removed.")
    elif stopped:
        typer.echo(f"Data and logs stay in {_short(path)}; `cartoray down --wipe` removes them.")


# --- parts -----------------------------------------------------------------------------------------------------------


def _stack(**options: Any) -> EmbeddedStack:
    try:
        from cartoray.stack.servers import EmbeddedStack
    except ModuleNotFoundError as error:
        raise StackError(
            f"The embedded stack needs the package {error.name}. Install it with: pip install 'cartoray[local]'."
        ) from None
    return EmbeddedStack(settings=settings().stack, **options)


def _stores(only: str | None, *, simulated: bool) -> tuple[str, ...]:
    from cartoray.stack.servers import STORES

    if only is None:
        return STORES
    names = [name.strip() for name in only.split(",") if name.strip()]
    unknown = [name for name in names if name not in {*STORES, SIMULATED_AWS}]
    if unknown or not names:
        raise UsageError(f"--only takes names out of {', '.join(STORES)}, with commas; it got {only!r}.")
    if SIMULATED_AWS in names and not simulated:
        raise UsageError(f"--only {SIMULATED_AWS} needs --simulate-aws N as well: how many accounts?")
    return tuple(name for name in STORES if name in names)


def _server(name: str) -> str:
    from cartoray.stack.servers import STORES

    if name not in {*STORES, SIMULATED_AWS}:
        raise UsageError(f"{name!r} is no server of the stack. There are {', '.join(STORES)} and {SIMULATED_AWS}.")
    return name


def _tell(event: Event) -> None:
    progress_console.print(f"{event.server:<14} {event.kind.value:<13} {event.detail}".rstrip(), highlight=False)


@contextmanager
def _download_progress(console: Console) -> Iterator[Any]:
    """A bar that appears with the first byte from the network; lines instead where there is no terminal."""
    columns = (TextColumn("jars"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[size]}"))
    with Progress(
        *columns, TimeElapsedColumn(), console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("jars", total=None, visible=False, size="")
        printed_s = 0.0

        def show(progress: artifacts.Progress) -> None:
            nonlocal printed_s
            if not progress.bytes_downloaded:
                return
            size = f"{progress.bytes_downloaded / 1e6:.0f} MB"
            bar.update(task, completed=progress.jars_done, total=progress.jars_total, visible=True, size=size)
            if not console.is_terminal and (progress.finished or time.monotonic() - printed_s > _PLAIN_EVERY_S):
                printed_s = time.monotonic()
                done = f"{progress.jars_done} of {progress.jars_total}"
                console.print(f"{'jars':<14} {'downloaded' if progress.finished else 'downloading':<13} {done}, {size}")

        yield show


def _print_endpoints(stack: EmbeddedStack) -> None:
    table = _table("server", "endpoint", "login")
    password_in = _short(stack.folder.settings_file)
    for server in stack.status():
        if server.state == "running":
            login = f"neo4j, password in {password_in}" if server.name == "neo4j" else ""
            table.add_row(server.name, server.endpoint, login)
    progress_console.print()
    result_console.print(table)
    progress_console.print(f"\nNext: [bold]{NEXT_COMMAND}[/bold]", highlight=False)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _follow(log: Path) -> None:
    try:
        with log.open(encoding="utf-8", errors="replace") as file:
            file.seek(0, os.SEEK_END)
            while True:
                if text := file.read():
                    sys.stdout.write(text)
                    sys.stdout.flush()
                else:
                    time.sleep(_FOLLOW_S)
    except KeyboardInterrupt:
        return


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _short(path: Path) -> str:
    """`path` relative to the working directory where that is shorter."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
