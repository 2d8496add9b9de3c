from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cartoray.errors import StackError
from cartoray.stack import process

SLEEPER = [sys.executable, "-c", "import time; print('hello', flush=True); time.sleep(60)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('hello', flush=True); time.sleep(60)",
]


def _start(command: list[str], folder: Path) -> psutil.Popen:
    child = process.spawn(command, os.environ, folder, folder / "x.log")
    while not process.last_lines(folder / "x.log", 1):
        assert child.poll() is None
    return child


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[psutil.Popen]:
    child = _start(SLEEPER, tmp_path)
    yield child
    process.stop(child, 5)


def test_a_process_is_in_a_session_of_its_own_and_prints_into_its_log(sleeper: psutil.Popen, tmp_path: Path) -> None:
    assert os.getsid(sleeper.pid) == sleeper.pid
    assert process.last_lines(tmp_path / "x.log", 5) == ["hello"]
    assert (tmp_path / "x.log").stat().st_mode & 0o077 == 0


def test_a_process_is_found_by_id_and_time_of_creation(sleeper: psutil.Popen) -> None:
    assert process.find(sleeper.pid, sleeper.create_time()) == sleeper
    assert process.find(sleeper.pid, sleeper.create_time() - 60) is None
    assert process.find(None, 0) is None


def test_a_process_that_ended_is_not_found_though_nobody_waited_for_it(sleeper: psutil.Popen) -> None:
    created = sleeper.create_time()
    psutil.Process(sleeper.pid).kill()
    while (found := process.find(sleeper.pid, created)) is not None:
        assert found.pid == sleeper.pid
    assert process.find(sleeper.pid, created) is None


def test_stop_ends_a_process_by_force_only_when_asking_did_not_help(tmp_path: Path, sleeper: psutil.Popen) -> None:
    assert process.stop(sleeper, timeout_s=5)
    assert process.stop(sleeper, timeout_s=5)
    (tmp_path / "stubborn").mkdir()
    stubborn = _start(STUBBORN, tmp_path / "stubborn")
    assert not process.stop(stubborn, timeout_s=0.2)
    assert not stubborn.is_running()


def test_whose_port_it_is(sleeper: psutil.Popen) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert process.listens(psutil.Process(), [port])
        assert not process.listens(psutil.Process(), [port, 1])
        assert not process.listens(sleeper, [port])


def test_what_cannot_be_started_is_named(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="no-such-program"):
        process.spawn(["/no-such-program"], {}, tmp_path, tmp_path / "x.log")


def test_the_end_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    assert process.last_lines(log, 3) == []
    log.write_bytes(b"one\ntwo\n\xff\nfour")
    assert process.last_lines(log, 2) == ["\ufffd", "four"]
    assert process.last_lines(log, 0) == []


def test_a_large_log_starts_anew(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_bytes(b"x" * (process.LOG_BYTES_MAX + 1))
    process.spawn([sys.executable, "-c", ""], os.environ, tmp_path, log).wait()
    assert log.stat().st_size == 0
    assert (tmp_path / "x.log.1").stat().st_size > process.LOG_BYTES_MAX
