"""Faults of AWS, of the groups, of the messages, and of who asks for syncs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import ClassVar

from faults.fault import Fault, Missed
from faults.plan import WHILE_JOBS, Kind
from faults.world import HALF, SyncRefused

from cartoray.events import BatchLanded, RunPlanned, StepLanded, key_of
from cartoray.jobs import Job
from cartoray.kafka import GroupConsumer, Publisher, read_all
from cartoray.messages import Message
from cartoray.topics import group, topics


class OfAws(Fault):
    """Changes what the simulated AWS does."""

    faults: ClassVar[dict[str, object]]
    without: ClassVar[dict[str, object]]

    def inject(self) -> str:
        self.world.aws.faults(**self.faults)
        return ", ".join(f"{name}={value}" for name, value in self.faults.items())

    def heal(self) -> None:
        self.world.aws.faults(**self.without)


class Throttled(OfAws):
    kind = Kind("AWS throttles", "aws", (3.0, 15.0), latest=WHILE_JOBS)
    faults: ClassVar = {"throttle_rate": 0.25}
    without: ClassVar = {"throttle_rate": 0}


class Failing(OfAws):
    kind = Kind("AWS answers 500", "aws", (3.0, 15.0), latest=WHILE_JOBS)
    faults: ClassVar = {"error_rate": 0.25}
    without: ClassVar = {"error_rate": 0}


class Hanging(OfAws):
    kind = Kind("AWS does not answer", "aws", (3.0, 20.0), latest=WHILE_JOBS)
    faults: ClassVar = {"hang": [{}]}
    without: ClassVar = {"hang": []}


class Expired(Fault):
    kind = Kind("credentials expire in mid-job", "aws", latest=WHILE_JOBS)

    def inject(self) -> str:
        self.until(self.world.events.unfinished, "a job under way")
        return f"{self.world.aws.expire_sessions()} role sessions at once"


class Storm(Fault):
    """Members that take partitions, do nothing with them, and leave, one after the other and several at a time."""

    kind = Kind("rebalances in a storm", "groups", (5.0, 15.0))
    rounds = 0

    def inject(self) -> str:
        self._healed = threading.Event()
        names = topics(self.world.direct)
        groups = (("intel", names.jobs.name), ("ingestion", names.data.name))
        self._threads = [
            threading.Thread(target=self._join_and_leave, args=(*each, self.draw.randrange(2**32)), daemon=True)
            for each in groups
            for _ in range(2)
        ]
        for thread in self._threads:
            thread.start()
        return "two strangers in each group, who stay for one to three seconds"

    def _join_and_leave(self, pool: str, topic: str, seed: int) -> None:
        stay_s = 1 + 2 * (seed % 1000) / 1000
        while not self._healed.is_set():
            stranger = GroupConsumer(
                self.world.direct,
                topic=topic,
                group=group(self.world.direct, pool),
                name="stranger",
                on_assigned=lambda _: None,
                on_revoked=lambda _: None,
            )
            until_s = time.monotonic() + stay_s
            while time.monotonic() < until_s and not self._healed.is_set():
                stranger.poll(0.1)
            stranger.close()
            self.rounds += 1

    def heal(self) -> None:
        self._healed.set()
        for thread in self._threads:
            thread.join()


class OfMessages(Fault):
    def republish(self, messages: list[Message]) -> int:
        """Copies, to where they were."""
        publisher = Publisher(self.world.direct, "faults")
        try:
            for each in messages:
                publisher.publish(each.topic, each.key, each.value, list(each.headers.items()))
        finally:
            publisher.close()
        return len(messages)

    def of_run(self, topic: str, run_id: str) -> Iterator[Message]:
        """Its jobs, or its rows and steps."""
        for message in read_all(self.world.direct, topic):
            run = message.headers.get("run", b"").decode()
            if (run or Job.model_validate_json(message.value).run_id) == run_id:
                yield message


class JobsDoubled(OfMessages):
    kind = Kind("jobs delivered twice", "messages")

    def inject(self) -> str:
        jobs = list(self.of_run(topics(self.world.direct).jobs.name, self.run_id))
        return f"{self.republish(jobs)} jobs"


class DataDoubled(OfMessages):
    kind = Kind("rows and steps delivered twice", "messages")

    def inject(self) -> str:
        name = topics(self.world.direct).data.name
        self.until(self._landed, "a message that has landed")
        return f"{self.republish(list(self.of_run(name, self.run_id)))} messages"

    def _landed(self) -> bool:
        return any(isinstance(event, BatchLanded) for event in self.world.events.of(self.run_id))


class DataAfterCleanup(OfMessages):
    kind = Kind("rows again after their cleanup", "messages")

    def inject(self) -> str:
        self.until(self._cleaned, "a cleanup")
        name = topics(self.world.direct).data.name
        rows = [each for each in self.of_run(name, self.run_id) if each.headers["kind"] == b"rows"]
        return f"{self.republish(rows)} messages"

    def _cleaned(self) -> bool:
        events = self.world.events.of(self.run_id)
        return any(isinstance(event, StepLanded) and event.nodes_deleted for event in events)


class OldRowsBeforeCleanup(OfMessages):
    """Rows of an earlier sync, which found what is no longer there, arrive as this one begins."""

    kind = Kind("late rows of an earlier sync", "messages", latest=0.0)

    def inject(self) -> str:
        account = self.draw.choice(self.world.aws.accounts)
        self.world.aws.faults(hang=[{"account": account}])
        time.sleep(1.0)  # for calls that were under way
        if any(self._rows(self.run_id, account)):  # what comes late must not come after what is newer
            raise Missed("the account had rows already")
        return f"{self.republish(list(self._rows(self.world.earlier, account)))} messages"

    def _rows(self, run_id: str, account: str) -> Iterator[Message]:
        """But for those of the account itself, which needs no call."""
        for message in self.of_run(topics(self.world.direct).data.name, run_id):
            of = message.headers.get("job", b"").decode().split("/")[1:]
            if message.headers["kind"] == b"rows" and of[0] == account and of[1] != "account":
                yield message

    def heal(self) -> None:
        self.world.aws.faults(hang=[])


class HalfPublished(OfMessages):
    """What is left of a `cartoray sync` that was killed while it published, before it was started again."""

    kind = Kind("sync killed while it publishes, started again", "sync")

    def inject(self) -> str:
        planned = next(each for each in self.world.events.of(self.run_id) if isinstance(each, RunPlanned))
        name = f"{self.run_id}{HALF}"
        run = planned.run.model_copy(update={"run_id": name, "update_tag": planned.run.update_tag - 1})
        names, publisher = topics(self.world.direct), Publisher(self.world.direct, "faults")
        jobs = [job for job in run.jobs() if not run.held(job.module)]
        half = jobs[: self.draw.randrange(1, len(jobs))]
        event = RunPlanned(run=run)
        publisher.publish(names.events.name, key_of(event).encode(), event.model_dump_json().encode()).result()
        for job in half:
            publisher.publish(names.jobs.name, job.account.id.encode(), job.model_dump_json().encode())
        publisher.close()
        return f"after {len(half)} of {len(jobs)} jobs"


class SyncKilled(Fault):
    """The run goes on, and `cartoray status` shows it."""

    kind = Kind("cartoray sync killed while it waits", "sync")

    def inject(self) -> str:
        self.until(lambda: self.world.events.is_published(self.run_id), "a run that is published")
        sync = next(each for each in self.world.syncs if each.run_id == self.run_id)
        sync.killed = True
        sync.process.kill()
        sync.process.wait()
        return "SIGKILL"


class TwoSyncs(Fault):
    kind = Kind("two syncs of the same accounts", "sync")

    def inject(self) -> str:
        try:
            return f"the second is {self.world.start_sync().run_id}"
        except SyncRefused as error:
            raise Missed(f"the second did not begin: {error}") from None


FAULTS: tuple[type[Fault], ...] = (
    Throttled,
    Failing,
    Hanging,
    Expired,
    Storm,
    JobsDoubled,
    DataDoubled,
    DataAfterCleanup,
    OldRowsBeforeCleanup,
    HalfPublished,
    SyncKilled,
    TwoSyncs,
)
