"""Servers of ours on loopback, each a process of its own that prints where it answers: started, asked, stopped."""

from __future__ import annotations

import json
import subprocess
import threading
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def started(command: Sequence[str], what: str, start_s_max: float = 120.0) -> Iterator[tuple[str, int]]:
    """Endpoint URL, which the command prints as a line of JSON once it answers, and process id; stopped on leaving.

    Its standard input is closed when this process dies. Raises RuntimeError if it does not answer within `start_s_max`;
    what it printed is on the standard error.
    """
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield _announced(process, what, start_s_max), process.pid
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _announced(process: subprocess.Popen[bytes], what: str, start_s_max: float) -> str:
    assert process.stdout is not None
    late = threading.Timer(start_s_max, process.kill)  # ends the read below, too
    late.start()
    try:
        line = process.stdout.readline()
    finally:
        late.cancel()
    if not line:
        raise RuntimeError(f"{what} did not start within {start_s_max:.0f} s: see its standard error")
    url: str = json.loads(line)["endpoint_url"]
    return url


def ask(url: str, method: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
    """The JSON that it answers."""
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, data, method=method)
    with urllib.request.urlopen(request, timeout=600) as response:
        answer: dict[str, Any] = json.load(response)
    return answer
