"""Processes that outlive the command that starts them."""

from __future__ import annotations

import contextlib
import subprocess
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import psutil

from cartoray.errors import StackError

LOG_BYTES_MAX = 5_000_000  # a larger log starts anew at the next start; the one before it is kept beside it
SAME_CREATION_S = 2.0  # psutil counts from the time of boot, which moves a little when the clock is set


def spawn(command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path) -> psutil.Popen:
    """Start `command` in `folder`, detached from the terminal: neither Ctrl-C nor a closed window reaches it.

    What it prints is appended to `log`. Files it makes are closed to other users. Raises StackError when the system
    refuses to start it.
    """
    if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
        log.replace(log.with_name(f"{log.name}.1"))
    with log.open("ab") as output:
        log.chmod(0o600)
        try:
            return psutil.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=dict(environment),
                start_new_session=True,
                umask=0o077,
            )
        except OSError as error:
            raise StackError(f"{command[0]} cannot be started: {error.strerror}.") from None


def find(pid: int | None, create_time: float) -> psutil.Process | None:
    """The process that had `pid` and was created at `create_time` (seconds since 1970), if it still lives."""
    if pid is None:
        return None
    try:
        process = psutil.Process(pid)
        if abs(process.create_time() - create_time) > SAME_CREATION_S:
            return None
        if process.status() == psutil.STATUS_ZOMBIE:
            with contextlib.suppress(psutil.TimeoutExpired):
                process.wait(timeout=0)  # a child of this very process: nobody else takes its exit code
            return None
    except psutil.NoSuchProcess:
        return None
    return process


def listens(process: psutil.Process, ports: Collection[int]) -> bool:
    """Whether `process` itself listens on all of `ports`: another one that does must not be sent our password."""
    try:
        connections = process.net_connections(kind="tcp")
    except psutil.Error:
        return False
    return {*ports} <= {entry.laddr.port for entry in connections if entry.status == psutil.CONN_LISTEN}


def stop(process: psutil.Process, timeout_s: float) -> bool:
    """Ask `process` to end and wait; after `timeout_s` end it by force. Whether it ended by itself."""
    try:
        process.terminate()
        process.wait(timeout=timeout_s)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
            process.wait()
        return False
    return True


def last_lines(log: Path, count: int) -> list[str]:
    """The last `count` lines of `log`; none where there is no log."""
    try:
        with log.open(encoding="utf-8", errors="replace") as file:
            return [line.rstrip("\n") for line in deque(file, maxlen=count)]
    except FileNotFoundError:
        return []
