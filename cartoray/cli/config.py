"""`cartoray config`: what is in force, and from where."""

from __future__ import annotations

import json
from typing import Any

import typer
from pydantic import SecretStr
from rich.table import Table

from cartoray.cli.common import JsonOption, result_console
from cartoray.settings import load, variable


def register(app: typer.Typer) -> None:
    app.command()(config)


def _shown(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return "********" if value.get_secret_value() else ""
    return value if value is None or isinstance(value, int | float | str | bool) else str(value)


def config(json_: JsonOption = False) -> None:
    """Every setting: its environment variable, its value (secrets masked) and where it comes from.

    Settings come from, the first that has it: the environment (`CARTORAY_KAFKA_BOOTSTRAP_SERVERS`), `cartoray.toml`
    here or where CARTORAY_CONFIG points (`[kafka] bootstrap_servers = …`), the embedded stack, the default.
    """
    loaded = load()
    entries = [
        {
            "setting": variable(group, name),
            "value": _shown(value),
            "source": loaded.sources.get((group, name), "default"),
            "help": type(section).model_fields[name].description or "",
        }
        for group, section in loaded.settings
        for name, value in section
    ]
    if json_:
        print(json.dumps(entries))
        return
    table = Table("setting", "value", "from", "what it is")
    for entry in entries:
        value = "–" if entry["value"] is None else str(entry["value"])
        table.add_row(str(entry["setting"]), value, str(entry["source"]), str(entry["help"]))
    result_console.print(table)
