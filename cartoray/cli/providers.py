"""`cartoray providers`: whose inventory can be synced, by which modules, and with which configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.table import Table

from cartoray.cli.common import JsonOption, result_console
from cartoray.errors import UsageError
from cartoray.planning import Declaration, nearest


def register(app: typer.Typer) -> None:
    app.command()(providers)


def providers(
    name: Annotated[str | None, typer.Argument(help="one of them, with its modules and options")] = None,
    json_: JsonOption = False,
) -> None:
    """Whose inventory can be synced, by native modules or by Cartography's own, and which configuration each takes.

    Options are Cartography's, and stand behind `--`: `cartoray sync --provider github -- --github-config-env-var G`.
    An option that ends with -env-var names a variable of the workers' environment that holds a secret. Where `G` is not
    set and `G_FILE` is, it is read from that file.
    """
    from actors.catalogue import catalogue
    from actors.wrapped.configuration import options_of_providers

    aws, others = catalogue("aws"), catalogue("cartography")
    options = options_of_providers()
    known = {"aws": aws, **{each: {each: module} for each, module in others.items()}}
    if name is not None and name not in known:
        raise UsageError(nearest("provider", name, known))
    found = [
        {
            "provider": provider,
            "modules": [_described(module) for module in modules.values()],
            "options": [{"name": option, "help": text} for option, text in options.get(provider, {}).items()],
        }
        for provider, modules in known.items()
        if name in (None, provider)
    ]
    if json_:
        print(json.dumps(found))
    elif name is None:
        _list(known, options)
    else:
        _show(known[name], options.get(name, {}))


def _described(module: Declaration) -> dict[str, Any]:
    return {
        "module": module.name,
        "kind": "wrapped" if module.wrapped else "native",
        "once": module.once,
        "needs": list(dict.fromkeys((*module.after, *module.needs))),
    }


def _list(known: Mapping[str, Mapping[str, Declaration]], options: Mapping[str, Mapping[str, str]]) -> None:
    table = Table("provider", "native", "wrapped", "options of Cartography")
    for provider, modules in known.items():
        wrapped = sum(module.wrapped for module in modules.values())
        table.add_row(
            provider, str(len(modules) - wrapped or "–"), str(wrapped), " ".join(options.get(provider, {})) or "–"
        )
    result_console.print(table)


def _show(modules: Mapping[str, Declaration], options: Mapping[str, str]) -> None:
    table = Table("module", "kind", "done", "needs")
    for module in modules.values():
        row = _described(module)
        done = "once for all accounts" if module.once else "per account, late" if module.late else "per account"
        table.add_row(module.name, row["kind"], done, ", ".join(row["needs"]))
    result_console.print(table)
    if options:
        table = Table("option of Cartography", "what it is")
        for option, text in options.items():
            table.add_row(option, text)
        result_console.print(table)
