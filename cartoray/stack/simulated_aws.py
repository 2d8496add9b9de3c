"""A simulated AWS organization on the loopback interface, for the demo and the tests.

    python -m cartoray.stack.simulated_aws --port 4566 --accounts 5 --size 20 --latency-ms 100

One process serves all accounts, regions and services. `AWS_ENDPOINT_URL` leads any AWS client to it; each account is
reached, as in AWS, by assuming its role `CartographyReadOnly` from the management account. How slow and how broken
it is can be changed while it runs, by `POST /_cartoray/faults` (see `Faults`).

This module starts it and talks to it, and loads neither moto nor boto3.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cartoray.stack.loopback_server import ask, started
from cartoray.stack.simulated_aws_protocol import MANAGEMENT_ACCOUNT, ROLE_NAME

_MOTO_SETTINGS = {  # what moto would load into every account and region, and nobody here asks for
    "MOTO_EC2_LOAD_DEFAULT_AMIS": "false",
    "MOTO_IAM_LOAD_MANAGED_POLICIES": "false",
    "MOTO_DISABLE_GLOBAL_CORS": "true",
}

# Modules whose calls go to a host that begins with the account, and 111122223333.127.0.0.1 is none.
UNANSWERED = frozenset({"s3accountpublicaccessblock"})


@dataclass(frozen=True)
class SimulatedAws:
    """A running simulated AWS, seen from outside."""

    endpoint_url: str
    accounts: tuple[str, ...]
    regions: tuple[str, ...]
    pid: int
    management_account: str = MANAGEMENT_ACCOUNT
    role_name: str = ROLE_NAME

    def role_arn(self, account: str) -> str:
        """The role by which an account is read."""
        return f"arn:aws:iam::{account}:role/{self.role_name}"

    def environment(self) -> dict[str, str]:
        """What leads botocore here as the management account: all of it, so that no real credential is ever used."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_SESSION_TOKEN": "testing",
            "AWS_DEFAULT_REGION": self.regions[0],
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def faults(self, **changed: object) -> dict[str, Any]:
        """Changes the fields of `Faults` that are named, leaves the others, returns all as they are now."""
        return self._control("POST", "faults", changed)

    def expire_sessions(self) -> int:
        """Ends all role sessions before their time, as AWS does when somebody revokes them; answers how many."""
        return int(self._control("POST", "expire")["sessions"])

    def mutate(self, seed: int) -> list[dict[str, str]]:
        """Changes the inventory; the same seeds in the same order make the same changes. A seed serves once.

        Returns what was removed, changed and added: account, region, kind, verb and id of each.
        """
        changes: list[dict[str, str]] = self._control("POST", "mutate", {"seed": seed})["changes"]
        return changes

    def warm(self, **parameters: str) -> None:
        """Renders the six large EC2 answers of every region, as they are when called with these parameters.

        moto takes 100 ms of CPU a region for them, the first time and after a mutation. AWS does not, so a benchmark
        asks for this beforehand: `warm()`, and `warm(MaxResults="1000")` for callers that send it.
        """
        self._control("POST", "warm", {"parameters": parameters})

    def calls(self) -> dict[str, Any]:
        """The calls so far: total, most at once, and counts by account, region, action and outcome."""
        return self._control("GET", "calls")

    def forget_calls(self) -> None:
        """Starts the counts anew."""
        self._control("DELETE", "calls")

    def _control(self, method: str, name: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        return _control(self.endpoint_url, method, name, body)


def _control(endpoint_url: str, method: str, name: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
    return ask(f"{endpoint_url}/_cartoray/{name}", method, body)


@contextmanager
def start_simulated_aws(
    *,
    accounts: int = 2,
    regions: Sequence[str] = ("us-east-1", "eu-west-1"),
    size: int = 5,
    seed: int = 1,
    latency_ms: float = 0.0,
    host: str = "127.0.0.1",
    port: int = 0,
    start_s_max: float = 120.0,
) -> Iterator[SimulatedAws]:
    """Runs it as a process of its own, on a free port unless one is given, and stops that process on leaving.

    It ends as well when this process dies, because its standard input is closed then. Raises RuntimeError if it does
    not answer within `start_s_max`; what it printed is on the standard error.
    """
    command = [sys.executable, "-m", "cartoray.stack.simulated_aws", "--host", host, "--port", str(port)]
    command += ["--accounts", str(accounts), "--regions", ",".join(regions), "--size", str(size)]
    command += ["--seed", str(seed), "--latency-ms", str(latency_ms), "--until-input-ends"]
    with started(command, "the simulated AWS", start_s_max) as (endpoint_url, pid):
        health = _control(endpoint_url, "GET", "health")
        yield SimulatedAws(endpoint_url, tuple(health["accounts"]), tuple(health["regions"]), pid)


def account_ids(seed: int, count: int) -> tuple[str, ...]:
    """The organization's accounts, the management account first; members are numbered from a base of the seed."""
    base = 100_000_000_000 + seed % 100_000 * 100_000
    return (MANAGEMENT_ACCOUNT, *(str(base + number) for number in range(1, count)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cartoray.stack.simulated_aws", description="A simulated AWS.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=4566, help="0 takes a free one")
    parser.add_argument("--accounts", type=int, default=2, help="accounts of the organization, the management one too")
    parser.add_argument("--regions", default="us-east-1,eu-west-1", help="separated by commas")
    parser.add_argument("--size", type=int, default=5, help="instances per account and region; the rest scales with it")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same inventory")
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--throttle-rate", type=float, default=0.0, help="share of the calls, 0 to 1")
    parser.add_argument("--error-rate", type=float, default=0.0, help="share of the calls, 0 to 1")
    parser.add_argument("--until-input-ends", action="store_true", help="stop when the standard input is closed")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: serves until SIGTERM, SIGINT or, if asked, the end of the standard input."""
    options = _parser().parse_args(arguments)
    os.environ.update(_MOTO_SETTINGS)  # moto reads them while it is imported
    from cartoray.stack.simulated_aws_faults import Faults  # noqa: PLC0415
    from cartoray.stack.simulated_aws_http import serve  # noqa: PLC0415
    from cartoray.stack.simulated_aws_inventory import Plan  # noqa: PLC0415 - the tests' process must not load moto

    plan = Plan(
        account_ids(options.seed, options.accounts),
        tuple(options.regions.split(",")),
        instances_per_region=options.size,
        seed=options.seed,
    )
    faults = Faults(latency_ms=options.latency_ms, throttle_rate=options.throttle_rate, error_rate=options.error_rate)
    asyncio.run(serve(options.host, options.port, plan, faults, until_input_ends=options.until_input_ends))
    return 0


if __name__ == "__main__":
    sys.exit(main())
