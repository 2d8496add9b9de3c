"""The `cartoray` command: one file a noun; what is heavy (Ray, boto3) is imported by the command that needs it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

import cartoray.cli.acls
import cartoray.cli.cartography
import cartoray.cli.config
import cartoray.cli.dead_letters
import cartoray.cli.graph
import cartoray.cli.iam_policy
import cartoray.cli.providers
import cartoray.cli.runs
import cartoray.cli.serve
import cartoray.cli.stack
import cartoray.cli.sync
from cartoray.errors import CartorayError, UsageError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,  # locals hold credentials
    help="""Cartography's graph, at least ten times faster: Kafka and Ray between the cloud APIs and Neo4j.

    A first look, on this machine alone:

        cartoray up --simulate-aws 5
        cartoray sync --provider aws --organization --serve
        cartoray graph
        cartoray down --wipe

    Exit codes: 0 complete, 2 usage, 3 complete with failed jobs, 4 failed, 5 cancelled, 130 interrupted.
    """,
)


def _version(*, value: bool) -> None:
    if value:
        from importlib.metadata import version

        print(version("cartoray"))
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=lambda value: _version(value=value), is_eager=True, help="and leave")
    ] = False,
) -> None:
    pass


for part in (
    cartoray.cli.stack,
    cartoray.cli.sync,
    cartoray.cli.runs,
    cartoray.cli.cartography,
    cartoray.cli.providers,
    cartoray.cli.iam_policy,
    cartoray.cli.serve,
    cartoray.cli.graph,
    cartoray.cli.dead_letters,
    cartoray.cli.config,
    cartoray.cli.acls,
):
    part.register(app)


def main() -> None:
    """Runs the command. What is wrong is one line on stderr that says what to do; a traceback is a bug."""
    try:
        app()
    except CartorayError as error:
        Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2 if isinstance(error, UsageError) else 4)


if __name__ == "__main__":
    main()
