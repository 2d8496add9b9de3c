"""A provider's module in a process of its own, which ends with it.

Providers other than AWS keep all sorts of things for a whole process: tokens, event loops, SDK configuration, the
environment. So each job has a process; starting it takes 3 s of CPU, most of it imports.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

from pydantic import BaseModel, SecretStr

from actors.transforms import load_module
from actors.wrapped.configuration import configuration, secret_names, secrets_from_files
from actors.wrapped.session import GraphDriver
from cartoray.errors import CartorayError
from cartoray.jobs import Job
from cartoray.logs import log_to_stderr
from cartoray.redaction import Redaction, redaction
from cartoray.settings import Settings

_LOOK_EVERY_S = 0.2
TRACEBACK_MAX = 6_000  # characters; its end says most


@dataclass(frozen=True)
class Outcome:
    """How the process ended. `broken`: why the module did not come to its end."""

    messages: int = 0
    rows: int = 0
    broken: str = ""
    traceback: str = ""


class _Order(BaseModel):
    """What the parent tells the child, by a line on its standard input: a command line is public, and settings hold

    secrets.
    """

    settings: dict[str, dict[str, Any]]
    job: Job
    attempt: str


def _revealed(settings: Settings) -> dict[str, dict[str, Any]]:
    """The settings as JSON has them, secrets as well, which pydantic would mask."""
    found: dict[str, dict[str, Any]] = settings.model_dump(mode="json")
    for group, section in settings:
        for name, value in section:
            if isinstance(value, SecretStr):
                found[group][name] = value.get_secret_value()
    return found


def run_in_process(settings: Settings, job: Job, attempt: str, check: Callable[[], None]) -> Outcome:
    """Runs the module to its end; `check` raises to kill it. All its messages are acknowledged then."""
    reading, writing = os.pipe()
    with open(reading, "rb") as answers:  # noqa: PTH123 - a pipe
        with subprocess.Popen(
            [sys.executable, "-m", "actors.wrapped.process", str(writing)],
            stdin=subprocess.PIPE,
            stdout=sys.stderr.fileno(),
            pass_fds=(writing,),
        ) as child:
            os.close(writing)
            try:
                assert child.stdin is not None
                order = _Order(settings=_revealed(settings), job=job, attempt=attempt)
                child.stdin.write(order.model_dump_json().encode() + b"\n")  # and not closed: see `_die_with`
                child.stdin.flush()
                while child.poll() is None:
                    check()
                    with suppress(subprocess.TimeoutExpired):
                        child.wait(_LOOK_EVERY_S)
            except BaseException:
                child.kill()
                raise
        text = answers.read()
    if not text:
        return Outcome(broken=f"The module's process ended by itself with code {child.returncode}.")
    return Outcome(**json.loads(text))


def run_provider(driver: GraphDriver, job: Job, attempt: str, hide: Redaction) -> Outcome:
    """Runs the module in this process. What it raises is part of the outcome, without the job's secrets.

    `hide` learns these.
    """
    with closing(driver.session_of(job, attempt)) as session:
        broken = trace = ""
        try:
            secrets_from_files(job.options)
            hide.add(os.environ.get(name, "") for name in secret_names(job.options))
            config = configuration(job.options)
            config.update_tag = job.update_tag
            stages = load_module("cartography.sync").TOP_LEVEL_MODULES
            stages[job.module](session, config)
        except CartorayError as error:
            broken = str(error)
        except Exception as error:  # noqa: BLE001 - of any library; told with its traceback
            broken, trace = f"{type(error).__name__}: {error}", traceback.format_exc()
        for report in session.stream.reports:
            report.result()
        return Outcome(len(session.stream.reports), session.rows, hide(broken), hide(trace)[-TRACEBACK_MAX:])


def _die_with(parent: BinaryIO) -> None:
    """Ends this process when the one that holds the other end of its standard input has gone."""

    def watch() -> None:
        parent.read()
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def main(answers: int) -> None:
    order = _Order.model_validate_json(sys.stdin.buffer.readline())
    settings = Settings.model_validate(order.settings)
    _die_with(sys.stdin.buffer)
    hide = redaction(settings)
    log_to_stderr("%(levelname)s %(name)s %(message)s", hide)
    with GraphDriver(settings, "provider") as driver:
        outcome = run_provider(driver, order.job, order.attempt, hide)
    os.write(answers, json.dumps(asdict(outcome)).encode())


if __name__ == "__main__":
    main(int(sys.argv[1]))
