"""Dead letters: a message as it was, with the reason why it could not be used and where it came from.

The headers are Kafka Connect's, so that tools which know those can read them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cartoray.errors import UnreadableMessage
from cartoray.messages import Message

_PREFIX = "__connect.errors."
_TOPIC, _PARTITION, _OFFSET = f"{_PREFIX}topic", f"{_PREFIX}partition", f"{_PREFIX}offset"
_REASON = f"{_PREFIX}exception.message"
REASON_MAX = 2_000  # characters; the dead letter itself holds the rest of the truth


@dataclass(frozen=True)
class DeadLetter:
    """Origin and reason; `headers` are those that the message had."""

    topic: str
    partition: int
    offset: int
    reason: str
    headers: tuple[tuple[str, bytes], ...]


def dead_letter_headers(message: Message, reason: str) -> list[tuple[str, bytes]]:
    """The headers of the dead letter for `message`: its own, and those that say why and where from."""
    return [
        *message.headers.items(),
        (_TOPIC, message.topic.encode()),
        (_PARTITION, str(message.partition).encode()),
        (_OFFSET, str(message.offset).encode()),
        (_REASON, reason.encode("utf-8", "backslashreplace")),
    ]


def without_content(message: Message, reason: str) -> list[tuple[str, bytes]]:
    """The headers of a dead letter that has neither the value nor the headers of `message`, since no topic takes them.

    Producers that let Kafka compress can send what is larger than the limits of the topics, which are of what is sent.
    """
    where = f"{message.topic}[{message.partition}]@{message.offset}"
    said = f"{reason[:REASON_MAX]} It has {len(message.value)} bytes, too many for a dead letter: they are in {where}."
    return dead_letter_headers(replace(message, headers={}), said)


def read_dead_letter(message: Message) -> DeadLetter:
    """Raises UnreadableMessage: not a dead letter of cartoray's."""
    try:
        return DeadLetter(
            topic=message.headers[_TOPIC].decode(),
            partition=int(message.headers[_PARTITION]),
            offset=int(message.headers[_OFFSET]),
            reason=message.headers[_REASON].decode("utf-8", "replace"),
            headers=tuple((name, value) for name, value in message.headers.items() if not name.startswith(_PREFIX)),
        )
    except (KeyError, ValueError) as error:
        raise UnreadableMessage(f"Not a dead letter: header {error} is missing or wrong.") from None
