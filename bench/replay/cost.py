"""What a call costs the replay server: python -m bench.replay.cost [--recording FILE].

Sends DescribeInstances again and again over connections that are kept, for one account after the other, so that no
answer is the same as one before; and prints milliseconds of CPU of the server process per call.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import boto3
import typer

from bench.replay.answers import access_key
from bench.replay.recorder import record
from bench.replay.running import RunningReplay, start_replay
from cartoray.stack.simulated_aws import account_ids, start_simulated_aws

REGION = "us-east-1"
_BODY = b"Action=DescribeInstances&Version=2016-11-15"


def main(
    calls: Annotated[int, typer.Option(help="in all")] = 5000,
    connections: Annotated[int, typer.Option(help="at once, each with one call after the other")] = 8,
    size: Annotated[int, typer.Option(help="instances in an answer")] = 20,
) -> None:
    """Measures the CPU of the replay server for each call of DescribeInstances, without latency."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recording.gz"
        _record(path, size)
        for text, accounts in (("one account", 1), ("500 accounts in turn", 500)):
            with start_replay([path]) as replay:
                cost_ms, answer_bytes = measure(replay, account_ids(2, accounts + 1)[1:], calls, connections)
            print(f"{text}: {cost_ms:.3f} ms of CPU per call, {answer_bytes:,} bytes per answer")


def measure(
    replay: RunningReplay, accounts: Sequence[str], calls: int, connections: int, body: bytes = _BODY
) -> tuple[float, int]:
    """Milliseconds of the server's CPU per call, and the bytes of an answer. Asks for `accounts` in turn."""
    requests = [_request(account, body) for account in accounts]
    asyncio.run(_send(replay.endpoint_url, requests * 2, connections))  # until everything was called once
    before_s = replay.stats()["cpu_s"]
    turns = [requests[number % len(requests)] for number in range(calls)]
    answer_bytes = asyncio.run(_send(replay.endpoint_url, turns, connections))
    return (replay.stats()["cpu_s"] - before_s) / calls * 1000, answer_bytes // calls


def _request(account: str, body: bytes) -> bytes:
    """As botocore sends it, in length and headers."""
    scope = f"{access_key(account)}/20260101/{REGION}/ec2/aws4_request"
    head = (
        f"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept-Encoding: identity\r\n"
        f"Content-Type: application/x-www-form-urlencoded; charset=utf-8\r\nUser-Agent: {'x' * 150}\r\n"
        f"X-Amz-Date: 20260101T000000Z\r\nX-Amz-Security-Token: {'x' * 356}\r\nAuthorization: AWS4-HMAC-SHA256 "
        f"Credential={scope}, SignedHeaders=content-type;host;x-amz-date;x-amz-security-token, Signature={'0' * 64}\r\n"
        f"amz-sdk-invocation-id: 00000000-0000-4000-8000-000000000000\r\namz-sdk-request: attempt=1\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _send(endpoint_url: str, requests: Sequence[bytes], connections: int) -> int:
    """Sends them all; the bytes of the answers' bodies. Raises RuntimeError for an answer that is not 200."""
    host, port = endpoint_url.removeprefix("http://").split(":")
    waiting = iter(requests)

    async def client() -> int:
        reader, writer = await asyncio.open_connection(host, int(port))
        received = 0
        for request in waiting:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200 "):
                raise RuntimeError(head.decode())
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            received += length
        writer.close()
        return received

    return sum(await asyncio.gather(*(client() for _ in range(connections))))


def _record(path: Path, size: int) -> None:
    with start_simulated_aws(size=size) as aws, record(aws.endpoint_url, aws.accounts[1], path) as endpoint_url:
        session = boto3.Session("testing", "testing", region_name=REGION)
        sts = session.client("sts", endpoint_url=endpoint_url)
        given = sts.assume_role(RoleArn=aws.role_arn(aws.accounts[1]), RoleSessionName="cost")["Credentials"]
        keys = (given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])
        boto3.Session(*keys, region_name=REGION).client("ec2", endpoint_url=endpoint_url).describe_instances()


if __name__ == "__main__":
    typer.run(main)
