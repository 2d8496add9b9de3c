"""`cartoray dlq`: messages that could not be used, with the reason, and how to send them again."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from cartoray.cli.common import JsonOption, progress_console, result_console, settings
from cartoray.dead_letters import DeadLetter, read_dead_letter
from cartoray.errors import UnreadableMessage, UsageError
from cartoray.kafka import Admin, Publisher, read_all
from cartoray.messages import Message
from cartoray.settings import KafkaSettings
from cartoray.topics import topics

SHOWN_BYTES = 2_000


def register(app: typer.Typer) -> None:
    commands = typer.Typer(no_args_is_help=True, help="Dead letters: messages that could not be used, and why.")
    commands.command("list")(list_)
    commands.command()(show)
    commands.command()(replay)
    app.add_typer(commands, name="dlq")


def _name(message: Message) -> str:
    return f"{message.partition}:{message.offset}"


def _read(kafka: KafkaSettings) -> dict[str, tuple[Message, DeadLetter]]:
    Admin(kafka).check()
    found = {}
    for message in read_all(kafka, topics(kafka).dead_letters.name):
        try:
            found[_name(message)] = (message, read_dead_letter(message))
        except UnreadableMessage as error:
            progress_console.print(f"[yellow]{_name(message)}: {escape(str(error))}[/]")
    return found


def _find(kafka: KafkaSettings, letter: str) -> tuple[Message, DeadLetter]:
    found = _read(kafka)
    if letter not in found:
        raise UsageError(f"There is no dead letter {letter!r}; `cartoray dlq list` names them as partition:offset.")
    return found[letter]


def list_(json_: JsonOption = False) -> None:
    """All dead letters: where each came from, and why it could not be used."""
    found = _read(settings().kafka)
    if json_:
        print(json.dumps([_as_dict(*entry) for entry in found.values()]))
        return
    if not found:
        result_console.print("No dead letters.")
        return
    table = Table("letter", "from", "key", "bytes", "reason")
    for name, (message, letter) in found.items():
        origin = f"{letter.topic}[{letter.partition}]@{letter.offset}"
        key = message.key.decode("utf-8", "replace")
        table.add_row(name, origin, escape(key), f"{len(message.value):,}", escape(letter.reason))
    result_console.print(table)


def show(
    letter: Annotated[str, typer.Argument(help="partition:offset, as `dlq list` names it")], json_: JsonOption = False
) -> None:
    """One dead letter: its reason, origin, headers and the beginning of its bytes."""
    message, dead = _find(settings().kafka, letter)
    data = _as_dict(message, dead)
    if json_:
        print(json.dumps(data))
        return
    table = Table.grid(padding=(0, 2))
    for name in ("letter", "topic", "partition", "offset", "reason", "key", "bytes"):
        table.add_row(name, escape(str(data[name])))
    for name, value in data["headers"].items():
        table.add_row(f"header {name}", escape(value))
    result_console.print(table)
    result_console.print(escape(repr(message.value[:SHOWN_BYTES])), highlight=False)


def replay(
    letters: Annotated[list[str] | None, typer.Argument(help="partition:offset; repeatable")] = None,
    all_: Annotated[bool, typer.Option("--all", help="every dead letter")] = False,
) -> None:
    """Send dead letters again to the topic they came from, as they were; they stay listed here.

    What was refused for a reason that is gone (a bug that is mended, a database that took no such value) is written
    then. A run that counted it as failed is complete already: sync again to have its cleanup. Replay before newer runs
    of the account, not after them: what an old message says goes over what they found.
    """
    kafka = settings().kafka
    if bool(letters) == all_:
        raise UsageError("Give letters as partition:offset, or --all.")
    chosen = list(_read(kafka).values()) if all_ else [_find(kafka, letter) for letter in letters or ()]
    publisher = Publisher(kafka, "cartoray-dlq")
    try:
        for message, dead in chosen:
            publisher.publish(dead.topic, message.key, message.value, dead.headers)
    finally:
        publisher.close()
    result_console.print(f"{len(chosen)} sent again.")


def _as_dict(message: Message, letter: DeadLetter) -> dict[str, Any]:
    return {
        "letter": _name(message),
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "reason": letter.reason,
        "key": message.key.decode("utf-8", "replace"),
        "bytes": len(message.value),
        "headers": {name: value.decode("utf-8", "replace") for name, value in letter.headers},
    }
