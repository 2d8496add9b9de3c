"""`cartoray graph`: what is in the graph."""

from __future__ import annotations

import json

import typer
from rich.table import Table

from cartoray.cli.common import JsonOption, result_console, settings


def register(app: typer.Typer) -> None:
    app.command()(graph)


def graph(json_: JsonOption = False) -> None:
    """Count what is in the graph: nodes by label, relationships by type."""
    from ingestion.writer import count_graph

    counts = count_graph(settings().neo4j)
    if json_:
        print(json.dumps({"nodes": counts.nodes, "labels": counts.labels, "relationships": counts.relationships}))
        return
    for title, entries in (("label", counts.labels), ("relationship", counts.relationships)):
        table = Table(title, "count")
        table.columns[1].justify = "right"
        for name, count in sorted(entries.items(), key=lambda entry: (-entry[1], entry[0])):
            table.add_row(name, f"{count:,}")
        result_console.print(table)
    result_console.print(f"{counts.nodes:,} nodes, {sum(counts.relationships.values()):,} relationships")
