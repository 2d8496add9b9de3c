"""Replays recordings, as a process of its own: python -m bench.replay.server --help.

Prints one line of JSON, `{"endpoint_url": …}`, once it answers. Besides AWS's requests it takes:

    GET  /_replay/stats    calls by service:operation, throttled, not recorded, CPU seconds of the process, and the
                           seconds that the answered calls take at least with these limits
    POST /_replay/forget   counts from zero again, buckets full
    POST /_replay/stage    {"stage": 1}: answers from the second recording from now on
"""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from bench.replay.accounts import Account, Template
from bench.replay.answers import list_accounts, sts
from bench.replay.connections import Connection, response, response_head
from bench.replay.limits import Limits
from bench.replay.recording import Recording, load
from bench.replay.requests import ENDPOINT, Recognizer, Request
from cartoray.stack.simulated_aws import account_ids
from cartoray.stack.simulated_aws_protocol import Answer, Call, Problem, error, shaped

_LOOPBACK = "127.0.0.1"
_KEYS_SHOWN = 20
_ORGANIZATION = "organizations:ListAccounts"
_JSON = (("Content-Type", "application/json"),)


@dataclass(frozen=True)
class _Entry:
    operation: str
    head: Template
    body: Template
    has_length: bool

    def render(self, account: Account) -> bytes:
        """The whole response; ids within it may differ in length."""
        head, body = self.head.render(account), self.body.render(account)
        return head + (b"\r\n" if self.has_length else b"Content-Length: %d\r\n\r\n" % len(body)) + body


class Replay:
    """Requests in, responses out, as bytes; time is an argument.

    `accounts`: those that organizations:ListAccounts names. `limit_scale`: 0 is without limits, 1 as AWS has them.
    Raises ValueError for recordings of different accounts.
    """

    def __init__(
        self, recordings: Sequence[Recording], endpoint: str, *, accounts: Sequence[str] = (), limit_scale: float = 0.0
    ) -> None:
        self._base = recordings[0].account
        if {recording.account for recording in recordings} != {self._base}:
            raise ValueError("the recordings are of different accounts: record the same account before and after")
        self._stages = [_entries(recording, endpoint.encode()) for recording in recordings]
        self._stage = 0
        self._recognizer = Recognizer(self._base)
        self._accounts = accounts
        self._limit_scale = limit_scale
        self.forget()

    def forget(self) -> None:
        """Counts from zero, fills the buckets."""
        self._calls: Counter[str] = Counter()
        self._throttled: Counter[str] = Counter()
        self._not_recorded: Counter[str] = Counter()
        self._missing_keys: list[str] = []
        self._limits = Limits(self._limit_scale) if self._limit_scale else None

    def answer(self, request: Request, now_s: float) -> bytes:
        if request.path.startswith("/_replay/"):
            return self._administer(request)
        call, account, key = self._recognizer.recognize(request)
        if call.service == "sts" and (made_up := sts(call, time.time())):
            self._calls[call.action] += 1
            return made_up
        if call.action == _ORGANIZATION and self._accounts:
            self._calls[call.action] += 1
            return list_accounts(self._accounts, request.body)
        entry = self._stages[self._stage].get(key)
        if entry is None:
            return self._unknown(call, key)
        self._calls[entry.operation] += 1
        if self._limits and not self._limits.allow(call, entry.operation, now_s):
            self._throttled[entry.operation] += 1
            return _bytes(error(call, Problem.THROTTLED))
        return entry.render(account)

    def _unknown(self, call: Call, key: bytes) -> bytes:
        name = call.action if call.parameters or " " not in call.operation else f"{call.service}:{call.operation[:60]}"
        self._not_recorded[name] += 1
        text = key.decode("utf-8", "replace")
        if len(self._missing_keys) < _KEYS_SHOWN and text not in self._missing_keys:
            self._missing_keys.append(text)
        return _bytes(shaped(call.protocol, 400, "NotRecorded", f"No answer was recorded to {text}"))

    def _administer(self, request: Request) -> bytes:
        match request.method, request.path:
            case "GET", "/_replay/stats":
                return response(200, _JSON, json.dumps(self._stats()).encode())
            case "POST", "/_replay/forget":
                self.forget()
                return response(200, _JSON, b"{}")
            case "POST", "/_replay/stage":
                stage = json.loads(request.body).get("stage")
                if stage not in range(len(self._stages)):
                    return response(400, (), f"stages are 0 to {len(self._stages) - 1}".encode())
                self._stage = stage
                return response(200, _JSON, b"{}")
        return response(404, (), b"see python -m bench.replay.server --help")

    def _stats(self) -> dict[str, object]:
        return {
            "base_account": self._base,
            "stage": self._stage,
            "recorded": len(self._stages[self._stage]),
            "calls": dict(self._calls.most_common()),
            "throttled": dict(self._throttled.most_common()),
            "not_recorded": dict(self._not_recorded.most_common()),
            "not_recorded_keys": self._missing_keys,
            "limit_s": self._limits.least_s if self._limits else 0.0,
            "cpu_s": time.process_time(),
        }


def _entries(recording: Recording, endpoint: bytes) -> dict[bytes, _Entry]:
    entries = {}
    for key, one in recording.responses.items():
        head = Template(recording.account, response_head(one.status, one.headers))
        body = Template(recording.account, one.body.replace(ENDPOINT, endpoint))
        entries[key] = _Entry(one.operation, head, body, one.answers_head)
    return entries


def _bytes(answer: Answer) -> bytes:
    return response(answer.status, answer.headers, answer.body)


async def _serve(recordings: Sequence[Recording], port: int, latency_ms: float, accounts: int, limits: float) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    known: list[Replay] = []
    server = await loop.create_server(
        lambda: Connection(known[0].answer, latency_ms / 1000), _LOOPBACK, port, backlog=4096, start_serving=False
    )
    endpoint = f"{_LOOPBACK}:{server.sockets[0].getsockname()[1]}"
    organization = account_ids(1, accounts) if accounts else ()
    known.append(Replay(recordings, endpoint, accounts=organization, limit_scale=limits))
    gc.collect()
    gc.freeze()  # what was recorded stays: the collector need not look at it again
    await server.start_serving()
    sys.stdout.write(json.dumps({"endpoint_url": f"http://{endpoint}"}) + "\n")
    sys.stdout.flush()
    await stop.wait()
    server.close()


def main(
    recording: Annotated[list[Path], typer.Option(help="of `bench.replay.recorder`; repeatable: a stage each")],
    port: Annotated[int, typer.Option(help="0 takes a free one, which the first line of the output tells")] = 0,
    latency_ms: Annotated[float, typer.Option(help="from a request to its response; AWS takes 50 to 300")] = 0.0,
    organization: Annotated[int, typer.Option(help="accounts that organizations:ListAccounts names; 0: none")] = 0,
    limit_scale: Annotated[float, typer.Option(help="rate limits: 0 none, 1 as AWS, 2 twice as much")] = 0.0,
) -> None:
    """Answers AWS's API from recordings of one account, for any account, on the loopback interface.

    Any AWS client comes here with AWS_ENDPOINT_URL. Assume arn:aws:iam::<account>:role/<any> for the account to be
    read; without that a caller is the management account, 123456789012. A request that was not recorded is answered
    with the code NotRecorded, and GET /_replay/stats shows it. It stops at SIGTERM.
    """
    asyncio.run(_serve([load(path) for path in recording], port, latency_ms, organization, limit_scale))


if __name__ == "__main__":
    typer.run(main)
