"""What was recorded, as a file: JSON, compressed; bytes are in it as latin-1."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_FORMAT = 1


@dataclass(frozen=True)
class Response:
    """An answer of the recorded account; `operation` as IAM names it, such as `ec2:DescribeVpcs`."""

    operation: str
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def answers_head(self) -> bool:
        """Whether a HEAD was asked: its Content-Length is that of a body which is not there."""
        return any(name == "Content-Length" for name, _ in self.headers)


@dataclass(frozen=True)
class Recording:
    """The answers to the requests of one account, by the requests' keys (`requests.key_of`)."""

    account: str
    responses: Mapping[bytes, Response]

    def save(self, path: Path) -> None:
        responses = [
            [key.decode("latin-1"), one.operation, one.status, one.headers, one.body.decode("latin-1")]
            for key, one in self.responses.items()
        ]
        content = {"format": _FORMAT, "account": self.account, "responses": responses}
        path.write_bytes(gzip.compress(json.dumps(content).encode(), 6))


def load(path: Path) -> Recording:
    """The recording in the file. Raises ValueError for a file of another format."""
    content = json.loads(gzip.decompress(path.read_bytes()))
    if content.get("format") != _FORMAT:
        raise ValueError(f"{path} is not a recording of format {_FORMAT}: record anew")
    responses = {
        key.encode("latin-1"): Response(
            operation, status, tuple((name, value) for name, value in headers), body.encode("latin-1")
        )
        for key, operation, status, headers, body in content["responses"]
    }
    return Recording(content["account"], responses)
