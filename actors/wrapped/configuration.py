"""Arguments of Cartography's command line → its configuration, as its own command line makes it."""

from __future__ import annotations

import logging
import os
import threading
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from actors.transforms import load_module
from cartoray.errors import UsageError

_NOT_FOR_PROVIDERS = ("CARTORAY_", "AWS_")
_parsing = threading.Lock()


@lru_cache(maxsize=64)
def configuration(options: tuple[str, ...]) -> Any:
    """A `cartography.config.Config`; it holds the secrets of those environment variables that the options name.

    Raises UsageError. The first call loads Cartography's command line, which takes a second.
    """
    command, sync = load_module("cartography.cli"), load_module("cartography.sync")
    found: list[Any] = []
    # typer sets it for a moment and deletes it again; who reads the environment at that time, as botocore does, fails
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")
    with _parsing:
        secrets_from_files(options)
        level = logging.getLogger("cartography").level
        theirs, sync.run_with_config = sync.run_with_config, lambda _, config: found.append(config)
        try:
            command.CLI(prog="cartography")._build_app(set())(list(options), standalone_mode=False)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - of several libraries, all about the arguments
            said = error.format_message() if hasattr(error, "format_message") else str(error)
            raise UsageError(f"Cartography does not take {' '.join(options)}: {said}") from None
        finally:
            sync.run_with_config = theirs
            logging.getLogger("cartography").setLevel(level)
    if not found:
        raise UsageError(f"Cartography takes {' '.join(options)} for a question, not for a sync.")
    return found[0]


def options_of_providers() -> dict[str, dict[str, str]]:
    """Provider → the options of Cartography's command line that are its own, each with its help."""
    command, typer = load_module("cartography.cli"), load_module("typer.main")
    by_panel: dict[str, dict[str, str]] = {}
    with _parsing:
        parameters = typer.get_command(command.CLI(prog="cartography")._build_app(set())).params
    for parameter in parameters:
        options = by_panel.setdefault(getattr(parameter, "rich_help_panel", None) or "", {})
        options[parameter.opts[0]] = " ".join((parameter.help or "").split())
    return {provider: by_panel.get(panel, {}) for provider, panel in command.MODULE_PANELS.items()}


def secret_names(options: tuple[str, ...]) -> tuple[str, ...]:
    """The environment variables that the options name as those of secrets.

    Options come from a job, and others of them say which host gets the secret: those of cartoray itself and of AWS are
    for no provider. Raises UsageError.
    """
    found = []
    for option, following in pairwise((*options, "")):
        name, _, value = option.partition("=")
        if name.startswith("--") and name.endswith("-env-var") and (value or following):
            found.append(value or following)
    for name in found:
        if name.upper().startswith(_NOT_FOR_PROVIDERS):
            raise UsageError(f"{name} is a setting of cartoray's or AWS's own, which no option may name.")
    return tuple(found)


def secrets_from_files(options: tuple[str, ...]) -> None:
    """Where `NAME` is not set and `NAME_FILE` is, `NAME` becomes what that file holds: a mounted secret.

    Raises UsageError.
    """
    for name in secret_names(options):
        path = os.environ.get(f"{name}_FILE")
        if name not in os.environ and path:
            try:
                os.environ[name] = Path(path).read_text().strip()
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"{name}_FILE is {path}, which cannot be read: {error}") from None
