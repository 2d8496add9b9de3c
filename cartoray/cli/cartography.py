"""`cartoray cartography`: stock Cartography, its writes through Kafka."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from cartoray.cli.common import progress_console, settings, use_simulated_aws
from cartoray.cli.sync import workers
from cartoray.kafka import Admin
from cartoray.topics import topics

_DATABASE_OPTIONS = ("--neo4j-uri", "--neo4j-user", "--neo4j-password-env-var", "--neo4j-database")


def register(app: typer.Typer) -> None:
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(cartography)


def cartography(
    context: typer.Context,
    serve: Annotated[
        bool, typer.Option("--serve", help="run the workers as well, on this machine, for as long as this takes")
    ] = False,
) -> None:
    """Run Cartography itself with the arguments that you have: `cartoray cartography -- --selected-modules github …`.

    It runs as it always does, but for its writes: these go to Kafka, in order, and the ingestion workers put them into
    the Neo4j of cartoray's settings (CARTORAY_NEO4J_…); its own --neo4j-… options are not used. What it reads it reads
    there, after what it wrote before has landed. It ends when all is in the graph, with Cartography's own exit code.
    """
    config = settings()
    use_simulated_aws(config)
    if given := [option for option in _DATABASE_OPTIONS if any(each.startswith(option) for each in context.args)]:
        progress_console.print(
            f"[yellow]{', '.join(given)} not used:[/] the graph is {config.neo4j.uri}, as CARTORAY_NEO4J_URI says.",
            highlight=False,
        )
    names = topics(config.kafka)
    Admin(config.kafka).ensure(names)

    from actors.wrapped.command import run_cartography
    from actors.wrapped.session import GraphDriver

    with workers(config) if serve else contextlib.nullcontext(), GraphDriver(config) as driver:
        code = run_cartography(driver, context.args)
    raise typer.Exit(code)
