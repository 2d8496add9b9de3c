"""Topics of a test's own, and members of the ingestion pool that work on them in threads."""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from ingestion_rows import ACCOUNT, TAG

from cartoray import wire
from cartoray.events import EVENT, BatchLanded, Event, Place
from cartoray.kafka import Admin, Publisher, read_all
from cartoray.messages import Message
from cartoray.settings import Settings
from cartoray.steps import Action, Step
from cartoray.topics import Topics, topics
from ingestion.sink import Sink


class Bench:
    """Topics of its own, a publisher, and what came of it."""

    def __init__(self, settings: Settings) -> None:
        kafka = settings.kafka.model_copy(update={"topic_prefix": f"t{secrets.token_hex(4)}.", "data_partitions": 2})
        self.settings = settings.model_copy(update={"kafka": kafka})
        self.topics: Topics = topics(kafka)
        Admin(kafka).ensure(self.topics)
        self.publisher = Publisher(kafka, "test")

    def close(self) -> None:
        self.publisher.close()

    def publish(self, messages: Iterable[Message]) -> list[tuple[int, int]]:
        """Places that Kafka gave them."""
        futures = [
            self.publisher.publish(self.topics.data.name, message.key, message.value, list(message.headers.items()))
            for message in messages
        ]
        return [future.result() for future in futures]

    def step(
        self,
        *actions: Action,
        step_id: str = "step-1",
        tag: int = TAG,
        run: str = "run-1",
        account: str = ACCOUNT,
        untouched: Sequence[Place] = (),
    ) -> Message:
        step = Step(
            run_id=run,
            update_tag=tag,
            step_id=step_id,
            account_id=account,
            actions=actions,
            untouched=tuple(untouched),
        )
        return Message("", 0, 0, account.encode(), wire.encode_step(step), dict(wire.step_headers(step)))

    def events(self) -> list[Event]:
        return [
            EVENT.validate_json(message.value) for message in read_all(self.settings.kafka, self.topics.events.name)
        ]

    def until(self, enough: Callable[[list[Event]], bool], timeout_s: float = 30) -> list[Event]:
        deadline = time.monotonic() + timeout_s
        while not enough(events := self.events()):
            assert time.monotonic() < deadline, events
            time.sleep(0.1)
        return events

    def landed(self, count: int) -> Callable[[list[Event]], bool]:
        """Enough is: so many different messages have landed."""
        return lambda events: len(sequences(events)) >= count

    @contextmanager
    def sink(self, on_point: Callable[[str], None] = lambda _: None) -> Iterator[Sink]:
        sink = Sink(self.settings, "ingestion-0", on_point)
        stop = threading.Event()
        thread = threading.Thread(target=sink.run, args=(stop,))
        thread.start()
        try:
            yield sink
        finally:
            stop.set()
            thread.join(30)
            assert not thread.is_alive()


def sequences(events: list[Event]) -> Counter[tuple[str, int]]:
    return Counter(
        (event.job_id, sequence) for event in events if isinstance(event, BatchLanded) for sequence in event.sequences
    )
